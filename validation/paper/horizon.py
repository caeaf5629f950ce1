"""Does the length of the run decide the figures?"""

from __future__ import annotations

from matplotlib.figure import Figure

from validation.paper.experiment import (
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    cell,
    named,
)
from validation.paper.pictures import latency_lines, side_by_side
from validation.paper.settings import SARATHI, SINGLE, TODAY, VLLM, a100

RATES_PER_S = (22.0, 23.0)
POLICIES = (VLLM, SARATHI, TODAY, "wait:thresholds=1", "wait:thresholds=2")
MULTIPLES = (0.2, 0.5, 1.0, 1.5, 2.0)
"""Requests per run in multiples of the usual number: 2,000 to 20,000 of 10,000."""


def run_horizon(lab: Lab) -> ExperimentResult:
    """All lengths at both rates."""
    runs: list[Run] = []
    for multiple in MULTIPLES:
        requests = round(multiple * lab.sizes.requests)
        runs += lab.simulate(SINGLE, a100(), named(POLICIES), RATES_PER_S, requests=requests)
    lengths = list(dict.fromkeys(one.requests for one in runs))
    at = {(one.name, one.rate_per_s, one.requests): one for one in runs}
    rows = tuple(
        (f"`{name}`", f"{rate:g}", *(cell(at[name, rate, size]) for size in lengths))
        for rate in RATES_PER_S
        for name in POLICIES
    )
    header = ("policy", "rate /s", *(f"{size:,}" for size in lengths))
    table = PageTable(
        "Mean latency ± standard deviation by requests per run, seconds", header, rows
    )
    growth = {
        (name, rate): at[name, rate, lengths[-1]].mean_s / at[name, rate, lengths[0]].mean_s
        for name in POLICIES
        for rate in RATES_PER_S
    }
    facts = {"growth": growth, "shortest": lengths[0], "longest": lengths[-1]}
    return ExperimentResult(tuple(runs), (table,), (), facts)


def draw(result: ExperimentResult) -> Figure:
    """Latency over requests per run, a panel for each rate."""
    with side_by_side(len(RATES_PER_S), width=10) as (figure, axes):
        for one, rate in zip(axes, RATES_PER_S, strict=True):
            runs = [run for run in result.runs if run.rate_per_s == rate]
            latency_lines(one, runs, x=lambda run: run.requests)
            one.set_title(f"{rate:g}/s")
            one.set_xlabel("requests per run")
        return figure


HORIZON = Experiment(
    "horizon",
    "Length of the runs",
    "A check with 2,000 to 20,000 requests at 22 and 23/s.",
    run_horizon,
    draw,
)
