"""Thresholds with the requirement to wait for them, and without."""

from __future__ import annotations

from matplotlib.figure import Figure

from validation.paper.experiment import (
    MET,
    NOT_MET,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    cell,
    difference,
    find,
    judged,
    named,
)
from validation.paper.pictures import latency_lines, side_by_side
from validation.paper.settings import SINGLE, TWO, a100

RATES_PER_S = (14.0, 16.0, 18.0, 20.0, 22.0)

SINGLE_PAIRS = tuple((f"wait:thresholds={n}", f"wait-cap:thresholds={n}") for n in (1, 2, 3))
TWO_PAIRS = (
    ("nested-wait:thresholds=1/1", "nested-cap:thresholds=20/30"),
    ("nested-wait:thresholds=2/1", "nested-cap:thresholds=40/30"),
)
"""With and without waiting; caps of a segment are its threshold times its stages."""

_WORDS = {MET: "yes", NOT_MET: "no"}


def run_waiting(lab: Lab) -> ExperimentResult:
    """All pairs at all rates."""
    runs: list[Run] = []
    rows: list[tuple[str, ...]] = []
    verdicts: list[str] = []
    for workload, pairs in ((SINGLE, SINGLE_PAIRS), (TWO, TWO_PAIRS)):
        texts = [text for pair in pairs for text in pair]
        found = lab.simulate(workload, a100(), named(texts), RATES_PER_S)
        runs += found
        for pair in pairs:
            for rate in RATES_PER_S:
                waiting, free = (find(found, text, rate) for text in pair)
                verdicts.append(judged(difference(free, waiting)))
                shown = _WORDS.get(verdicts[-1], "undecided")
                rows.append((f"`{pair[0]}`", f"{rate:g}", cell(waiting), cell(free), shown))
    header = ("with waiting", "rate /s", "with", "without", "faster without")
    table = PageTable(
        "Mean latency ± standard deviation between runs, seconds", header, tuple(rows)
    )
    facts = {
        "pairs": len(verdicts),
        "faster": verdicts.count(MET),
        "slower": verdicts.count(NOT_MET),
    }
    return ExperimentResult(tuple(runs), (table,), (), facts)


def draw(result: ExperimentResult) -> Figure:
    """One class on the left, two on the right."""
    with side_by_side(2, width=10) as (figure, axes):
        for one, title, pairs in zip(
            axes, (SINGLE.name, TWO.name), (SINGLE_PAIRS, TWO_PAIRS), strict=True
        ):
            names = {text for pair in pairs for text in pair}
            latency_lines(one, [run for run in result.runs if run.name in names])
            one.set_title(title)
            one.set_xlabel("nominal rate (requests/s)")
        return figure


WAITING = Experiment(
    "waiting",
    "With and without waiting",
    "Thresholds as the rule has them and as mere upper bounds.",
    run_waiting,
    draw,
)
