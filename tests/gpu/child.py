"""Runs one part in a process of its own: ``python -m tests.gpu.child MODULE PART OUT STOP [toy]``.

Every result of the part is written as soon as it is there, so that whatever happens next, a fault
of the device or the end of the time, takes nothing of it away.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.gpu.compiled import simulated
from tests.gpu.result import FAILED, Result
from tests.gpu.settings import Settings


def main(module: str, part: str, out: Path, stop_at_s: float, toy: bool) -> int:
    """1 if the part failed."""
    begin = time.perf_counter()
    if simulated():
        from tests.support.cuda_simulator import patch

        patch()
    result = Result(part)
    try:
        for result in _results(module, Settings(out, toy, stop_at_s)):
            replace(result, seconds=time.perf_counter() - begin).write(out)
    except Exception as error:
        traceback.print_exc()
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        result = replace(result, status=FAILED, why=line)
        replace(result, seconds=time.perf_counter() - begin).write(out)
    return int(result.status == FAILED)


def _results(module: str, settings: Settings) -> Iterator[Result]:
    results: Iterator[Result] = importlib.import_module(module).measure(settings)
    yield from results


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(given[0], given[1], Path(given[2]), float(given[3]), given[4:] == ["toy"]))
