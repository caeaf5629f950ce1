"""``python -m validation.paper``: run every experiment, write the page and its figures."""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from validation.paper import EXPERIMENTS
from validation.paper.experiment import FULL, QUICK, ExperimentResult, Lab, Sizes
from validation.paper.page import Cost, render, write_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m validation.paper", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page")
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that all works")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    results = run_all(sizes, given.threads)
    figures = {name: EXPERIMENTS[name].draw(result) for name, result in results.items()}
    cost = Cost(
        wall_s=time.perf_counter() - wall_s,
        cpu_s=time.process_time() - cpu_s,
        cores=os.cpu_count() or 1,
    )
    write_page(given.out, results, figures, render(results, sizes, cost))
    print(f"Wrote {given.out / 'reproduction.md'}: {cost.wall_s:.0f} s, {cost.cpu_s:.0f} s of CPU.")


def run_all(sizes: Sizes, threads: int | None) -> dict[str, ExperimentResult]:
    """Every experiment in order, with progress on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} · {task.fields[runs]:,} runs"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(EXPERIMENTS), runs=0)
        runs = itertools.count(1)
        lab = Lab(sizes, threads, lambda: progress.update(task, runs=next(runs)))
        results = {}
        for name, experiment in EXPERIMENTS.items():
            progress.update(task, description=experiment.title)
            results[name] = experiment.run(lab)
            progress.advance(task)
    return results


if __name__ == "__main__":
    main()
