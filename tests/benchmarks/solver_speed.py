"""Seconds and memory of the solvers against classes m and segments L: see ``make bench``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fluid.files import write_document
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from tests.benchmarks.measurement import Table, alone, best_seconds, once_seconds
from thresholds.solvers.nested.design import DesignRule, best_designs
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import log_term
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.wait.solver import Wait

LOAD = 0.8
"""Share of the largest stable rates."""

LONG_DECODE = load_server("paper-long-decode")


def random_load(classes: int, seed: int = 0) -> tuple[Workload, Server]:
    """Short requests of random sizes on a server with room for whole WAIT thresholds."""
    draw = np.random.default_rng(seed)
    workload = Workload(
        name=f"{classes} classes",
        classes=tuple(
            RequestClass(
                name=f"class {j}",
                rate_per_s=float(draw.uniform(0.5, 1.5)),
                prefill_tokens=int(draw.integers(10, 500)),
                decode_tokens=int(draw.integers(2, 50)),
            )
            for j in range(classes)
        ),
    )
    server = Server(
        name="large",
        source="benchmark",
        kv_capacity_tokens=60_000 * classes,
        iteration_time=IterationTime.affine(0.01, 4e-5, 3e-7),
    )
    scale = LOAD * equilibrium(workload, server).max_scale
    return workload.scaled(scale), server


def geometric_lengths(count: int, step: int, rate_per_s: float) -> Workload:
    """Outputs step, 2·step, …, each a fixed share rarer than the one before."""
    shares = 0.01 ** (np.arange(count) / count)
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            rate_per_s=float(rate_per_s * share / shares.sum()),
            prefill_tokens=100,
            decode_tokens=step * (k + 1),
        )
        for k, share in enumerate(shares)
    )
    return Workload(name=f"{count} lengths", classes=classes)


def by_classes() -> Table:
    """Equilibrium, practical table and literal WAIT against m."""
    rows = []
    for classes in (10, 100, 1000, 10_000, 100_000):
        (fluid_s, paced_s, wait_s, gap), peak_gib = alone(_class_seconds, classes)
        rows.append(
            (
                f"{classes:,}",
                f"{fluid_s:.4f}",
                f"{paced_s:.3f}",
                f"{wait_s:.2f}",
                f"{100 * gap:.3f} %",
                f"{peak_gib:.2f}",
            )
        )
    return Table(
        "Solvers: classes",
        f"Random classes at {LOAD:.0%} of their limit: the equilibrium, the practical table in "
        "closed form, literal WAIT to its optimum, and how far from it that can be.",
        ("classes m", "equilibrium s", "practical s", "WAIT s", "optimality gap", "peak GiB"),
        tuple(rows),
    )


def by_file() -> Table:
    """Reading a workload file of m classes, and what comes before any solver is asked."""
    rows = []
    for classes in (1000, 100_000):
        seconds, peak_gib = alone(_file_seconds, classes)
        rows.append((f"{classes:,}", *(f"{one:.2f}" for one in seconds), f"{peak_gib:.2f}"))
    return Table(
        "Solvers: files",
        "A workload file of random classes read and checked, its hash, and the first equilibrium.",
        ("classes m", "JSON s", "YAML s", "hash s", "equilibrium s", "peak GiB"),
        tuple(rows),
    )


def by_segments() -> Table:
    """Literal Nested WAIT against L, cuts chosen by the dynamic program."""
    rows = []
    for segments in (1, 2, 5, 10, 20):
        seconds, peak_gib = alone(_nested_seconds, segments)
        rows.append((str(segments), *(f"{one:.3f}" for one in seconds), f"{peak_gib:.2f}"))
    return Table(
        "Solvers: segments",
        "Literal Nested WAIT for 20 output lengths in L segments: least latency and least memory.",
        ("segments L", "latency s", "memory s", "peak GiB"),
        tuple(rows),
    )


def by_lengths() -> Table:
    """The dynamic program over cut points against the number of output lengths."""
    rows = []
    for count in (128, 1024, 8192):
        seconds, peak_gib = alone(_cut_seconds, count)
        rows.append((f"{count:,}", f"{seconds:.3f}", f"{peak_gib:.2f}"))
    return Table(
        "Solvers: cut points",
        "Best cuts of so many distinct output lengths into 1, 2, …, 32 segments.",
        ("output lengths", "seconds", "peak GiB"),
        tuple(rows),
    )


def _class_seconds(classes: int) -> tuple[float, float, float, float]:
    workload, server = random_load(classes)
    rounds = 3 if classes <= 1000 else 1
    fluid_s = best_seconds(lambda: equilibrium(workload, server), rounds)
    paced_s = best_seconds(lambda: Paced().solve(workload, server), rounds)
    wait_s = best_seconds(lambda: Wait().solve(workload, server), rounds)
    gap = Wait().solve(workload, server).solver.optimality_gap or 0.0
    return fluid_s, paced_s, wait_s, gap


def _file_seconds(classes: int) -> tuple[float, ...]:
    workload, server = random_load(classes)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"load.{suffix}" for suffix in ("json", "yaml")]
        for path in paths:
            # Flow mappings of JSON are YAML as well; dumping so many as YAML takes a minute.
            write_document(workload.document(), path)
        read = [once_seconds(lambda path=path: Workload.read(path)) for path in paths]
        found = Workload.read(paths[0])
    return (
        *read,
        once_seconds(found.sha256),
        once_seconds(lambda: equilibrium(found, server)),
    )


def _nested_seconds(segments: int) -> tuple[float, float]:
    server = LONG_DECODE.model_copy(update={"kv_capacity_tokens": 4_000_000})
    load = geometric_lengths(20, 10, 5.0)
    solvers = [
        NestedWait(objective=objective, segments=segments) for objective in ("latency", "memory")
    ]
    latency_s, memory_s = (best_seconds(lambda one=one: one.solve(load, server)) for one in solvers)
    return latency_s, memory_s


def _cut_seconds(count: int) -> float:
    lengths = distinct_lengths(geometric_lengths(count, 1, 5.0), LONG_DECODE)
    log = log_term(32, 3600.0, LONG_DECODE.iteration_time.overhead_s, 0.01)
    rule = DesignRule(first_threshold=60.0, margin=0.3)
    return best_seconds(lambda: best_designs(lengths, log, rule, 32), rounds=2)


TABLES = (by_classes, by_file, by_segments, by_lengths)
