"""At 80 columns verdict and latency stand there whole, in `replay`, `compare` and so in `demo`."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Call

SERVER = ("--server", "paper-long-decode")
RUNS = ("--replications", 3, "--requests", 400)
LONG_POLICY = "nested-wait:thresholds=100/100/100,cuts=100/200/300,max_wait_s=12.5,drain=2.5"


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.json"
    long = {"name": "long", "rate_per_s": 2.4, "prefill_tokens": 512, "decode_tokens": 300}
    path.write_text(json.dumps({"name": "long", "classes": [long]}))
    return path


@pytest.fixture
def table(call: Call, load: Path, tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    assert call("solve", load, *SERVER, "-o", path).code == 0
    return path


def narrow(out: str) -> str:
    """The same, once no line of a table is too long."""
    for line in out.splitlines():
        if not line.endswith((".", ")")):  # sentences wrap by themselves
            assert len(line.rstrip()) <= 80, line
    assert "…" not in out
    return out


def test_a_replay(call: Call, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = call("replay", table, *RUNS, "--json").document["policies"]
    monkeypatch.setenv("COLUMNS", "80")
    out = narrow(call("replay", table, *RUNS).out)
    heading = next(line for line in out.splitlines() if "verdict" in line)
    assert heading.split()[:2] == ["policy", "verdict"]
    assert "latency s" in heading
    for label, one in zip(
        ("this table (paced)", "greedy:watermark=0.01", "greedy:watermark=0.05"), wide, strict=True
    ):
        (line,) = (line for line in out.splitlines() if label in line)
        assert one["verdict"] in line.split()
        assert f"{one['latency_s']['mean']:.4g}" in line.split()


def test_a_comparison(call: Call, load: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("compare", load, *SERVER, "--policy", "greedy:watermark=0.01", *RUNS)
    out = narrow(call(*arguments, "--rates", "1,2", "--burst", 5).out)
    heading = next(line for line in out.splitlines() if "verdict" in line)
    for column in ("policy", "rate /s", "verdict", "latency s"):
        assert column in heading


def test_policies_with_long_names_become_records(
    call: Call, load: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = narrow(call("compare", load, *SERVER, "--policy", LONG_POLICY, *RUNS).out)
    label = "nested-wait:max_wait_s=12.5,drain=2.5,thresholds=100/100/100,cuts=100/200/300"
    assert label in out.splitlines()
    assert "  verdict: " in out
    assert "  latency s: " in out


def test_a_terminal_of_80_columns(table: Path) -> None:
    """Through a pseudo-terminal, where a verdict is a word and has its colour too."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-m", "fluidwait", "replay", str(table), "--policy", "greedy:cap=1"]
    with subprocess.Popen(
        [*command, "--replications", "8", "--requests", "2000"],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert running.returncode == 0
    text = shown.decode("utf-8")
    assert re.search(r"greedy:cap=1 .*\x1b\[31m *unstable\x1b\[0m", text)
    assert re.search(r"this table \(paced\) .*\x1b\[32m *stable\x1b\[0m", text)
