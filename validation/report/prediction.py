"""Predicted and simulated times in one table, with their differences."""

from __future__ import annotations

from collections.abc import Sequence

from fluid.result import Table, number, with_half_width
from thresholds.fields import Interval, PolicyValidation, PredictedLatency
from validation.policies import parse_policy
from validation.report.pictures import Row

_TIMES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "latency"}


def side_by_side(law: PredictedLatency, rows: Sequence[Row]) -> Table:
    """Mean and p99 of each time: predicted, and simulated for whom that is a prediction.

    Args:
        rows: Simulated policies at one rate, the table's own first.
    """
    shown = _shown(law, rows)
    columns = ["seconds", "predicted"]
    for row, name in zip(shown, ("difference", "difference there"), strict=False):
        columns += [row.label, name]
    return Table(
        "Predicted and simulated",
        tuple(columns),
        tuple(
            (f"{statistic} {word}", *_cells(law, shown, name, statistic))
            for name, word in _TIMES.items()
            for statistic in ("mean", "p99")
        ),
    )


def prediction_words(law: PredictedLatency, arrivals: str) -> str:
    """For whom the predicted times hold and how far, or why there are none."""
    if law.refusal is not None:
        return f"No times are predicted for {law.scheduler}: {law.refusal}."
    found = [f"Times are predicted for {law.scheduler} under Poisson arrivals."]
    if not law.follows_table:
        found.append("What this table holds back is left out: the difference shows what it costs.")
    if arrivals != "poisson":
        found.append(f"The simulation's arrivals are {arrivals}, so that the difference is theirs.")
    found += [law.accuracy or "", *(f"{one[0].upper()}{one[1:]}." for one in law.caveats)]
    return " ".join(filter(None, found))


def _shown(law: PredictedLatency, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The table's own row, and the one of the scheduler that the law is about."""
    told = parse_policy(law.scheduler)
    others = rows[1:] if not law.follows_table else ()
    same = [
        one
        for one in others
        if (one.result.policy, one.result.params) == (told.policy.name, told.params)
    ]
    return (rows[0], *same[:1])


def _cells(
    law: PredictedLatency, rows: Sequence[Row], name: str, statistic: str
) -> tuple[str, ...]:
    times = getattr(law, f"{name}_s")
    predicted = None if times is None else getattr(times, statistic)
    cells = [number(predicted)]
    for row in rows:
        value, text = _simulated(row.result, name, statistic)
        cells += [text, _difference(value, predicted)]
    return tuple(cells)


def _difference(value: float | None, predicted: float | None) -> str:
    if value is None or predicted is None:
        return "–"
    return f"{round(100 * (value / predicted - 1), 1) + 0.0:+.1f} %"  # no minus before zero


def _simulated(result: PolicyValidation, name: str, statistic: str) -> tuple[float | None, str]:
    if statistic == "p99":
        value: float | None = getattr(result, f"{name}_p99_s")
        return value, number(value)
    found: Interval | None = getattr(result, f"{name}_s")
    if found is None:
        return None, "–"
    return found.mean, with_half_width(found.mean, found.half_width)
