"""Questions that people asked in public, with small inputs and the right answers.

What their files hold is tested in `tests/fluid/test_trace_cases.py`; what their servers did, beside
what the toolkit says, is in docs/public-measurements.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call

PUBLIC = Path(__file__).parents[1] / "data" / "public"
A10G, JOB = PUBLIC / "a10g-qwen-7b.json", PUBLIC / "a10g-job.yaml"
A100 = ("-s", "a100-80gb-llama-2-7b")
SATURATED_PER_S = 19.43
"""Completions of the chat server in runs of 100,000 requests above its limit."""
HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
SMALL = ("--replications", 2, "--requests", 1500)


def flags(done: Any) -> dict[str, Any]:
    return {one["name"]: one["value"] for one in done.document["flags"]}


def seats_measured(call: Call, seats: int) -> Any:
    """The A10G under more requests than it can serve, by seats."""
    policy = f"vllm-v1:max_num_seqs={seats}"
    done = call("compare", JOB, "-s", A10G, "--policy", policy, "--rates", 3.04, *SMALL, "--json")
    return done.document["policies"][0]


def test_ten_requests_one_at_a_time_are_stable(call: Call, tmp_path: Path) -> None:
    tape, load, table = (
        PUBLIC.parent / "cases" / "01-idle-server.csv",
        tmp_path / "load.yaml",
        tmp_path / "table.json",
    )
    load.write_text(
        "name: c\nclasses:\n"
        "  - {name: c, rate_per_s: 4.0, prefill_tokens: 200, decode_tokens: 150}\n"
    )
    compared = call("compare", "--tape", tape, *A100, "--policy", "vllm-v1", "--json")
    assert [one["verdict"] for one in compared.document["policies"]] == ["stable"]
    assert call("solve", load, *A100, "--rate", 0.1, "-o", table).code == 0
    replayed = call("replay", table, "--tape", tape, "--json").document["policies"]
    assert {one["verdict"] for one in replayed} == {"stable"}
    assert replayed[0]["latency_s"]["mean"] == pytest.approx(1.44, abs=0.01)
    assert all(one["collapsed_share"] == 0 for one in replayed)


def test_the_largest_rate_does_not_depend_on_the_length_of_runs(call: Call) -> None:
    """19.5 a second is what 64 seats complete when more arrives; runs of 500 requests find it."""
    load, server = PUBLIC / "chat-8b.yaml", PUBLIC / "gpu-8b.json"
    done = call(
        *("compare", load, "-s", server, "--rates", 10, "--policy", "vllm-v1:max_num_seqs=64"),
        *("--find-capacity", "--replications", 4, "--requests", 500, "--json"),
    )
    [found] = done.document["capacities"]
    low, high = found["largest_stable_rate_per_s"], found["smallest_unstable_rate_per_s"]
    assert low <= SATURATED_PER_S <= high
    assert high / low < 1.0101


def test_a_burst_that_was_not_watched_long_enough_is_not_never(call: Call) -> None:
    """500 requests at once need about 900 s at this rate; the run ends before."""
    done = call(
        *("compare", JOB, "-s", A10G, "--rates", 2, "--policy", "vllm-v1:max_num_seqs=128"),
        *("--burst", 500, "--replications", 2, "--requests", 2000),
    )
    assert "not within" in done.out
    assert "never" not in done.out


def test_a_request_too_long_for_the_server_is_named_and_can_be_left_out(
    call: Call, tmp_path: Path
) -> None:
    tape = tmp_path / "tape.csv"
    tape.write_text(f"{HEADER}0,200,150\n1,120000,50\n30,200,150\n60,200,150\n")
    command = ("compare", "--tape", tape, *A100, "--policy", "vllm-v1")
    refused = call(*command)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "row 2 of the tape: got '120064 KV tokens at its end'" in refused.err
    assert "drop_longer_than=118784 leaves longer requests out" in refused.err
    kept = call(*command, "--drop-longer-than", 118_784, "--json")
    assert kept.code == 0
    assert "1 request of more than 118,784 tokens left out" in kept.err
    assert kept.document["policies"][0]["rate_per_s"] == pytest.approx(2 / 60)


def test_a_table_that_is_a_watermark_alone_needs_no_scheduler_class(
    call: Call, tmp_path: Path
) -> None:
    table = tmp_path / "table.json"
    load, server = PUBLIC / "gb200-long-outputs.yaml", PUBLIC / "gb200-qwen-7b.json"
    solved = call("solve", load, "-s", server, "-o", table, "--json")
    alone = solved.document
    alone["params"] = {"watermark_fraction": 0.05}
    alone["schema_version"] = "1.4"
    del alone["table_sha256"]
    table.write_text(json.dumps(alone))
    for more in ((), ("--flags-only",)):
        done = call("export", table, "--to", "vllm", "--json", *more)
        assert flags(done)["watermark"] == 0.05
        assert "scheduler-cls" not in flags(done)
        assert flags(done)["max-num-seqs"] == 170
        assert done.document["not_expressible"] == []


def test_an_engine_without_the_class_gets_the_seats_that_the_memory_holds(
    call: Call, tmp_path: Path
) -> None:
    table = tmp_path / "table.json"
    assert call("solve", JOB, "-s", A10G, "-o", table).code == 0
    followed = flags(call("export", table, "--to", "vllm", "--json"))
    plain = flags(call("export", table, "--to", "vllm", "--flags-only", "--json"))
    assert (followed["max-num-seqs"], plain["max-num-seqs"]) == (144, 64)
    assert "scheduler-cls" in followed
    assert {"scheduler-cls", "additional-config"}.isdisjoint(plain)
    held, overfull = seats_measured(call, 64), seats_measured(call, 144)
    assert held["evictions_per_request"] == 0
    assert overfull["evictions_per_request"] > 0.1
    assert held["completed_per_s"] > 1.05 * overfull["completed_per_s"]


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "env"])
def test_other_engines_have_flags_only_anyway(engine: str, call: Call) -> None:
    table = PUBLIC.parent / "threshold-table-1.0.json"
    done = call("export", table, "--to", engine, "--flags-only")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--flags-only: got True; allowed: an engine with a scheduler class" in done.err
