"""Service levels on the command line: `capacity --query slo-…`, `fleet`, `compare`, `replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call

SMALL = ("--replications", "4", "--requests", "600")
ASK = ("--scheduler", "greedy:cap=1", "--query")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A load whose TTFT is limited, 40 /s, on a server of 10 ms an iteration."""
    return write(tmp_path, {"ttft_s": 0.05, "quantile": "p80"})


def write(folder: Path, slo: dict[str, Any] | None) -> tuple[str, str]:
    one = {"name": "a", "rate_per_s": 180.0, "prefill_tokens": 20, "decode_tokens": 1}
    load = {"name": "load", "classes": [one]} | ({} if slo is None else {"slo": slo})
    tau = {"tokens_knots": [0, 1], "seconds_knots": [0.01, 0.01]}
    server = {"name": "fixed", "source": "test", "kv_capacity_tokens": 10_000}
    (folder / "load.json").write_text(json.dumps(load))
    (folder / "server.json").write_text(json.dumps(server | {"iteration_time": tau}))
    return str(folder / "load.json"), str(folder / "server.json")


def test_rate_and_servers_agree(call: Call, files: tuple[str, str]) -> None:
    load, server = files
    rate = call("capacity", load, "-s", server, *ASK, "slo-rate", "--seed", "1", *SMALL, "--json")
    assert rate.code == 0
    assert rate.document["low_per_s"] < rate.document["value"] < rate.document["high_per_s"] < 100
    assert rate.document["binding"] == {"class": "a", "limit": "ttft_s"}
    servers = call("capacity", load, "-s", server, *ASK, "slo-servers", *SMALL)
    assert servers.code == 0
    count = int(-(-180 // rate.document["value"]))
    assert f"{count} servers keep the service levels at 180 requests/s" in servers.out
    ask = ("slo-servers", "--router", "least-outstanding-tokens", "--json", *SMALL)
    looking = call("capacity", load, "-s", server, *ASK, *ask)
    assert looking.code == 0
    assert looking.document["router"] == "least-outstanding-tokens"
    assert looking.document["stable_servers"] <= looking.document["value"] < count


def test_a_bound_of_the_queue_is_drawn(call: Call, files: tuple[str, str], tmp_path: Path) -> None:
    load, server = files
    picture = tmp_path / "queue.svg"
    ask = (*ASK, "slo-queue", *SMALL, "--plot", picture)
    done = call("capacity", load, "-s", server, *ask)
    assert (done.code, picture.exists()) == (0, True)
    assert "goodput /s" in done.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--query", "slo-rate", "--router", "random"), "--router: got 'random'; allowed: only"),
        (("--query", "slo-servers", "--arrivals", "gamma:cv=2"), "--arrivals: got 'gamma:cv=2'"),
        (("--query", "slo-queue", "--budget-s", "3"), "--budget-s: got 3.0; allowed: nothing"),
        (("--query", "slo-rate", "--plot", "a.svg"), "only with query slo-queue"),
        (("--query", "slo-rate", "--class", "a"), "--class: got 'a'; allowed: nothing beside"),
        (("--query", "slo-rate", "--device", "cuda"), "--device: got 'cuda'; allowed: nothing"),
        (("--query", "rate", "--scheduler", "greedy"), "--scheduler: got 'greedy'; allowed: only"),
        (("--query", "rate", "--requests", "9"), "--requests: got 9; allowed: only with query"),
        (
            ("--query", "slo-servers", "--router", "best"),
            "one of random, round-robin, least-outstanding-tokens",
        ),
        (("--query", "slo-rate", "--budget-s", "0"), "--budget-s: got 0.0; allowed: seconds > 0"),
    ],
    ids=str,
)
def test_options_that_do_nothing_are_refused(
    call: Call, files: tuple[str, str], options: tuple[str, ...], told: str
) -> None:
    done = call("capacity", files[0], "-s", files[1], *options)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.splitlines()) == 1


def test_what_cannot_be_kept_exits_3(call: Call, tmp_path: Path) -> None:
    load, server = write(tmp_path, {"ttft_s": 0.009})
    for query in ("slo-rate", "slo-servers", "slo-queue"):
        done = call("capacity", load, "-s", server, "--query", query)
        assert done.code == 3
        assert "the least possible is 0.01 s, alone on the server" in done.err


def test_bad_levels_exit_2(call: Call, tmp_path: Path) -> None:
    for quantile in (0, 1, 1.5, "p100", "median"):
        load, server = write(tmp_path, {"ttft_s": 1.0, "quantile": quantile})
        done = call("capacity", load, "-s", server, "--query", "slo-rate")
        assert done.code == 2
        assert 'allowed: "mean", or a share between 0 and 1' in done.err
    load, server = write(tmp_path, None)
    done = call("capacity", load, "-s", server, "--query", "slo-rate")
    assert done.code == 2
    assert "limits of a class or of the workload" in done.err
    refused = call("fleet", load, "-s", server, "--scheduler", "greedy")
    assert refused.code == 2
    assert "only for a workload with service levels" in refused.err


def test_a_fleet_is_sized_by_levels(call: Call, tmp_path: Path) -> None:
    """Stability asks for far fewer: one server carries 500 requests in an iteration."""
    load, server = write(tmp_path, {"ttft_s": 0.05, "quantile": 0.8})
    asked = ("--scheduler", "greedy:cap=1", "--budget-s", "5")
    done = call("fleet", load, "-s", server, *asked, "--json")
    assert done.code == 0
    assert done.document["servers"][0]["count"] in (2, 3)
    assert "service levels under greedy:cap=1" in done.document["sized_by"]


def test_compare_and_replay_show_levels(call: Call, tmp_path: Path) -> None:
    load, server = tmp_path / "load.json", "paper-long-decode"
    one: dict[str, Any] = {"name": "a", "prefill_tokens": 512, "decode_tokens": 100}
    one |= {"rate_per_s": 2.0, "slo": {"ttft_s": 0.5, "latency_s": 9.0}}
    load.write_text(json.dumps({"name": "load", "classes": [one]}))
    done = call("compare", load, "-s", server, "--policy", "greedy", *SMALL)
    assert done.code == 0
    assert "p99 TTFT ≤ 0.5 s" in done.out
    assert call("solve", load, "-s", server, "-o", tmp_path / "t.json").code == 0
    replayed = call("replay", tmp_path / "t.json", *SMALL, "--json")
    assert replayed.code == 0
    (first, *_) = replayed.document["policies"]
    assert [(one["name"], one["limit"]) for one in first["levels"]] == [
        ("a", "ttft_s"),
        ("a", "latency_s"),
        ("a", "all"),
    ]
