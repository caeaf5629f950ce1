"""An answer of the fluid model at every combination of values of some parameters.

Nothing is simulated; `validation.experiments.sweep` does that for policies.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fluid.errors import InfeasibleError, InputError, not_a_name
from fluid.result import Block, Result, Table, number
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import fluctuation
from fluid.steady.full_memory.stability import full_memory
from fluid.steady.latency.scheduler import default_scheduler, rule_for
from fluid.steady.phase import PARAMETERS, Axis
from fluid.steady.stability import Stability, stability
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fluid.steady.latency.result import Latency

Figures = dict[str, Any]
"""Numbers, words, truths or None by name; "why" says why there are none."""

MOST_POINTS = 100_000
MOST_LINES = 12
"""More are not told apart in a picture."""

_MOST_REASONS = 3

_TIMES = tuple(f"{name}_{one}_s" for name in ("ttft", "tpot", "latency") for one in ("mean", "p99"))


@dataclass(frozen=True, repr=False, eq=False)
class FluidSweep(Result):
    """Figures of the fluid model over parameters of a load and its server.

    Attributes:
        of: What was asked, by name.
        parameters: The values of each, in the order in which they were given.
        points: Figures by name for every combination, the last parameter changing fastest.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.sweep(load, server, of="stability", kv_tokens=[2_000, 50_000])
    >>> found.frame()["binding"], found.of
    (['memory', 'compute'], 'stability')
    """

    workload: Workload
    server: Server
    of: str
    parameters: tuple[Axis, ...]
    points: tuple[Figures, ...]

    @property
    def title(self) -> str:
        """What was asked about what."""
        return f"{self.of} of {self.workload.name} on {self.server.name}"

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each combination: parameters, figures, and `why` there are none."""
        names = [axis.name for axis in self.parameters]
        given = zip(*self._combinations(), strict=True)
        columns = {name: list(values) for name, values in zip(names, given, strict=True)}
        found = dict.fromkeys(name for point in self.points for name in point)
        found.pop("why", None)
        for name in (*found, "why"):
            columns[name] = [point.get(name) for point in self.points]
        return columns

    def _combinations(self) -> list[tuple[float, ...]]:
        return list(itertools.product(*(axis.values for axis in self.parameters)))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of what can be drawn: columns of numbers."""
        given = {axis.name for axis in self.parameters}
        return tuple(
            name
            for name, values in self.frame().items()
            if name not in given and all(_is_number(one) or one is None for one in values)
            if any(_is_number(one) for one in values)
        )

    def blocks(self) -> Iterator[Block]:
        columns = self.frame()
        reasons = Counter(filter(None, columns.pop("why")))
        given = [axis.name for axis in self.parameters]
        words = [name for name in columns if name not in (*given, *self.figures)]
        yield Table(
            self.title,
            tuple(columns),
            tuple(tuple(map(_cell, row)) for row in zip(*columns.values(), strict=True)),
            left=tuple(k for k, name in enumerate(columns) if name in words),
            spare=tuple(one for one in reversed(columns) if one not in given and "lat" not in one),
        )
        for reason, count in reasons.most_common(_MOST_REASONS):
            yield f"{count} of {len(self.points)} points lack figures: {reason}"
        if len(reasons) > _MOST_REASONS:
            yield f"{len(reasons) - _MOST_REASONS} more reasons are in the column `why`."

    def document(self) -> dict[str, Any]:
        columns = self.frame()
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "of": self.of,
            "parameters": {axis.name: list(axis.values) for axis in self.parameters},
            "points": [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ],
        }

    def plot(self, ax: Axes | None = None, figure: str | None = None) -> Axes:
        """A figure against the first parameter that varies, a line for each value of the others.

        Lines have gaps where there is no figure.

        Args:
            figure: One of `figures`; the first of them where None.

        Raises:
            InputError: Another figure, none at all, or more than `MOST_LINES` lines.
        """
        from fluid.plots.sweep import plot_lines

        known = self.figures
        chosen = known[0] if figure is None and known else str(figure)
        if chosen not in known:
            raise not_a_name("figure", chosen, known)
        varied = [k for k, axis in enumerate(self.parameters) if len(axis.values) > 1]
        along = varied[0] if varied else 0
        others = [k for k in varied if k != along]
        lines: dict[str, list[tuple[float, float]]] = {}
        for values, point in zip(self._combinations(), self.points, strict=True):
            label = ", ".join(f"{self.parameters[k].name} {number(values[k])}" for k in others)
            found = point.get(chosen)
            lines.setdefault(label, []).append(
                (values[along], math.nan if found is None else found)
            )
        if len(lines) > MOST_LINES:
            raise InputError("lines", len(lines), f"at most {MOST_LINES}: fewer values, or `frame`")
        points = {label: np.array(one, dtype=float) for label, one in lines.items()}
        return plot_lines(
            ax, PARAMETERS[self.parameters[along].name][0], chosen, points, self.title
        )


def fluid_sweep(
    workload: Workload,
    server: Server,
    *,
    of: str | Callable[[Workload, Server], Any] = "equilibrium",
    scheduler: str | None = None,
    on_done: Callable[[], None] | None = None,
    **values: ArrayLike,
) -> FluidSweep:
    """An analytic answer at every combination of values of parameters.

    Args:
        of: One of `ANSWERS`; or a function of a workload and a server that gives a number, numbers
            by name, or a result, of which the figures at the top of its document are kept.
        scheduler: Whose latencies are predicted, as for `equilibrium`; only with those answers
            that have some.
        on_done: Called after each point.
        values: Of `fluid.steady.phase.PARAMETERS`, each in its unit.

    Raises:
        InputError: An unknown answer or parameter, a value that no load or server may have, no
            values, or too many points. What the model refuses at a point is told in its row.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.sweep(load, server, rate=[5, 50], overhead_s=[0.01, 0.02])
    >>> [round(one, 2) for one in found.frame()["margin"]], found.frame()["why"][3][:8]
    ([0.79, 0.79, -1.13, -1.07], 'UNSTABLE')
    """
    name, answer = _answer(of, scheduler, server)
    axes = tuple(_axis(*one) for one in values.items())
    count = math.prod(len(axis.values) for axis in axes)
    if not axes:
        raise InputError("parameters", "none", "values of one or more of " + ", ".join(PARAMETERS))
    if count > MOST_POINTS:
        raise InputError("values", f"{count:,} combinations", f"at most {MOST_POINTS:,}")
    points = []
    for combination in itertools.product(*(axis.values for axis in axes)):
        here = workload, server
        for axis, value in zip(axes, combination, strict=True):
            here = PARAMETERS[axis.name][1](*here, value)
        points.append(_point(answer, *here))
        if on_done:
            on_done()
    return FluidSweep(workload, server, name, axes, tuple(points))


def _axis(name: str, values: ArrayLike) -> Axis:
    if name not in PARAMETERS:
        raise not_a_name("parameter", name, PARAMETERS)
    try:
        found = np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError):
        raise InputError(name, values, "numbers") from None
    if not len(found) or not (np.isfinite(found) & (found > 0)).all():
        raise InputError(name, values, "one or more numbers > 0")
    return Axis(name, tuple(found.tolist()))


Answer = Callable[[Workload, Server], Figures]


def _answer(
    of: str | Callable[[Workload, Server], Any], scheduler: str | None, server: Server
) -> tuple[str, Answer]:
    """Name of an answer, and what gives it."""
    if isinstance(of, str) and of in _UNDER_SCHEDULER:
        chosen = scheduler or default_scheduler(server)
        rule_for(chosen, server)  # refused at once, not in every row
        under = _UNDER_SCHEDULER[of]
        return of, lambda load, on: under(load, on, chosen)
    if scheduler is not None:
        allowed = "only with " + ", ".join(_UNDER_SCHEDULER)
        raise InputError("scheduler", scheduler, allowed)
    if callable(of):
        return getattr(of, "__name__", "answer"), lambda *here: _figures_of(of(*here))
    if of not in _PLAIN:
        raise not_a_name("of", str(of), ANSWERS)
    plain = _PLAIN[of]
    return of, lambda *here: _figures_of(plain(*here))


def _point(answer: Answer, workload: Workload, server: Server) -> Figures:
    try:
        return answer(workload, server)
    except (InputError, InfeasibleError) as error:
        return {"why": str(error)}


def _balance(workload: Workload, server: Server, scheduler: str) -> Figures:
    found = equilibrium(workload, server, scheduler=scheduler)
    latency = found.prediction.latency if found.prediction else None
    times = {} if latency is None else _times(latency)
    return {
        "margin": found.margin,
        "stable": found.stable,
        "binding": found.binding,
        "largest_rate_per_s": found.max_scale * workload.rate_per_s,
        "utilisation": found.utilisation,
        "iteration_time_s": found.iteration_time_s,
        "kv_held_tokens": found.kv_tokens,
        **{name: times.get(name) for name in (*_TIMES, "scope")},
        "why": found.sentence if latency is None else latency.refusal,
    }


def _latency(workload: Workload, server: Server, scheduler: str) -> Figures:
    from fluid.steady.latency.predict import latency  # its kernels are slow to import

    found = latency(workload, server, rule_for(scheduler, server))
    return {**_times(found), "why": found.refusal}


def _times(found: Latency) -> Figures:
    """Times over all requests, and what of them holds."""
    if found.pooled is None:
        return {}
    last = {name: column[-1] for name, column in found.frame().items() if name.endswith("_s")}
    del last["rate_per_s"]
    return last | {"scope": found.validity and found.validity.scope}


def _stability(workload: Workload, server: Server) -> Figures:
    found: Stability = stability(workload, server)
    names = ("margin", "stable", "binding", "max_scale", "compute_share", "memory_share")
    figures: Figures = {name: getattr(found, name) for name in names}
    return figures | {"largest_rate_per_s": found.max_scale * workload.rate_per_s}


_UNDER_SCHEDULER = {"equilibrium": _balance, "latency": _latency}

_PLAIN: dict[str, Callable[[Workload, Server], Any]] = {
    "stability": _stability,
    "fluctuation": fluctuation,
    "full_memory": full_memory,
}

ANSWERS = (*_UNDER_SCHEDULER, *_PLAIN)
"""Names of what a sweep may ask."""


def _figures_of(found: Any) -> Figures:
    """Figures by name, of a number, of numbers by name or of a result.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(found, Result):
        figures = found.document()
        names = ("workload", "server")
        return {k: _plain(one) for k, one in figures.items() if k not in names and _is_plain(one)}
    if isinstance(found, Mapping):
        return {str(name): _plain(one) for name, one in found.items()}
    if not _is_plain(found):
        raise TypeError(f"an answer of a sweep is a number or numbers by name, not {found!r}")
    return {"value": _plain(found)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float | np.generic)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else number(value)
