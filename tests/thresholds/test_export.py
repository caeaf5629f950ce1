"""Tables in the words of serving systems: what is said, what is not, and the contract of all."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fluid.errors import InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.export.admission import FOLLOWED, restraints_of
from thresholds.export.engines import ENGINES, engine_flags
from thresholds.fields import Threshold, Validated
from thresholds.rules import rule_of
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.registry import SOLVERS, solver_named
from thresholds.table import ThresholdTable

SERVER = load_server("engine-long-decode")
LOAD = Workload(
    name="two",
    classes=(
        RequestClass(name="long", rate_per_s=1.0, prefill_tokens=512, decode_tokens=1000),
        RequestClass(name="short", rate_per_s=1.0, prefill_tokens=128, decode_tokens=50),
    ),
)

SHORT = Workload(
    name="short",
    classes=(
        RequestClass(name="short", rate_per_s=7.0, prefill_tokens=512, decode_tokens=20),
        RequestClass(name="long", rate_per_s=3.0, prefill_tokens=512, decode_tokens=50),
    ),
)
EARLIER = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def paced() -> ThresholdTable:
    return Paced().solve(LOAD, SERVER)


def with_params(table: ThresholdTable, **params: Any) -> ThresholdTable:
    return table.model_copy(update={"params": params})


def nested(table: ThresholdTable) -> ThresholdTable:
    segments = (
        Threshold(name="up to 50", threshold=4, up_to_tokens=50),
        Threshold(name="up to 1000", threshold=2, up_to_tokens=1000),
    )
    changes = {"policy": "nested-wait", "params": {"max_wait_s": 2.0}, "thresholds": segments}
    return table.model_copy(update=changes)


def flags(table: ThresholdTable, engine: str) -> dict[str, Any]:
    return {one.name: one.value for one in ENGINES[engine].configure(table, "t.json").flags}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("kind", ["paced", "unrestrained", "nested", "wait"])
def test_every_engine_names_each_flag_once_and_says_why(
    name: str, kind: str, paced: ThresholdTable
) -> None:
    tables = {
        "paced": paced,
        "unrestrained": with_params(paced),
        "nested": nested(paced),
        "wait": paced.model_copy(update={"policy": "wait"}),
    }
    config = ENGINES[name].configure(tables[kind], "/t.json")
    names = [flag.name for flag in config.flags]
    assert config.engine == name
    assert len(set(names)) == len(names)
    assert all(flag.reason and "\n" not in flag.reason for flag in config.flags)
    assert bool(config.flags) == (kind != "wait" or name == "env")
    text = config.text
    for flag in config.flags:
        assert flag.name in text
        assert flag.reason in text
    for lost in config.not_expressible:
        assert f"# NOT expressible here: {lost}\n" in text


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_command_line_can_be_pasted_into_a_shell(name: str, paced: ThresholdTable) -> None:
    engine = ENGINES[name]
    config = engine.configure(nested(paced), "/my tables/t.json")
    words = shlex.split(config.text, comments=True)
    for flag in config.flags:
        where = words.index(f"--{flag.name}")
        assert flag.value == "" or words[where + 1] == str(flag.value)


def test_trtllm_reads_its_fields_as_yaml(paced: ThresholdTable) -> None:
    config = ENGINES["trtllm"].configure(paced, None)
    found = yaml.safe_load(config.text)
    assert found == {flag.name: flag.value for flag in config.flags}


def test_the_cap_is_a_flag_everywhere(paced: ThresholdTable) -> None:
    capped = with_params(paced, cap_requests=77)
    assert flags(capped, "vllm")["max-num-active-seqs"] == 77
    assert flags(capped, "sglang")["max-running-requests"] == 77
    assert flags(capped, "trtllm")["max_batch_size"] == 77
    free = with_params(paced)
    assert "max-num-active-seqs" not in flags(free, "vllm")
    # Without a cap the seats must not bind: requests of the mix fill the memory first.
    assert flags(free, "sglang")["max-running-requests"] > SERVER.usable_kv_tokens / (512 + 1000)


def test_the_token_budget_holds_an_iteration(paced: ThresholdTable) -> None:
    long_prompt = LOAD.model_copy(
        update={
            "classes": (
                RequestClass(name="rag", rate_per_s=0.1, prefill_tokens=6000, decode_tokens=10),
            )
        }
    )
    wide = Paced().solve(long_prompt, SERVER)
    for table in (paced, wide):
        budget = flags(table, "vllm")["max-num-batched-tokens"]
        longest = max(one.prefill_tokens for one in table.workload.classes)
        assert budget >= longest + flags(table, "vllm")["max-num-seqs"]
        assert budget == flags(table, "sglang")["chunked-prefill-size"]
        assert budget == flags(table, "trtllm")["max_num_tokens"]
        assert math.log2(budget).is_integer()


def test_only_vllm_follows_the_pace(paced: ThresholdTable) -> None:
    table = with_params(paced, pace_per_iteration=1.3)
    assert flags(table, "sglang")["prefill-max-requests"] == 2
    for name in ("sglang", "trtllm"):
        lost = ENGINES[name].configure(table, None).not_expressible
        assert any("pace" in one for one in lost), name
    assert json.loads(flags(table, "vllm")["additional-config"]) == {
        "fluidwait": {"table": "t.json"}
    }


def test_the_first_gate_of_nested_wait(paced: ThresholdTable) -> None:
    table = nested(paced)
    found = flags(table, "sglang")
    assert found["enable-prefill-delayer"] == ""
    assert 0 < found["prefill-delayer-queue-min-ratio"] < 1
    assert found["prefill-delayer-max-delay-ms"] == 2000
    fields = flags(table, "trtllm")
    mean = (512 + 128) / 2
    share = 4 * mean / fields["max_num_tokens"]
    assert fields["batch_wait_max_tokens_ratio"] == pytest.approx(share, abs=1e-4)
    tau_s = table.predicted.iteration_time_s
    assert tau_s is not None
    assert fields["batch_wait_timeout_iters"] == math.ceil(2.0 / tau_s)
    for name in ("sglang", "trtllm"):
        lost = ENGINES[name].configure(table, None).not_expressible
        assert any("segments" in one for one in lost), name
    assert "enable-prefill-delayer" not in flags(paced, "sglang")
    assert flags(paced, "trtllm")["batch_wait_timeout_iters"] == 0


def test_a_solved_table_carries_the_same_flags(paced: ThresholdTable) -> None:
    assert paced.engine_flags == engine_flags(paced)
    assert paced.engine_flags.vllm["scheduler-cls"] == (
        "thresholds.export.vllm_scheduler.AsyncTableScheduler"
    )


def test_env_holds_every_number(paced: ThresholdTable, tmp_path: Path) -> None:
    found = flags(nested(paced), "env")
    assert found["FLUIDWAIT_POLICY"] == "nested-wait"
    assert found["FLUIDWAIT_MAX_WAIT_S"] == 2.0
    assert [found[f"FLUIDWAIT_THRESHOLD_{k}"] for k in (0, 1)] == [4, 2]


@pytest.mark.parametrize("policy", SOLVERS)
def test_a_solved_table_is_followed_whole_or_refused_for_its_policy(policy: str) -> None:
    solver = solver_named(policy, **({"segments": 2} if rule_of(policy).segmented else {}))
    table = solver.solve(SHORT, SERVER)
    config = ENGINES["vllm"].configure(table, "t.json")
    if policy not in FOLLOWED:
        with pytest.raises(InputError) as caught:
            restraints_of(table, "t.json")
        assert caught.value.field == "policy"
        assert config.flags == ()
        return
    # The flag --watermark says all of a table that is a watermark alone.
    alone = set(table.params) == {"watermark_fraction"}
    assert ("scheduler-cls" in flags(table, "vllm")) == (not alone)
    found = restraints_of(table, "t.json")
    assert found.limits == table.limits
    assert table.params.items() <= found.limits.params.items()
    ends = tuple(one.up_to_tokens for one in table.thresholds if one.up_to_tokens)
    assert found.segment_ends == ends
    if ends:
        assert len(ends) == 2
        assert found.segment_thresholds == tuple(one.threshold for one in table.thresholds)
    assert found.gated == (policy == "nested-wait")


@pytest.mark.parametrize("policy", ["nested-wait", "nested-cap"])
def test_nested_tables_of_schema_1_1_are_followed(policy: str) -> None:
    table = ThresholdTable.read(EARLIER / f"threshold-table-{policy}-1.1.json")
    assert "segments" in table.params
    assert restraints_of(table, "t.json").segment_thresholds


def test_without_the_class_a_cap_stands_in_for_the_pace(paced: ThresholdTable) -> None:
    vllm = ENGINES["vllm"]
    plain = {one.name: one.value for one in vllm.configure(paced, "t.json", flags_only=True).flags}
    assert plain["max-num-seqs"] == flags(paced, "sglang")["max-running-requests"]
    assert plain["max-num-seqs"] < flags(paced, "vllm")["max-num-seqs"] / 2
    capped = with_params(paced, cap_requests=77)
    plain = {one.name: one.value for one in vllm.configure(capped, None, flags_only=True).flags}
    assert plain["max-num-seqs"] == plain["max-num-active-seqs"] == 77


def test_no_flags_for_a_scheduler_that_would_not_start(paced: ThresholdTable) -> None:
    silent = SERVER.model_copy(update={"first_token": "decode"})
    for table, field in (
        (Paced().solve(LOAD, silent), "server.first_token"),
        (with_params(paced, speed=1.0), "params.speed"),
    ):
        assert {"scheduler-cls", "additional-config"}.isdisjoint(flags(table, "vllm"))
        lost = ENGINES["vllm"].configure(table, "t.json").not_expressible
        assert any("does not start" in one and field in one for one in lost)


HOSTILE = "a\n$(touch y) `touch y` '; touch y\x1b]0;y\x07"


@pytest.mark.parametrize("name", ENGINES)
def test_no_name_reaches_a_shell(name: str, paced: ThresholdTable, tmp_path: Path) -> None:
    """Names like these are refused in files; what is built by hand is harmless too."""
    named = tuple(one.model_copy(update={"name": HOSTILE}) for one in paced.thresholds)
    table = paced.model_copy(update={"thresholds": named, "policy": "wait"})
    for one in (table, paced.model_copy(update={"thresholds": named})):
        text = ENGINES[name].configure(one, f"{tmp_path}/{HOSTILE}").text
        script = tmp_path / "x.sh"
        script.write_text("vllm() { :; }; python() { :; }\n" + text)
        if name != "trtllm":
            subprocess.run(["bash", str(script)], cwd=tmp_path, check=True)
        assert not (tmp_path / "y").exists()
        assert "\x1b]0;y\x07" not in text.partition("FLUIDWAIT_TABLE")[0]


def test_what_may_wait_follows_from_the_limit_of_ttft() -> None:
    """144 seats and 14 that wait 5 s at 2.9 /s; a minute's arrivals without a limit."""
    load = Workload.read(EARLIER / "cases" / "ttft-target.yaml")
    machine = load_server(str(EARLIER / "cases" / "a10g-server.json"))
    table = Paced().solve(load, machine)
    flags = {one.name: one for one in table.flags("vllm").flags}
    seats = flags["max-num-seqs"].value
    assert (seats, flags["max-num-queued-reqs"].value) == (144, 144 + 14)
    assert "mean TTFT ≤ 5 s" in flags["max-num-queued-reqs"].reason
    tokens = flags["max-num-queued-tokens"].value
    assert 0.9 * 5 * 2.897 * 950 < float(tokens) < 5 * 2.897 * 950
    assert any("at most 14 requests" in note for note in table.notes)
    (queued,) = (one for one in table.flags("sglang").flags if one.name == "max-queued-requests")
    assert queued.value == 14
    assert table.engine_flags.vllm["max-num-queued-reqs"] == 158
    unpaced = {one.name: one for one in table.flags("vllm", flags_only=True).flags}
    assert "without it some wait longer" in unpaced["max-num-queued-reqs"].reason

    without = load.model_copy(
        update={"classes": tuple(one.model_copy(update={"slo": None}) for one in load.classes)}
    )
    plain = {one.name: one.value for one in Paced().solve(without, machine).flags("vllm").flags}
    assert plain["max-num-queued-reqs"] == 144 + math.ceil(60 * 2.8969)
    assert "max-num-queued-tokens" not in plain


def replayed(table: ThresholdTable, *rows: tuple[str, dict[str, Any], float | None]) -> Any:
    """The table beside policies with these mean latencies; unstable where there is none."""
    zero = {"mean": 1.0, "half_width": 0.0}
    own = ("greedy", {}, 9.0)
    validated = {
        "replications": 2,
        "requests": 100,
        "seed": 0,
        "policies": tuple(
            {
                "policy": policy,
                "params": params,
                "rate_per_s": 2.0,
                "verdict": "unstable" if latency_s is None else "stable",
                "latency_s": latency_s and {"mean": latency_s, "half_width": 0.1},
                "completed_share": zero,
                "evictions_per_request": 0.0,
                "collapsed_share": 0.0,
            }
            for policy, params, latency_s in (own, *rows)
        ),
    }
    return table.model_copy(update={"validated": Validated.model_validate(validated)})


@pytest.mark.parametrize(
    ("no_evict_s", "most_s", "chosen"),
    [(3.0, 2.0, "MAX_UTILIZATION"), (3.0, None, "GUARANTEED_NO_EVICT")],
)
def test_trtllm_gets_the_capacity_policy_that_was_better_in_the_replay(
    paced: ThresholdTable, no_evict_s: float, most_s: float | None, chosen: str
) -> None:
    both = (("trtllm-no-evict", {}, no_evict_s), ("trtllm-max-utilization", {}, most_s))
    text = ENGINES["trtllm"].configure(replayed(paced, *both)).text
    assert yaml.safe_load(text)["scheduler_config"] == {"capacity_scheduler_policy": chosen}
    assert "mean latency 3 s" in text
    assert "scheduler_config" not in flags(replayed(paced, both[0]), "trtllm")


def test_sglang_gets_the_conservativeness_that_was_better_in_the_replay(
    paced: ThresholdTable,
) -> None:
    rows = [("sglang", {}, 3.0), ("sglang", {"schedule_conservativeness": 0.5}, 2.0)]
    assert flags(replayed(paced, *rows), "sglang")["schedule-conservativeness"] == 0.5
    assert flags(paced, "sglang")["schedule-conservativeness"] == 1.0
