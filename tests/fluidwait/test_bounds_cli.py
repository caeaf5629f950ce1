"""What commands say where few requests fit at once, and of engines that chunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call


def files(folder: Path, rate: float, prompt: int, output: int, **server: Any) -> tuple[str, ...]:
    load = {"name": "a", "rate_per_s": rate, "prefill_tokens": prompt, "decode_tokens": output}
    (folder / "load.json").write_text(json.dumps({"name": "load", "classes": [load]}))
    (folder / "server.json").write_text(json.dumps({"name": "small", "source": "test"} | server))
    return (str(folder / "load.json"), "--server", str(folder / "server.json"))


@pytest.fixture
def one_at_a_time(tmp_path: Path) -> tuple[str, ...]:
    """60/s where the fluid bound is 66.65/s and 49.99/s are possible (THEORY 2.3)."""
    tau = {
        "tokens_knots": [0, 1],
        "seconds_knots": [0.01, 0.01],
        "per_kv_token_s": 1e-6,
        "per_prefill_token_s": 1e-6,
    }
    server = {"kv_capacity_tokens": 2, "first_token": "decode", "iteration_time": tau}
    return files(tmp_path, 60.0, 1, 1, **server)


@pytest.fixture
def squares(tmp_path: Path) -> tuple[str, ...]:
    """8/s of long prompts whose squares cost most (THEORY 5.6)."""
    tau = {
        "tokens_knots": [0, 1],
        "seconds_knots": [0.01, 0.01],
        "per_prefill_token_sq_s": 1e-8,
    }
    return files(tmp_path, 8.0, 4_000, 10, kv_capacity_tokens=36_000, iteration_time=tau)


def test_capacity_prints_a_bracket(call: Call, one_at_a_time: tuple[str, ...]) -> None:
    done = call("capacity", *one_at_a_time, "--query", "rate", "--json")
    assert done.code == 0
    assert done.document["value"] == pytest.approx(66.65, abs=0.01)
    assert done.document["certain_value"] == pytest.approx(49.99, abs=0.01)
    told = call("capacity", *one_at_a_time, "--query", "kv_tokens")
    assert "2 necessary, 3 enough (tokens)" in " ".join(told.out.split())


def test_region_is_not_certain_between_the_bounds(
    call: Call, one_at_a_time: tuple[str, ...]
) -> None:
    told = call("region", *one_at_a_time)
    assert told.code == 3
    assert "certain alone /s" in told.out
    assert "NOT CERTAIN: 0.8332 times these rates are certain" in " ".join(told.out.split())
    done = call("region", *one_at_a_time, "--rate", "45", "--json")
    assert done.code == 0
    assert done.document["certain_alone_per_s"] == pytest.approx([49.99], abs=0.01)
    assert done.document["certain_scale"] == pytest.approx(49.99 / 45, abs=0.001)


def test_solve_issues_no_table_between_the_bounds(
    call: Call, one_at_a_time: tuple[str, ...]
) -> None:
    done = call("solve", *one_at_a_time, "--json")
    assert done.code == 3
    assert done.document["error"]["binding"] == "packing of memory"
    assert "is not certain" in done.document["error"]["message"]
    below = call("solve", *one_at_a_time, "--rate", "45", "--json")
    assert below.code == 0
    assert below.document["params"]["cap_requests"] == 1


def test_equilibrium_notes_that_stability_is_only_necessary(
    call: Call, one_at_a_time: tuple[str, ...]
) -> None:
    assert "whole requests may not fill it" in " ".join(
        call("equilibrium", *one_at_a_time).err.split()
    )


def test_a_fleet_counts_what_is_certain(call: Call, one_at_a_time: tuple[str, ...]) -> None:
    """120/s are 1.8 servers by averages and 2.4 by whole requests."""
    done = call("fleet", *one_at_a_time, "--rate", "120", "--json")
    assert (done.document["cost"], done.document["cost_at_least"]) == (3, 2)
    assert done.document["is_optimal"] is False


def test_limits_of_an_engine_that_chunks(call: Call, squares: tuple[str, ...]) -> None:
    whole = call("region", *squares)
    assert whole.code == 3
    assert "limits of whole prompts" in whole.out
    assert call("region", *squares, "--budget-tokens", "1000").code == 0
    done = call("capacity", *squares, "--query", "rate", "--budget-tokens", "1000", "--json")
    assert done.document["value"] == pytest.approx(5.844, abs=0.001)
    assert done.document["chunked"]["rate_per_s"] == pytest.approx(13.04, abs=0.01)
    assert done.document["chunked"]["binding"] == "tokens"
    refused = call("capacity", *squares, "--query", "servers", "--budget-tokens", "1000", "--json")
    assert refused.code == 2
    assert refused.document["error"]["field"] == "--budget-tokens"
