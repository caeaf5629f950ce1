"""What `watch` shows in a terminal: the figures of now, and a line of the last ones."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fluid.result import number, percent, printable

if TYPE_CHECKING:
    from validation.live.step import Step

_BLOCKS = "▁▂▃▄▅▆▇█"
_POINTS = 40


def sparkline(values: Sequence[float]) -> str:
    """Figures as small columns, from the least to the most of them.

    >>> sparkline([1.0, 2.0, 3.0])
    '▁▄█'
    """
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[int((one - low) / span * last)] for one in values)


@contextmanager
def live_view() -> Iterator[Callable[[Step], None]]:
    """Yields the function that shows a step; it shows nothing where there is no terminal."""
    if not sys.stdout.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.live import Live

    past: dict[str, deque[float]] = {}
    with Live(console=Console(), auto_refresh=False) as live:
        yield lambda step: live.update(_table(step, past), refresh=True)


def _table(step: Step, past: dict[str, deque[float]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(f"{step.status}: {step.told}")), show_header=False)
    for name, value, text in _rows(step):
        seen = past.setdefault(name, deque(maxlen=_POINTS))
        if value is not None:
            seen.append(value)
        table.add_row(name, text, sparkline(seen) if seen else "")
    return table


def _rows(step: Step) -> Iterator[tuple[str, float | None, str]]:
    """Name, figure and its text."""
    rate = step.load and step.load.rate_per_s
    if rate:
        text = f"{number(rate.value)} ({number(rate.low)} to {number(rate.high)})"
        yield "arrivals /s", rate.value, text
    if step.answer is not None:
        found = step.answer.stability
        yield "α*", found.max_scale, f"{number(found.max_scale)}, {found.binding} binds"
        yield "margin", found.margin, percent(found.margin)
        replicas = step.replicas
        yield "replicas", replicas, str(replicas)
    if step.seen is not None and step.seen.tpot_s is not None:
        measured, said = step.seen.tpot_s, step.predicted_tpot_s
        yield "TPOT s", measured, f"{number(measured)}, predicted {number(said)}"
    if step.seen is not None and step.seen.ttft_s is not None:
        said = step.prediction.ttft_s if step.prediction else None
        yield "TTFT s", step.seen.ttft_s, f"{number(step.seen.ttft_s)}, predicted {number(said)}"
    if step.speed is not None:
        for part, factor in zip(
            ("overhead", "per token", "per KV token"), step.speed.factors, strict=True
        ):
            yield f"{part} ÷ file", factor, number(factor)
