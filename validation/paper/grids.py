"""The paper's grids: the cap tl on one class, tl and the number of segments on chat lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from validation.paper.experiment import (
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    best,
    cell,
    find,
    named,
)
from validation.paper.pictures import logarithmic, side_by_side
from validation.paper.settings import BASELINES, SINGLE, a100, chat, nested_cap, per_stage

LIMITS = tuple(range(20, 201, 10))
LIMIT_RATES_PER_S = (18.0, 20.0, 22.0)

CHAT_LIMITS = tuple(range(20, 201, 20))
SEGMENTS = (1, 2, 3, 4, 5, 10, 20)
CHAT_RATES_PER_S = (25.0, 35.0)
ETA = 0.05


def literal(total: int) -> str:
    """WAIT with tl spread evenly over the stages, whole."""
    return f"wait:thresholds={per_stage(total, SINGLE.classes[0].decode_tokens)}"


def capped(total: int) -> str:
    """At most tl requests in service, no waiting."""
    return f"nested-cap:thresholds={total}"


def run_limits(lab: Lab) -> ExperimentResult:
    """Caps and literal thresholds over tl; literal ones repeat, as they are whole per stage."""
    texts = dict.fromkeys([*map(capped, LIMITS), *map(literal, LIMITS)])
    runs = lab.simulate(SINGLE, a100(), named(texts), LIMIT_RATES_PER_S)
    rows = tuple(
        (
            str(total),
            *(cell(find(runs, capped(total), rate)) for rate in LIMIT_RATES_PER_S),
            literal(total).removeprefix("wait:thresholds="),
            *(cell(find(runs, literal(total), rate)) for rate in LIMIT_RATES_PER_S),
        )
        for total in LIMITS
    )
    rates = tuple(f"{rate:g}/s" for rate in LIMIT_RATES_PER_S)
    header = ("tl", *(f"cap, {one}" for one in rates), "n", *(f"literal, {one}" for one in rates))
    table = PageTable("Mean latency ± standard deviation between runs, seconds", header, rows)
    facts = {
        "caps": {rate: best(runs, [*map(capped, LIMITS)], rate) for rate in LIMIT_RATES_PER_S},
        "literal": {rate: best(runs, [*map(literal, LIMITS)], rate) for rate in LIMIT_RATES_PER_S},
        "largest": {rate: find(runs, capped(LIMITS[-1]), rate) for rate in LIMIT_RATES_PER_S},
    }
    return ExperimentResult(runs, (table,), (), facts)


def draw_limits(result: ExperimentResult) -> Figure:
    """Latency over tl, a panel for each rate."""
    with side_by_side(len(LIMIT_RATES_PER_S), width=11) as (figure, axes):
        for one, rate in zip(axes, LIMIT_RATES_PER_S, strict=True):
            for form, style in ((capped, "o-"), (literal, "s--")):
                found = [find(result.runs, form(total), rate).mean_s for total in LIMITS]
                one.plot(LIMITS, found, style, ms=4, label=f"{form.__name__} tl")
            logarithmic(one)
            one.set_title(f"{rate:g}/s")
            one.set_xlabel("tl, requests in service")
        axes[0].set_ylabel("mean latency (s)")
        axes[0].legend(fontsize=8)
        return figure


def chat_forms() -> dict[tuple[int, int], str]:
    """Policies by (tl, L); those whose caps round to 0 are missing."""
    server, workload = a100(), chat()
    found = {
        (total, count): nested_cap(workload, server, total, count, ETA)
        for total in CHAT_LIMITS
        for count in SEGMENTS
    }
    return {key: text for key, text in found.items() if text is not None}


def run_chat_grid(lab: Lab) -> ExperimentResult:
    """Caps by segment over tl and L, beside the baselines."""
    forms = chat_forms()
    texts = dict.fromkeys([*BASELINES, *forms.values()])
    runs = lab.simulate(chat(), a100(), named(texts), CHAT_RATES_PER_S)
    grids = {rate: _grid(runs, forms, rate) for rate in CHAT_RATES_PER_S}
    tables = []
    for rate, grid in grids.items():
        rows = tuple(
            (str(total), *("–" if np.isnan(value) else f"{value:.2f}" for value in row))
            for total, row in zip(CHAT_LIMITS, grid, strict=True)
        )
        header = ("tl", *(f"L = {count}" for count in SEGMENTS))
        tables.append(PageTable(f"Mean latency at {rate:g}/s, seconds", header, rows))
    facts = {
        "missing": len(CHAT_LIMITS) * len(SEGMENTS) - len(forms),
        "grids": grids,
        "spread": {
            rate: (float(np.nanmin(grid[-1])), float(np.nanmax(grid[-1])))
            for rate, grid in grids.items()
        },
        "best": {rate: _cell_of_least(grid) for rate, grid in grids.items()},
        "baselines": {
            rate: [find(runs, name, rate) for name in BASELINES] for rate in CHAT_RATES_PER_S
        },
    }
    return ExperimentResult(runs, tuple(tables), (), facts)


def _grid(runs: Sequence[Run], forms: dict[tuple[int, int], str], rate: float) -> np.ndarray:
    """Mean latency in seconds, shape (limits, segments), NaN where caps round to 0."""
    by_name = {one.name: one.mean_s for one in runs if one.rate_per_s == rate}
    return np.array(
        [
            [by_name.get(forms.get((total, count), ""), np.nan) for count in SEGMENTS]
            for total in CHAT_LIMITS
        ]
    )


def _cell_of_least(grid: np.ndarray) -> dict[str, float]:
    row, column = np.unravel_index(np.nanargmin(grid), grid.shape)
    return {"tl": CHAT_LIMITS[row], "segments": SEGMENTS[column], "mean_s": grid[row, column]}


def draw_chat_grid(result: ExperimentResult) -> Figure:
    """Latency over tl, a line for each L, and the best baseline."""
    with side_by_side(len(CHAT_RATES_PER_S), width=9) as (figure, axes):
        for one, (rate, grid) in zip(axes, result.facts["grids"].items(), strict=True):
            for count, column in zip(SEGMENTS, grid.T, strict=True):
                one.plot(CHAT_LIMITS, column, ".-", lw=1, label=f"L = {count}")
            least = min(found.mean_s for found in result.facts["baselines"][rate])
            one.axhline(least, color="black", ls=":", label="best of vLLM, Sarathi, vLLM today")
            logarithmic(one)
            one.set_title(f"{rate:g}/s")
            one.set_xlabel("tl, requests in service")
        axes[0].set_ylabel("mean latency (s)")
        axes[0].legend(fontsize=7)
        return figure


LIMIT_GRID = Experiment(
    "limit-grid",
    "The cap tl on one class",
    "A grid over tl from 20 to 200 picks WAIT's only parameter.",
    run_limits,
    draw_limits,
)
CHAT_GRID = Experiment(
    "chat-grid",
    "tl and L on chat lengths",
    "A grid over tl from 20 to 200 and 1 to 20 segments.",
    run_chat_grid,
    draw_chat_grid,
)
