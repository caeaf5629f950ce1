"""The parts, their shares of the time, and how one is run so that it cannot harm the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.gpu.compiled import SIMULATOR
from tests.gpu.result import FAILED, RUNNING, Result, read_result

ROOT = Path(__file__).resolve().parents[2]

SOFT_SHARE = 0.85
"""Of a part's time, after which it begins no further measurement; at its end it is killed."""


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
        module: Where its `measure(settings)` stands, an iterator of ever more complete results.
        share_s: Seconds of the default limit; what a part leaves over goes to those after it.
        simulated: Whether its toy size needs numba's CUDA simulator.
    """

    name: str
    module: str
    share_s: float
    simulated: bool = False


PARTS = {
    part.name: part
    for part in (
        Part("card", "tests.gpu.card", 20),
        Part("agree", "tests.gpu.agree", 100, simulated=True),
        Part("speed", "tests.gpu.speed", 100, simulated=True),
        Part("sweep", "tests.gpu.sweep", 95),
        Part("fit", "tests.gpu.fit", 25),
        Part("loop", "tests.gpu.loop", 80),
    )
}


def run_part(part: Part, out: Path, toy: bool, limit_s: float) -> Result:
    """Run it in a process of its own, for so many seconds at most; its output is in PART.log."""
    begin = time.time()
    for suffix in ("json", "md"):
        (out / f"{part.name}.{suffix}").unlink(missing_ok=True)
    stop_at_s = begin + SOFT_SHARE * limit_s
    command = [sys.executable, "-m", "tests.gpu.child", part.module, part.name, str(out)]
    command += [repr(stop_at_s), *(["toy"] if toy else [])]
    with (out / f"{part.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            env=_environment(part, toy),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(process)
    result = read_result(out, part.name) or Result(part.name)
    if code is None or result.status == RUNNING:
        result = replace(result, status=FAILED, why=_why(code, limit_s, result))
        result = replace(result, seconds=time.time() - begin)
        result.write(out)
    return result


def limits(parts: Sequence[Part], left_s: float) -> float:
    """Seconds for the first of the parts that are still to run."""
    return left_s * parts[0].share_s / sum(part.share_s for part in parts)


def _environment(part: Part, toy: bool) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = os.environ | {"PYTHONPATH": path}
    if toy and part.simulated:
        found |= SIMULATOR
    return found


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _why(code: int | None, limit_s: float, result: Result) -> str:
    kept = "what it had measured is kept" if result.tables or result.figures else "nothing measured"
    if code is None:
        return f"killed at its limit of {limit_s:.0f} s; {kept}"
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"ended by {ended} (see {result.part}.log); {kept}"
