"""Run the notebooks and store what they show.

    python -m tests.notebooks [--write] [NAME …]

Names are beginnings of file names, as 03; all notebooks without any. Without ``--write`` it only
says how long each took.
"""

from __future__ import annotations

import argparse
import time

import nbformat

from tests.notebooks.running import NOTEBOOKS, executed, storable


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebooks.")
    parser.add_argument("names", nargs="*", default=[""], metavar="NAME")
    parser.add_argument("--write", action="store_true", help="store what they show")
    options = parser.parse_args()
    chosen = [path for path in NOTEBOOKS if path.name.startswith(tuple(options.names))]
    for path in chosen:
        start_s = time.perf_counter()
        notebook = storable(executed(path))
        print(f"{path.name}: {time.perf_counter() - start_s:.1f} s", flush=True)
        if options.write:
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
