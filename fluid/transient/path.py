"""Transient fluid model: the population over (class, stage) as time goes on.

The mass x_j(s) of class j about to pass stage s is carried by a transport equation in iteration
time: in an iteration everybody resident advances one stage, x_j(s + 1) ← x_j(s), admitted mass
enters at the first stage, and the iteration lasts τ of the composition (THEORY 1.3). Admission is
greedy with watermark, cap and pace (THEORY 3.5), eviction the paper's rule: last admitted first,
all progress lost, front of the queue. Mass is real-valued and nothing is random, so that
randomness and the granularity of whole requests are what the model leaves out; the age of every
resident is kept, and with it the synchronised generations that make greedy collapse (THEORY 6.4).
What one whole request frees when it is evicted counts most with watermark 0: there a simulated
server readmits at once what the fluid, at exactly C, does not.

A fixed point is the equilibrium of THEORY 2.2, for an f that is not affine that of the mean
composition (method "mean" of THEORY 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Result, Table, number
from fluid.server import Server, require_fits
from fluid.stages import Stages, class_stages
from fluid.steady.equilibrium import equilibrium
from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst, RateProfile
from fluid.transient.inputs import Coming, Costs, Gate, coming_of, costs_of
from fluid.workload import Workload, warn_of_prefixes

if TYPE_CHECKING:
    from fluid.plots.style import Panels

Floats = NDArray[np.float64]
Start = Literal["empty", "equilibrium"]


_COLUMNS = (
    *("time_s", "iteration", "waiting", "residents"),
    *("kv_tokens", "arrived", "completed", "evicted"),
)

_BANDS = 40
"""Most bands of `FluidPath.kv_by_stage`."""

PICTURES = ("time", "population", "kv")
"""What `FluidPath.plot` draws."""


@dataclass(frozen=True, repr=False, eq=False)
class FluidPath(Result):
    """A path of the fluid model. Rows are the starts of iterations, all of shape (rows,).

    The last row is the first iteration that starts at the horizon or later.

    Attributes:
        time_s: When the iteration starts.
        iteration: Its number; more than one apart where rows are thinned out.
        waiting: Mass waiting after admission.
        residents: Mass in the batch.
        kv_tokens: KV occupied during the iteration, block-rounded.
        arrived: Mass that was there at time 0 or arrived since.
        completed: Mass completed since time 0.
        evicted: Mass evicted since time 0, each eviction counted.
        snapshots_s: Times asked for, shape (snapshots,).
        population: x_j(s) in the first iteration from each of these times on, by position of the
            stage within its class, shape (snapshots, stages, classes); NaN beyond the horizon.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> path = fw.simulate_fluid(load, fw.Server.named("engine-long-decode"), horizon_s=30.0)
    >>> list(path.frame())[:4]
    ['time_s', 'iteration', 'waiting', 'residents']
    """

    workload: Workload
    server: Server
    time_s: Floats
    iteration: NDArray[np.int64]
    waiting: Floats
    residents: Floats
    kv_tokens: Floats
    arrived: Floats
    completed: Floats
    evicted: Floats
    snapshots_s: Floats
    population: Floats

    def frame(self) -> dict[str, NDArray[Any]]:
        """Columns, a row for each kept iteration."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def blocks(self) -> Iterator[Block]:
        end_s = float(self.time_s[-1])
        yield Table(
            f"{self.workload.name} on {self.server.name}: {number(end_s)} s of the fluid model",
            ("figure", "value"),
            (
                ("iterations", f"{self.iteration[-1]:,}"),
                ("arrived", number(float(self.arrived[-1]))),
                ("completed", number(float(self.completed[-1]))),
                ("evictions", number(float(self.evicted[-1]))),
                ("waiting at the end", number(float(self.waiting[-1]))),
                ("resident at the end", number(float(self.residents[-1]))),
                ("KV tokens at most", number(float(self.kv_tokens.max()))),
                ("KV capacity C", number(float(self.server.usable_kv_tokens))),
            ),
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "columns": {name: column.tolist() for name, column in self.frame().items()},
        }

    def plot(self, ax: Panels | None = None, picture: str = "time") -> Panels:
        """One of `PICTURES`: waiting, residents and KV over time; or the snapshots, by stage.

        Of the snapshots, "population" draws the mass over time, and "kv" the tokens that each
        stage holds, in a panel for each snapshot.

        Raises:
            InputError: Another picture, or too few snapshots within the horizon.
        """
        if picture not in PICTURES:
            raise InputError("picture", picture, "one of " + ", ".join(PICTURES))
        return getattr(self, f"_plot_{picture}")(ax)

    def _plot_time(self, ax: Panels | None) -> Panels:
        from fluid.plots.transient import plot_path

        columns = {
            "waiting": self.waiting,
            "in the batch": self.residents,
            "KV (tokens)": self.kv_tokens,
        }
        return plot_path(ax, self.time_s, columns)

    def _plot_population(self, ax: Panels | None) -> Panels:
        from fluid.plots.transient import plot_population

        taken = self._taken(2)
        return plot_population(ax, self.snapshots_s[taken], self.population[taken].sum(axis=2))

    def _plot_kv(self, ax: Panels | None) -> Panels:
        from fluid.plots.transient import plot_kv_by_stage

        taken = self._taken(1)
        edges, held = self.kv_by_stage()
        capacity = self.server.usable_kv_tokens
        return plot_kv_by_stage(ax, self.snapshots_s[taken], edges, held[taken], capacity)

    def _taken(self, fewest: int) -> NDArray[np.bool_]:
        """Which snapshots lie within the horizon."""
        taken = np.asarray(np.isfinite(self.population).all(axis=(1, 2)))
        if taken.sum() < fewest:
            allowed = f"at least {fewest} snapshots within the horizon"
            raise InputError("snapshots_s", int(taken.sum()), allowed)
        return taken

    def kv_by_stage(self) -> tuple[Floats, Floats]:
        """Edges of bands of stages, shape (bands + 1,), and KV tokens, (snapshots, bands)."""
        stages = [class_stages(one, self.server) for one in self.workload.classes]
        last = max(int(one.index[-1]) for one in stages) + 1
        edges = np.linspace(0, last, min(_BANDS, last) + 1)
        held = np.zeros((len(self.population), len(edges) - 1))
        for column, one in enumerate(stages):
            kv_tokens = self.population[:, : one.count, column] * one.held_kv_tokens
            for row, weights in zip(held, kv_tokens, strict=True):
                row += np.histogram(one.index, edges, weights=weights)[0]
        return edges, held

    def rates_between(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Completions and evictions per second between two times.

        Raises:
            InputError: No two rows lie in between.
        """
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        if inside.sum() < 2:
            raise InputError("start_s", start_s, f"a time with two rows between it and {end_s}")
        time_s, completed, evicted = (
            column[inside] for column in (self.time_s, self.completed, self.evicted)
        )
        span_s = time_s[-1] - time_s[0]
        return (
            float((completed[-1] - completed[0]) / span_s),
            float((evicted[-1] - evicted[0]) / span_s),
        )


def simulate_fluid(
    workload: Workload,
    server: Server,
    *,
    horizon_s: float,
    rule: Admission | None = None,
    rate_profile: RateProfile | None = None,
    bursts: Sequence[Burst] = (),
    start: Start = "empty",
    every: int = 1,
    snapshots_s: Sequence[float] = (),
) -> FluidPath:
    """Solve the transport equation from time 0 to `horizon_s` (THEORY 5.1, 6.4).

    Args:
        rule: Admission; plain greedy if None.
        rate_profile: Arrival rates over time, in place of those of the workload with its own
            rate profile.
        bursts: Mass that arrives at once, on top of the rates.
        start: Nobody there, or the equilibrium of the workload's own rates.
        every: Iterations per row of the result.
        snapshots_s: When to keep the population, in increasing order.

    Raises:
        InputError: An argument out of range, or a class of which no request fits into memory.
        InfeasibleError: Start at an equilibrium that does not exist.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> path = fw.simulate_fluid(load, fw.Server.named("engine-long-decode"), horizon_s=60.0)
    >>> round(path.rates_between(30.0, 60.0)[0], 1)
    7.0
    """
    if not 0 < horizon_s < math.inf:
        raise InputError("horizon_s", horizon_s, "positive finite seconds")
    if every < 1:
        raise InputError("every", every, "at least 1")
    shots_s = np.asarray(snapshots_s, dtype=float).reshape(-1)
    if (np.diff(shots_s) < 0).any():
        raise InputError("snapshots_s", list(snapshots_s), "increasing seconds")
    require_fits(workload, server)
    warn_of_prefixes(workload)
    profile = rate_profile or RateProfile.of(workload, horizon_s)
    stages = [class_stages(one, server) for one in workload.classes]
    columns, shots = _run(
        costs_of(stages, server),
        coming_of(workload, profile, bursts),
        (rule or Admission()).gate(server),
        _at_start(workload, server, stages, start),
        float(horizon_s),
        every,
        shots_s,
    )
    return FluidPath(
        workload=workload, server=server, **columns, snapshots_s=shots_s, population=shots
    )


def _run(
    costs: Costs,
    coming: Coming,
    gate: Gate,
    start: tuple[Floats, Floats],
    horizon_s: float,
    every: int,
    shots_s: Floats,
) -> tuple[dict[str, NDArray[Any]], Floats]:
    """The columns of a path by name, and its snapshots."""
    from fluid.transient import kernel

    residents, waiting = start
    # No iteration is shorter than d0, and idle jumps end at a change or a burst.
    jumps = len(coming.starts_s) + len(coming.burst_times_s)
    iterations = math.ceil(horizon_s / costs.overhead_s) + jumps + 1
    series = np.empty((math.ceil(iterations / every) + 2, len(_COLUMNS)))
    shots = np.full((len(shots_s), *residents.shape), np.nan)
    rows = kernel.simulate(
        costs, coming, gate, residents, waiting, horizon_s, every, series, shots_s, shots
    )
    columns: dict[str, NDArray[Any]] = dict(zip(_COLUMNS, series[:rows].T.copy(), strict=True))
    return columns | {"iteration": columns["iteration"].astype(np.int64)}, shots


def _at_start(
    workload: Workload, server: Server, stages: Sequence[Stages], start: Start
) -> tuple[Floats, Floats]:
    """Population (stages, classes) and waiting mass (classes,) at time 0.

    At equilibrium every stage holds n* = λΔT*. As one iteration has just ended, stage 0 is empty
    and its n* waits to be admitted.
    """
    residents = np.zeros((max(one.count for one in stages), len(stages)))
    waiting = np.zeros(len(stages))
    if start == "empty":
        return residents, waiting
    if start != "equilibrium":
        raise InputError("start", start, "empty or equilibrium")
    affine = server.iteration_time.is_affine
    found = equilibrium(workload, server, None if affine else "mean")
    if not found.stable:
        raise InfeasibleError(
            "there is no equilibrium to start from",
            found.binding,
            f"multiply all rates by less than {found.max_scale:.4g}",
            found.max_scale,
        )
    for index, (one, stage) in enumerate(zip(found.classes, stages, strict=True)):
        waiting[index] = one.in_service_per_stage or 0.0
        residents[1 : stage.count, index] = waiting[index]
    return residents, waiting
