"""``fluidwait solve`` and ``replay`` with the nested policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call

LOAD = """\
name: two
classes:
  - {name: short, rate_per_s: 7.0, prefill_tokens: 512, decode_tokens: 20}
  - {name: long, rate_per_s: 3.0, prefill_tokens: 512, decode_tokens: 50}
"""
SOLVE = ("--server", "paper-long-decode", "--policy", "nested-wait")


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.yaml"
    path.write_text(LOAD, encoding="utf-8")
    return path


def test_thresholds_and_buffers_are_shown_apart(call: Call, load: Path, tmp_path: Path) -> None:
    plot = tmp_path / "buffers.svg"
    table = tmp_path / "table.json"
    found = call("solve", load, *SOLVE, "--segments", 2, "--plot", plot, "-o", table)
    assert found.code == 0
    for shown in (
        "segment 1, up to output token 20",
        "full batches",
        "grow beyond them by chance",
        "An overflow within 3,600 s has probability 0.01 at most.",
    ):
        assert shown in found.out
    assert plot.stat().st_size > 0
    replayed = call("replay", table, "--replications", 2, "--requests", 1000, "--json")
    assert replayed.code == 0
    assert replayed.document["policies"][0]["policy"] == "nested-wait"


def test_probability_and_horizon_reach_the_table(call: Call, load: Path) -> None:
    options = ("--segments", 2, "--overflow-probability", 0.001, "--horizon-s", 600, "--json")
    document = call("solve", load, *SOLVE, *options).document
    assert document["memory"]["overflow_probability"] == 0.001
    assert document["memory"]["horizon_s"] == 600
    full_boundary = document["thresholds"][1]["threshold"] * (512 + 20)
    buffers = full_boundary + document["memory"]["stochastic_buffer_tokens"]
    assert document["memory"]["buffer_tokens"] == pytest.approx(buffers)
    assert [one["up_to_tokens"] for one in document["thresholds"]] == [20, 50]


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("latency", "latency_s"),
        ("ttft", "ttft_s"),
        ("memory", "memory_tokens"),
        ("slack", "load"),
        ("rate", "rate_per_s"),
    ],
)
def test_objectives_are_named_and_proven(call: Call, load: Path, objective: str, name: str) -> None:
    options = ("--objective", objective, "--time-limit-s", 100, "--json")
    solver = call("solve", load, *SOLVE, *options).document["solver"]
    assert (solver["objective_name"], solver["optimality_gap"]) == (name, 0.0)
    assert solver["status"] == "optimal"


def test_infeasible_segments_exit_3_with_cause_and_change(call: Call, load: Path) -> None:
    found = call("solve", load, *SOLVE, "--segments", 1, "--rate", 34)
    assert found.code == 3
    assert "binding: drift" in found.err
    assert "use 2 segments" in found.err
    error = call("solve", load, *SOLVE, "--segments", 1, "--rate", 34, "--json").document["error"]
    assert error["kind"] == "infeasible"
    assert error["binding"] == "drift"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--segments", 3), "segments: got 3; allowed: 1 to 2 for 2 distinct output lengths"),
        (("--overflow-probability", 1.5), "--overflow-probability: got 1.5"),
        (("--horizon-s", -1), "--horizon-s: got -1"),
        (("--time-limit-s", 0), "--time-limit-s: got 0"),
        (("--objective", "profit"), "slack or rate, for policy nested-wait"),
        (("--prompts", "mean"), "prompts: got 'mean'; allowed: worst or weighted"),
        (("--plot", "buffers.txt"), "--plot"),
    ],
)
def test_bad_options_exit_2(
    call: Call, load: Path, options: tuple[object, ...], message: str
) -> None:
    found = call("solve", load, *SOLVE, *options)
    assert found.code == 2
    assert message in found.err


def test_only_nested_wait_has_buffers_to_draw(call: Call, load: Path) -> None:
    found = call("solve", load, "--server", "paper-long-decode", "--plot", "b.svg")
    assert found.code == 2
    assert "only with --policy nested-wait" in found.err
