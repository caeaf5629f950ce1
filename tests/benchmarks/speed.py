"""Speed and memory of simulator and solvers on this machine, as tables: ``make bench``.

Run as ``python -m tests.benchmarks.speed [--out FILE]`` on an idle machine, a few minutes; with
--out also as a page of the documentation.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

from fluid.files import write_text
from fluid.result import Table as ShownTable
from fluid.result import as_text
from fluidwait.console import progress, say
from tests.benchmarks import simulator_speed, solver_speed
from tests.benchmarks.measurement import Table

LIBRARIES = ("numpy", "numba", "scipy", "cvxpy", "fluidwait")

HEADER = """\
# Speed

Measured on {machine}.
The best of several runs, compilation apart; no test depends on a speed.
[Benchmarks](benchmarks.md) has what is measured beside it; the simulator makes 1.5·10⁹ iterations/s
[on an H200](calibrate.md#on-an-h200).

<!-- not run: a few minutes, and its figures are those of another machine -->
```sh
make bench    # prints these tables; python -m tests.benchmarks.speed --out FILE writes this page
```
"""


def machine() -> str:
    """Processor, cores, memory and versions in one sentence."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, {libraries}"
    )


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def markdown(table: Table) -> str:
    """A section of the page."""
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## {table.title}\n\n{table.about}\n\n{body}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write a page of the documentation")
    out = parser.parse_args().out
    tables = []
    measures = (*simulator_speed.TABLES, *solver_speed.TABLES)
    with progress("bench", len(measures)) as advance:
        for measure in measures:
            tables.append(measure())
            advance()
    for table in tables:
        say(as_text([ShownTable(table.title, tuple(table.columns), tuple(map(tuple, table.rows)))]))
    if out:
        sections = [HEADER.format(machine=machine()), *map(markdown, tables)]
        write_text(out, "\n".join(sections))


if __name__ == "__main__":
    main()
