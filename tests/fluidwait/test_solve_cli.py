"""`solve` beyond one table, and `fleet`: objectives, overload, profiles, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluidwait.commands.solve import SOLVER_OPTIONS
from tests.support.command_line import Call
from thresholds.schedule import Schedule
from thresholds.solvers.registry import SOLVERS

SERVER = "paper-long-decode"
CLASSES: list[dict[str, Any]] = [
    {"name": "chat", "rate_per_s": 14.0, "prefill_tokens": 512, "decode_tokens": 20},
    {"name": "code", "rate_per_s": 6.0, "prefill_tokens": 512, "decode_tokens": 50},
]


def written(folder: Path, *, factor: float = 1.0, **changes: Any) -> Path:
    classes = [one | {"rate_per_s": factor * one["rate_per_s"]} for one in CLASSES]
    path = folder / "w.json"
    path.write_text(json.dumps({"name": "two", "classes": classes} | changes))
    return path


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("latency", "latency_s"),
        ("ttft", "ttft_s"),
        ("memory", "memory_tokens"),
        ("slack", "least_slack"),
        ("rate", "rate_per_s"),
    ],
)
def test_objectives(call: Call, tmp_path: Path, objective: str, name: str) -> None:
    wait = ("--policy", "wait", "--objective", objective)
    done = call("solve", written(tmp_path), "--server", SERVER, *wait, "--json")
    assert done.code == 0
    assert done.document["solver"]["objective_name"] == name
    assert done.document["solver"]["optimality_gap"] < 1e-6
    told = call("solve", written(tmp_path), "--server", SERVER, *wait)
    assert told.code == 0
    assert ("Price: " in told.out) == (objective in ("latency", "ttft"))


@pytest.mark.parametrize(
    ("policy", "objective", "allowed"),
    [
        ("paced", "memory", "no such option of policy paced, which has budget_s, scheduler"),
        ("wait", "profit", "slack or rate or sharp-latency"),
    ],
)
def test_unknown_objectives_exit_2(
    call: Call, tmp_path: Path, policy: str, objective: str, allowed: str
) -> None:
    asked = ("--policy", policy, "--objective", objective)
    done = call("solve", written(tmp_path), "--server", SERVER, *asked, "--json")
    assert done.code == 2
    assert done.document["error"]["field"] == "--objective"
    assert allowed in done.document["error"]["allowed"]


OPTIONS = {
    "objective": "memory",
    "scheduler": "vllm-v1",
    "budget_s": 0.001,
    "overflow_probability": 0.05,
    "horizon_s": 600,
    "segments": 1,
    "prompts": "weighted",
    "certificate": "law",
    "time_limit_s": 2.5,
}


def test_the_command_has_every_option_of_every_solver() -> None:
    assert set(OPTIONS) == set(SOLVER_OPTIONS)
    assert set(OPTIONS) == {one for kind in SOLVERS.values() for one in kind.options()}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("policy", SOLVERS)
def test_an_option_that_the_solver_does_not_have_exits_2(
    call: Call, tmp_path: Path, policy: str, option: str
) -> None:
    typed = "--" + option.replace("_", "-")
    line = ("--server", "engine-long-decode", "--policy", policy, typed, OPTIONS[option])
    done = call("solve", written(tmp_path, factor=0.1), *line)
    if option in SOLVERS[policy].options():
        assert done.code == 0, done.err
        return
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"fluidwait: {typed}: got ")
    assert all(one in done.err for one in SOLVERS[policy].options())


@pytest.mark.parametrize("policy", [one for one in SOLVERS if one != "nested-wait"])
def test_only_nested_wait_has_a_picture(call: Call, tmp_path: Path, policy: str) -> None:
    line = ("--server", SERVER, "--policy", policy, "--plot", tmp_path / "b.svg")
    done = call("solve", written(tmp_path), *line)
    assert done.code == 2
    assert "only with --policy nested-wait" in done.err


def test_limits_on_means_that_cannot_be_kept_exit_3(call: Call, tmp_path: Path) -> None:
    slo = {"ttft_s": 0.01, "quantile": "mean"}
    path = written(tmp_path, classes=[CLASSES[0] | {"slo": slo}])
    done = call("solve", path, "--server", SERVER, "--policy", "wait", "--json")
    assert done.code == 3
    assert done.document["error"]["binding"] == "mean ttft_s of chat"
    assert "multiply all limits on means by at least" in done.document["error"]["nearest"]


def test_a_wrong_statistic_exits_2(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, classes=[CLASSES[0] | {"slo": {"ttft_s": 1, "quantile": "median"}}])
    done = call("solve", path, "--server", SERVER, "--json")
    assert done.code == 2
    assert done.document["error"]["field"] == "classes[0].slo.quantile"
    assert done.document["error"]["allowed"] == '"mean", or a share between 0 and 1'


def test_overload_is_an_error_unless_a_part_is_admitted(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, factor=10.0)
    refused = call("solve", path, "--server", SERVER, "--json")
    assert refused.code == 3
    assert "admit a part of the load (overload)" in refused.document["error"]["nearest"]
    done = call("solve", path, "--server", SERVER, "--overload", "--json")
    assert done.code == 0
    assert "admit" in done.document["notes"][0]
    rates = [one["rate_per_s"] for one in done.document["workload"]["classes"]]
    assert sum(rates) < 200
    light = written(tmp_path)
    plain = call("solve", light, "--server", SERVER, "--json").document
    assert call("solve", light, "--server", SERVER, "--overload", "--json").document == plain


PROFILE = [{"start_s": 0, "multiplier": 0.5}, {"start_s": 60, "multiplier": 1.5}]


def test_a_rate_profile_gives_a_schedule(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, rate_profile=PROFILE, period_s=120)
    out = tmp_path / "schedule.json"
    done = call("solve", path, "--server", SERVER, "-o", out, "--json")
    assert done.code == 0
    assert done.document == Schedule.read(out).document()
    assert [one["start_s"] for one in done.document["windows"]] == [0, 60]
    told = call("solve", path, "--server", SERVER, "--policy", "wait")
    assert told.code == 0
    assert "memory over all hand-overs" in told.out
    assert "arrivals before each stage" in told.err


def test_an_unstable_window_exits_3(call: Call, tmp_path: Path) -> None:
    peak = [PROFILE[0], {"start_s": 60, "multiplier": 30}]
    path = written(tmp_path, rate_profile=peak, period_s=120)
    done = call("solve", path, "--server", SERVER, "--json")
    assert done.code == 3
    assert "window from 60 s on (multiplier 30)" in done.document["error"]["message"]


def test_fleet(call: Call, tmp_path: Path) -> None:
    path = written(tmp_path, factor=10.0)
    types = ("--server", SERVER, "--server", "paper-lmsys", "--cost", "paper-lmsys=0.4")
    done = call("fleet", path, *types, "--json")
    assert done.code == 0
    assert done.document["is_optimal"] is True
    cost = sum(
        one["count"] * (0.4 if one["server"] == "paper-lmsys" else 1.0)
        for one in done.document["servers"]
    )
    assert done.document["cost"] == pytest.approx(cost)
    for name in ("chat", "code"):
        assert sum(one["shares"][name] for one in done.document["servers"]) == pytest.approx(1)
    assert all(one["load"] <= 1 for one in done.document["servers"])
    told = call("fleet", path, *types)
    assert told.code == 0
    assert "no fleet is cheaper" in told.out


def test_fleet_too_small_exits_3(call: Call, tmp_path: Path) -> None:
    few = ("--server", SERVER, "--max-count", f"{SERVER}=1", "--json")
    done = call("fleet", written(tmp_path, factor=10.0), *few)
    assert done.code == 3
    assert done.document["error"]["binding"] == "servers"
    assert "multiply all rates by at most" in done.document["error"]["nearest"]


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--cost", "1.5", "NAME=NUMBER"),
        ("--cost", f"{SERVER}=x", "NAME=NUMBER"),
        ("--cost", "other=1", "a name among"),
        ("--max-count", f"{SERVER}=1.5", "a whole number"),
    ],
)
def test_fleet_options_are_checked(
    call: Call, tmp_path: Path, option: str, value: str, allowed: str
) -> None:
    done = call("fleet", written(tmp_path), "--server", SERVER, option, value, "--json")
    assert done.code == 2
    assert done.document["error"]["field"] == option
    assert allowed in done.document["error"]["allowed"]
