"""``fluidwait region`` and ``fluidwait capacity`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call

TWO = {
    "name": "pair",
    "classes": [
        {"name": "a", "rate_per_s": 1.0, "prefill_tokens": 512, "decode_tokens": 1000},
        {"name": "b", "rate_per_s": 1.0, "prefill_tokens": 512, "decode_tokens": 400},
    ],
}
AFFINE, GENERAL = "paper-long-decode", "a100-80gb-llama-2-7b"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(TWO))
    return path


def test_region_of_an_affine_server(call: Call, pair: Path) -> None:
    done = call("region", pair, "--server", AFFINE, "--json")
    assert done.code == 0
    found = done.document
    assert found["classes"] == ["a", "b"]
    corners = [found["vertices_per_s"][k][k] for k in range(2)]
    assert [1 / a for a in found["normal_s"]] == pytest.approx(corners)
    load = sum(found["normal_s"])
    assert found["margin"] == pytest.approx(1 - load)
    assert len(found["boundary_per_s"]) == 33
    told = call("region", pair, "--server", AFFINE)
    assert told.code == 0
    assert "Exact half-space" in told.out
    assert "INSIDE: the workload takes" in told.out


def test_region_of_a_general_server_with_its_plot(call: Call, pair: Path, tmp_path: Path) -> None:
    plot = tmp_path / "r.svg"
    done = call("region", pair, "--server", GENERAL, "--plot", plot, "--rate", 100, "--json")
    assert done.code == 3
    found = done.document
    assert found["normal_s"] is None
    assert found["boundary_per_s"][0] == pytest.approx(found["vertices_per_s"][0])
    assert found["margin"] < 0
    assert plot.read_text().startswith("<?xml")
    told = call("region", pair, "--server", GENERAL, "--rate", 100)
    assert told.code == 3
    assert "traced, not a half-space" in told.out
    assert "OUTSIDE: the workload is" in told.out


def test_a_simulated_boundary(call: Call, pair: Path, tmp_path: Path) -> None:
    """Three mixes, little effort: undecided rates count against the policy, so that shares are low;
    how high they get with more is told by tests/benchmarks/region_boundary.py."""
    plot = tmp_path / "r.pdf"
    arguments = ("region", pair, "--server", AFFINE, "--policy", "paced", "--mixes", 3)
    effort = ("--replications", 5, "--requests", 4000)
    done = call(*arguments, *effort, "--plot", plot, "--json")
    assert done.code == 0
    points = done.document["simulated"]["paced"]
    assert len(points) == 3
    for one in points:
        assert 0.3 < one["share"] < 1.01
        assert one["stable_per_s"] == pytest.approx([one["share"] * x for x in one["fluid_per_s"]])
        assert one["policy"].startswith("greedy:")
    assert plot.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("query", "unit"),
    [
        ("rate", "requests/s"),
        ("kv_tokens", "tokens"),
        ("overhead_s", "s"),
        ("bandwidth", "s per KV token"),
        ("servers", "servers"),
        ("output", "output tokens of b"),
    ],
)
@pytest.mark.parametrize("server", [AFFINE, GENERAL])
def test_capacity(call: Call, pair: Path, server: str, query: str, unit: str) -> None:
    extra = ("--class", "b") if query == "output" else ()
    arguments = ("capacity", pair, "--server", server, "--query", query, *extra)
    found = call(*arguments, "--json").document
    assert {"query", "value", "unit", "binding", "derivatives"} <= set(found)
    assert (found["query"], found["unit"]) == (query, unit)
    assert found["value"] > 0
    assert {"rate_per_s[a]", "rate_per_s[b]", "kv_tokens", "overhead_s"} <= set(
        found["derivatives"]
    )
    exact = found["derivative_method"] == "analytic"
    assert exact == (server == AFFINE)
    told = call(*arguments)
    assert told.code == 0
    assert f"{found['binding']} binds there." in told.out
    assert "rate_per_s[a]" in told.out


def test_capacity_that_does_not_exist(call: Call, pair: Path) -> None:
    done = call("capacity", pair, "--server", AFFINE, "--query", "kv_tokens", "--rate", 1000)
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert "no memory is enough; binding: compute; multiply all rates by less than" in done.err
    document = call(
        "capacity", pair, "--server", AFFINE, "--query", "kv_tokens", "--rate", 1000, "--json"
    ).document
    assert document["error"]["binding"] == "compute"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("capacity", "--query", "speed"), "query: got 'speed'; allowed: one of rate, kv_tokens"),
        (("capacity", "--query", "output"), "class: got None; allowed: one of a, b"),
        (("capacity", "--query", "rate", "--class", "a"), "only with query output"),
        (("capacity",), "Missing option '--query'"),
        (("region", "--plot", "a.b"), "--plot: got 'a.b'"),
        (("region", "--policy", "fifo"), "policy: got 'fifo'"),
        (("region", "--policy", "paced", "--mixes", 1), "--mixes"),
        (("region", "--rate", -1), "--rate: got -1.0"),
    ],
)
def test_bad_calls(call: Call, pair: Path, arguments: tuple[object, ...], told: str) -> None:
    command, *options = arguments
    done = call(command, pair, "--server", AFFINE, *options)
    assert done.code == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert told in done.err


def test_only_two_classes_are_drawn(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(TWO | {"classes": TWO["classes"][:1]}))
    found = call("region", path, "--server", AFFINE, "--json").document
    assert found["boundary_per_s"] is None
    done = call("region", path, "--server", AFFINE, "--plot", tmp_path / "r.svg")
    assert done.code == 2
    assert "classes: got 1; allowed: two classes for a picture" in done.err
