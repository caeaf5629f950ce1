"""Run the notebooks and store what they show.

    python -m tests.notebooks [--write] [NAME …]

Names are beginnings of file names, as 03; all notebooks without any. Without ``--write`` it only
says how long they take, as many at a time as there are processors.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

from tests.notebooks.running import NOTEBOOKS, executed, storable


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks.")
    parser.add_argument("names", nargs="*", default=[""], metavar="NAME")
    parser.add_argument("--write", action="store_true", help="store what they show")
    options = parser.parse_args()
    chosen = [path for path in NOTEBOOKS if path.name.startswith(tuple(options.names))]
    start_s = time.perf_counter()
    with ThreadPoolExecutor(1 if options.write else os.cpu_count()) as pool:
        for path, (notebook, took_s) in zip(chosen, pool.map(_timed, chosen), strict=True):
            print(f"{path.name}: {took_s:.1f} s", flush=True)
            if options.write:
                nbformat.write(notebook, path)
    print(f"in total: {time.perf_counter() - start_s:.1f} s")


def _timed(path: Path) -> tuple[nbformat.NotebookNode, float]:
    start_s = time.perf_counter()
    return storable(executed(path)), time.perf_counter() - start_s


if __name__ == "__main__":
    main()
