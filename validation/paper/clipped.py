"""What clipping the gaps at 3/λ does: 5 % more requests, and smoother ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from validation.paper.experiment import (
    CLIPPED,
    EXACT,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    cell,
    find,
    named,
)
from validation.paper.pictures import latency_lines, side_by_side
from validation.paper.settings import CLIPPED_RATE, SARATHI, SINGLE, VLLM, a100

RATES_PER_S = (18.0, 19.0, 20.0, 21.0, 22.0, 23.0)
POLICIES = (VLLM, SARATHI, "wait:thresholds=2")

_KINDS = {
    "exact": (EXACT, 1.0),
    "clipped": (CLIPPED, 1.0),
    "exact, faster": (EXACT, CLIPPED_RATE),
}
"""Arrivals, and what the nominal rate is multiplied by."""


def run_clipped(lab: Lab) -> ExperimentResult:
    """The same nominal rates exact and clipped, and exact at the rate that clipping makes."""
    runs: list[Run] = []
    for kind, (arrivals, factor) in _KINDS.items():
        rates_per_s = [factor * one for one in RATES_PER_S]
        found = lab.simulate(SINGLE, a100(), named(POLICIES), rates_per_s, arrivals=arrivals)
        nominal = (rate for rate in RATES_PER_S for _ in POLICIES)
        runs += [
            replace(one, name=_name(one.name, kind), rate_per_s=rate)
            for one, rate in zip(found, nominal, strict=True)
        ]
    rows = tuple(
        (f"{rate:g}", f"`{policy}`", *(cell(find(runs, _name(policy, k), rate)) for k in _KINDS))
        for rate in RATES_PER_S
        for policy in POLICIES
    )
    header = ("nominal rate /s", "policy", "exact", "clipped", f"exact × {CLIPPED_RATE:.4f}")
    table = PageTable("Mean latency ± standard deviation between runs, seconds", header, rows)
    facts = {
        "growth": {policy: _growth(runs, policy, "clipped", "exact") for policy in POLICIES},
        "faster": {policy: _growth(runs, policy, "exact, faster", "exact") for policy in POLICIES},
        "rate": CLIPPED_RATE,
    }
    return ExperimentResult(tuple(runs), (table,), (), facts)


def _growth(runs: Sequence[Run], policy: str, kind: str, base: str) -> float:
    """Ratio of mean latencies at 22/s."""
    one, other = (find(runs, _name(policy, name), 22.0) for name in (kind, base))
    return one.mean_s / other.mean_s


def _name(policy: str, kind: str) -> str:
    return f"{policy}, {kind}"


def draw(result: ExperimentResult) -> Figure:
    """A panel for each policy."""
    with side_by_side(len(POLICIES), width=11) as (figure, axes):
        for one, policy in zip(axes, POLICIES, strict=True):
            names = {_name(policy, kind): kind for kind in _KINDS}
            latency_lines(one, [run for run in result.runs if run.name in names], labels=names)
            one.set_title(policy)
            one.set_xlabel("nominal rate (requests/s)")
        return figure


CLIPPED_ARRIVALS = Experiment(
    "clipped-arrivals",
    "Clipped arrivals",
    "Nothing: the paper does not mention them. Its simulator cuts gaps at 3/λ.",
    run_clipped,
    draw,
)
