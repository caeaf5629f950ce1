"""The full size: ``python -m tests.fuzz`` prints a table, and every input that was answered badly.

Each input runs in a process of its own, forked from one that has all modules, with a limit of time
and memory. `--seed` makes other inputs of the same kinds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pickle
import random
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fluidwait.main import COMMANDS
from tests.fuzz.cases import ANSWERED, Case, cases, right_cases
from tests.fuzz.readers import broken, read_all
from tests.fuzz.running import answer
from tests.fuzz.scales import QUESTIONS, any_scale, told

MODULES = (
    *("validation.experiments.replay", "validation.experiments.compare", "matplotlib.pyplot"),
    *("thresholds.solve", "fluid.steady.prediction", "fluid.traces.registry"),
)
"""What commands import when they run."""

MOST_S = 10.0
"""Of a processor, kernels being compiled; on a busy machine that may take long."""

PATIENCE = 60.0
"""Times as long, by the clock, a case may take before it counts as hanging all the same."""

MOST_MB = 1024.0


class Outcome(NamedTuple):
    """What is wrong with an answer, if anything, and what it cost."""

    wrong: str | None
    took_s: float
    peak_mb: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=2_400)
    parser.add_argument("--readers-s", type=float, default=60.0)
    parser.add_argument("--scales", type=int, default=200, help="loads and servers of any scale")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    given = parser.parse_args()
    _import_all()
    _compile_all()
    counts: Counter[str] = Counter()
    slowest, largest = 0.0, 0.0
    for case in cases(given.seed, given.count):
        if not case.name.startswith(given.only):
            continue
        outcome = _apart(lambda case=case: _tried(case), MOST_S)
        kind = "may be right" if case.allowed == ANSWERED else "refused before work"
        counts[kind] += 1
        if counts.total() % 200 == 0:
            print(f"{counts.total()} so far", file=sys.stderr, flush=True)
        slowest, largest = max(slowest, outcome.took_s), max(largest, outcome.peak_mb)
        if outcome.wrong:
            counts[outcome.wrong.partition(":")[0].partition(",")[0]] += 1
            print(f"{case.name}\n  {case.line}\n  {outcome.wrong}", flush=True)
    read = _apart(lambda: _readers(given.seed, given.readers_s), given.readers_s + 60)
    print(f"inputs {sum(counts[one] for one in ('may be right', 'refused before work'))}")
    for kind, number in counts.items():
        print(f"  {kind}: {number}")
    scales = _scales(given.seed, given.scales)
    print(f"any scale: {given.scales * len(QUESTIONS)} questions, {scales} answered badly")
    print(f"  slowest {slowest:.1f} s, largest {largest:.0f} MB")
    print(f"readers: {read.wrong}")
    return 0 if not scales and set(counts) <= {"may be right", "refused before work"} else 1


def _import_all() -> None:
    for name in COMMANDS:
        importlib.import_module(f"fluidwait.commands.{name}")
    for name in MODULES:
        importlib.import_module(name)


def _compile_all() -> None:
    """Right inputs for every command that answers; kernels that they compile stay on disk."""
    for case in right_cases():
        outcome = _apart(lambda case=case: _tried(case), 60 * MOST_S)
        print(f"{case.line}\n  {outcome.wrong or 'fine'}, {outcome.took_s:.1f} s", flush=True)


def _tried(case: Case) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        return answer(case, Path(folder)).wrong(case)


def _scales(seed: int, count: int) -> int:
    """Ask everything about sound loads and servers of any scale; how many answers are bad."""
    rng, bad = random.Random(seed), 0
    for index in range(count):
        load, server = any_scale(rng)
        for question in QUESTIONS:
            outcome = _apart(lambda: told(question, load, server), MOST_S)  # noqa: B023
            if outcome.wrong:
                bad += 1
                print(f"scale {index}, {question}: {outcome.wrong}", flush=True)
    return bad


def _readers(seed: int, budget_s: float) -> str:
    """Broken files to all readers for so many seconds."""
    rng, end, count = random.Random(seed), time.monotonic() + budget_s, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            one = broken(rng)
            count += 1
            try:
                read_all(one, Path(folder))
            except Exception as error:
                kept = Path(tempfile.gettempdir()) / f"broken-{count}-{one.name}"
                kept.write_bytes(one.data)
                return f"file {count}, as {one.format}, kept as {kept}: {error!r}"
    return f"{count} broken files, no other exception than ours"


def _apart(function: Callable[[], str | None], most_s: float) -> Outcome:
    """Run it in a forked process with limits of time and memory."""
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used_s = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(used_s + most_s) + 1,) * 2)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(function(), pipe)
        os._exit(0)
    os.close(writing)
    data, failed = b"", None
    while True:
        if select.select([reading], [], [], 0.05)[0]:
            piece = os.read(reading, 1 << 16)
            if not piece:
                break
            data += piece
        elif _resident_mb(child) > 2 * MOST_MB:
            failed = "memory"
        elif time.monotonic() - start > PATIENCE * most_s:
            failed = f"hang: more than {most_s:g} s"
        if failed:
            os.kill(child, signal.SIGKILL)
            break
    os.close(reading)
    _, status, usage = os.wait4(child, 0)
    took_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    if failed is None and status in (signal.SIGKILL, signal.SIGXCPU):
        failed = f"hang: more than {most_s:g} s"
    if failed is None and peak_mb > MOST_MB:
        failed = f"memory: {peak_mb:.0f} MB"
    if failed is None and (status or not data):
        failed = f"crash: status {status}"
    return Outcome(failed or pickle.loads(data), took_s, peak_mb)


def _resident_mb(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    sys.exit(main())
