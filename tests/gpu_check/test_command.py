"""The command around the parts: what it refuses, what it stops, and what it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu import __main__ as command
from tests.gpu import requirements
from tests.gpu.report import report
from tests.gpu.result import (
    CUT_SHORT,
    DONE,
    FAILED,
    RUNNING,
    Aim,
    Result,
    Table,
    read_result,
)
from tests.gpu.runner import PARTS, Part, limits, run_part
from tests.gpu.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

MODULES = {
    "swift": "yield Result('swift', status=DONE, figures={'answer': 42})",
    "hanging": "yield Result('hanging', figures={'answer': 42})\n    time.sleep(600)",
    "mute": "time.sleep(600)\n    yield Result('mute')",
    "raising": "yield Result('raising', figures={'answer': 42})\n    raise ValueError('no\\nluck')",
    "dying": "yield Result('dying', figures={'answer': 42})\n    os.kill(os.getpid(), 9)",
    "unfinished": "yield Result('unfinished', figures={'answer': 42})",
    "disagreeing": "yield Result('disagreeing', status=FAILED, why='3 differ')",
}
"""Parts by what they do."""

HEAD = """\
import os, time
from tests.gpu.result import DONE, FAILED, Result

def measure(settings):
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Part]]:
    """All of MODULES in place of the real parts, with equal shares of the time."""
    for name, body in MODULES.items():
        (tmp_path / f"part_{name}.py").write_text(f"{HEAD}    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    real = dict(PARTS)
    PARTS.clear()
    PARTS.update((name, Part(name, f"part_{name}", 1)) for name in MODULES)
    yield PARTS
    PARTS.clear()
    PARTS.update(real)


@pytest.mark.parametrize(
    ("name", "status", "why"),
    [
        ("swift", DONE, ""),
        ("hanging", FAILED, "killed at its limit of 6 s; what it had measured is kept"),
        ("mute", FAILED, "killed at its limit of 6 s; nothing measured"),
        ("raising", FAILED, "ValueError: no luck"),
        ("dying", FAILED, "ended by signal 9 (see dying.log); what it had measured is kept"),
        ("unfinished", FAILED, "ended by exit code 0 (see unfinished.log); what it had measured"),
        ("disagreeing", FAILED, "3 differ"),
    ],
)
def test_whatever_a_part_does_its_result_is_written(
    parts: dict[str, Part], tmp_path: Path, name: str, status: str, why: str
) -> None:
    # A result of an earlier run is not taken for one of this.
    Result(name, status=DONE, figures={"answer": 41}).write(tmp_path)
    found = run_part(parts[name], tmp_path, toy=True, limit_s=6 if "limit" in why else 60)
    assert found.seconds < 60
    assert (found.status, found.why[: len(why)]) == (status, why)
    assert read_result(tmp_path, name) == found
    measured = name not in ("mute", "disagreeing")
    assert found.figures == ({"answer": 42} if measured else {})
    assert (tmp_path / f"{name}.md").read_text().startswith(f"## {name}: {status}")


def test_a_part_that_fails_costs_the_others_nothing(
    parts: dict[str, Part], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--only", "swift", "--only", "raising", "--only", "dying"]
    assert command.main(["--toy", "--out", str(tmp_path / "out"), *chosen]) == 1
    written = {path.stem for path in (tmp_path / "out").glob("*.json")}
    assert written == {"swift", "raising", "dying"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.index("## swift: done") < page.index("## raising: failed, ValueError")
    assert page.index("## raising") < page.index("## dying: failed, ended by signal 9")
    printed = capsys.readouterr().out.splitlines()
    assert "numba-cuda" in printed[0]
    assert "## swift: done" in printed


def test_only_what_is_asked_for_runs(parts: dict[str, Part], tmp_path: Path) -> None:
    assert command.main(["--toy", "--out", str(tmp_path / "out"), "--only", "swift"]) == 0
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["swift.json"]


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is told on standard error by a call that is refused."""
    assert command.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.strip()


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    told = one_line(["--toy", "--only", "fly"], capsys)
    assert told == "--only: got fly; allowed: card, agree, speed, sweep, fit, loop"


def test_missing_packages_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = ("yaml", "pydantic")
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in absent else name)
    assert one_line(["--toy"], capsys) == "missing: pydantic, pyyaml"


def test_a_machine_without_a_gpu_is_told_so_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("numba_cuda")
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("no GPU: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_time_that_a_part_leaves_goes_to_those_after_it() -> None:
    parts = tuple(PARTS.values())
    whole = sum(part.share_s for part in parts)
    assert whole == command.DEFAULT_LIMIT_S
    assert limits(parts, whole) == parts[0].share_s
    # The first took nothing: all others have as much more, in proportion.
    assert limits(parts[1:], whole) == pytest.approx(
        parts[1].share_s * whole / (whole - parts[0].share_s)
    )
    assert limits(parts[-1:], 7.0) == 7.0


def test_no_measurement_begins_when_the_time_is_up() -> None:
    late = Settings(Path(), toy=False, stop_at_s=time.time() - 1)
    assert list(late.while_time([1, 2])) == []
    assert list(Settings(Path(), toy=False, stop_at_s=time.time() + 60).while_time([1, 2])) == [
        1,
        2,
    ]


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    rows = ({"a": 1, "b": None}, {"a": 2.5, "c": "text"})
    aim = Aim("speed", "≥ 5", 4.0, met=False)
    found = Result("part", RUNNING, "", {"n": 3}, (Table("Rows", rows),), (aim,), ("a note",), 1.5)
    found.write(tmp_path)
    assert read_result(tmp_path, "part") == found
    assert read_result(tmp_path, "other") is None
    page = found.markdown()
    assert "| a | b | c |" in page
    assert "| 1 | – | – |" in page
    assert "| part | speed | ≥ 5 | 4 | **no** |" in page
    assert "**no**" in report([found], {"torch": "2"})


def test_a_figure_that_does_not_exist_is_null(tmp_path: Path) -> None:
    found = Result("part", figures={"ratio": float("nan"), "limit": float("inf")})
    assert found.document()["figures"] == {"ratio": None, "limit": None}
    found.write(tmp_path)


def test_what_was_not_reached_is_told() -> None:
    assert Result("part").ended(3, 3, "rows").status == DONE
    short = Result("part").ended(2, 3, "rows")
    assert (short.status, short.why) == (CUT_SHORT, "2 of 3 rows in the time given")


@pytest.mark.parametrize(
    ("ptx", "driver", "warned"),
    [("9.5", "13.0", True), ("9.0", "13.0", False), ("8.7", "13.0", False), ("9.0", "12.8", True)],
)
def test_a_ptx_that_the_driver_cannot_read_is_warned_of(
    ptx: str, driver: str, warned: bool
) -> None:
    found = {"PTX written": ptx, "CUDA of the driver": driver}
    assert (requirements.ptx_hint(found) is not None) == warned
    assert requirements.ptx_hint({**found, "PTX written": "unknown (OSError)"}) is None
