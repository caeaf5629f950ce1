"""``solve --rate-uncertainty``: what the table says it holds for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call

CLASSES = [
    {"name": "chat", "rate_per_s": 4.0, "prefill_tokens": 64, "decode_tokens": 20},
    {"name": "code", "rate_per_s": 1.0, "prefill_tokens": 64, "decode_tokens": 60},
]
SERVER = ("--server", "paper-lmsys")


def written(folder: Path, **fields: object) -> Path:
    path = folder / "w.json"
    path.write_text(json.dumps({"name": "two", "classes": CLASSES} | fields))
    return path


def test_the_table_says_what_it_holds_for(call: Call, tmp_path: Path) -> None:
    load = written(tmp_path, observed_s=600.0)
    done = call("solve", load, *SERVER, "--rate-uncertainty", "0.2")
    assert done.code == 0
    assert "holds for all rates within 20 % of the given ones" in done.err
    done = call("solve", load, *SERVER, "--rate-uncertainty", "mix")
    assert done.code == 0
    assert "holds for all mixes, at the given total rate; solved where that is hardest" in done.err
    asked = ("--rate-uncertainty", "from-trace", "--miss-probability", "0.01", "--policy", "wait")
    done = call("solve", load, *SERVER, *asked)
    assert done.code == 0
    assert "holds with probability 99 % at least, by what 3,000 requests in 600 s" in done.err
    assert "probability that a drift condition fails" in done.out


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("--rate-uncertainty", "1"), "--rate-uncertainty"),
        (("--rate-uncertainty=-0.1",), "--rate-uncertainty"),
        (("--rate-uncertainty", "much"), "--rate-uncertainty"),
        (("--rate-uncertainty", "mix:2"), "--rate-uncertainty"),
        (("--rate-uncertainty", "mix", "--uncertain-classes", "1"), "--uncertain-classes"),
        (("--rate-uncertainty", "0.1", "--uncertain-classes", "0"), "--uncertain-classes"),
        (("--rate-uncertainty", "0.1", "--miss-probability", "0.1"), "--miss-probability"),
        (("--rate-uncertainty", "from-trace", "--uncertain-classes", "1"), "--uncertain-classes"),
        (("--uncertain-classes", "1"), "--uncertain-classes"),
        (("--rate-uncertainty", "from-trace", "--miss-probability", "2"), "--miss-probability"),
        (("--rate-uncertainty", "from-trace"), "observed_s"),
    ],
)
def test_bad_input_exits_2(call: Call, tmp_path: Path, asked: tuple[str, ...], field: str) -> None:
    done = call("solve", written(tmp_path), *SERVER, *asked, "--json")
    assert done.code == 2
    assert done.document["error"]["field"] == field


def test_infeasible_exits_3_with_what_is_feasible(call: Call, tmp_path: Path) -> None:
    asked = ("--rate", "600", "--rate-uncertainty", "0.9")
    done = call("solve", written(tmp_path), *SERVER, *asked, "--json")
    assert done.code == 3
    assert "a rate uncertainty of at most" in done.document["error"]["nearest"]


def test_a_trace_tells_how_long_it_was(call: Call, tmp_path: Path) -> None:
    tape = tmp_path / "tape.csv"
    lines = [f"{k * 0.5},{64 if k % 3 else 128},20" for k in range(41)]
    tape.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *lines]))
    made = tmp_path / "w.yaml"
    assert call("workload", "from-trace", tape, "-o", made).code == 0
    assert "observed_s: 20.5" in made.read_text()
    asked = ("--rate-uncertainty", "from-trace")
    done = call("solve", made, *SERVER, *asked, "--json")
    assert done.code == 0
    assert done.document["workload"].get("observed_s") is None
    assert done.document["workload"]["classes"][0]["rate_per_s"] > 4 / 3
    # At another rate than its own nobody has counted anything.
    assert call("workload", "from-trace", tape, "--rate", "3", "-o", made).code == 0
    assert call("solve", made, *SERVER, *asked).code == 2
