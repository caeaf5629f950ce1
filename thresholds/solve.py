"""The one entry point to all threshold solvers: a table, or one per window of a rate profile."""

from __future__ import annotations

import itertools

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.workload import RatePiece, Workload
from thresholds.evaluator import Evaluator
from thresholds.fields import created_by
from thresholds.overload import admission
from thresholds.schedule import SCHEDULE_VERSION, Schedule, Window
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable
from thresholds.uncertain.rates import RateUncertainty
from thresholds.uncertain.solve import solve_uncertain


def solve(
    workload: Workload,
    server: Server,
    solver: Solver | None = None,
    *,
    evaluator: Evaluator | None = None,
    overload: bool = False,
    uncertainty: RateUncertainty | None = None,
) -> ThresholdTable | Schedule:
    """Thresholds for a load: a table, or a `Schedule` where the workload has a rate profile.

    Args:
        solver: `Paced` (the practical form, which is taken unless told), `Wait`, `NestedWait` or
            `NestedCap`, with its options.
        evaluator: Simulates settings, for solvers that refine on a simulator.
        overload: Where the load is above capacity, solve for the part of it that is worth most
            (`thresholds.overload.admission`).
        uncertainty: What the rates may be, if they are not known: the table holds for all of it.

    Raises:
        InputError: A request that does not fit into the cache, an option that does not suit the
            load, or a budget without an evaluator.
        InfeasibleError: The workload is unstable (THEORY 2.1–2.3), or no table of this policy
            satisfies its conditions; with the binding cause and the nearest feasible change. In a
            profile it names the window.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=64, output=20))
    >>> table = fw.solve(load, fw.Server.named("paper-lmsys"), fw.Wait(objective="memory"))
    >>> table.policy, table.memory.required_tokens
    ('wait', 1554.0)
    """
    if overload and uncertainty is not None:
        raise InputError(
            "uncertainty", uncertainty, "none with overload: what is admitted is given"
        )
    job = _Job(server, solver or Paced(), evaluator, overload, uncertainty)
    return job.table(workload) if workload.rate_profile is None else job.schedule(workload)


def constant(workload: Workload, piece: RatePiece) -> Workload:
    """The workload inside one window: constant rates, no profile."""
    classes = tuple(
        one.model_copy(update={"rate_per_s": one.rate_per_s * piece.factor(one.name)})
        for one in workload.classes
    )
    flat = {"rate_profile": None, "period_s": None, "classes": classes}
    return workload.model_copy(update=flat)


class _Job:
    """One way of solving, for one load or many."""

    def __init__(
        self,
        server: Server,
        solver: Solver,
        evaluator: Evaluator | None,
        overload: bool,
        uncertainty: RateUncertainty | None,
    ) -> None:
        self.server, self.solver = server, solver
        self.evaluator, self.overload, self.uncertainty = evaluator, overload, uncertainty

    def table(self, load: Workload) -> ThresholdTable:
        """The table for a load of constant rates, or for what is admitted of it."""
        if self.uncertainty is not None:
            return solve_uncertain(load, self.server, self.solver, self.uncertainty)
        if not self.overload:
            return self.solver.solve(load, self.server, self.evaluator)
        admitted = admission(load, self.server)
        table = self.solver.solve(admitted.workload, self.server, self.evaluator)
        if admitted.is_whole:
            return table
        return table.model_copy(update={"notes": (admitted.sentence, *table.notes)})

    def schedule(self, workload: Workload) -> Schedule:
        """A table for each window of constant rates; neighbours with equal rates are one window.

        A window without arrivals keeps the table before it (in a period the last one).
        """
        assert workload.rate_profile is not None
        pieces = _merged(workload.rate_profile)
        tables = self._in_step(workload, pieces)
        ends = [*(one.start_s for one in pieces[1:]), workload.period_s]
        in_force = [tables.get(_rates_of(one)) for one in pieces]
        if in_force[0] is None:
            before = in_force if workload.period_s else in_force[::-1]
            in_force[0] = next(table for table in reversed(before) if table is not None)
        windows: list[Window] = []
        for piece, end_s, found in zip(pieces, ends, in_force, strict=True):
            table = found or windows[-1].table
            windows.append(
                Window(
                    start_s=piece.start_s,
                    end_s=end_s,
                    multiplier=piece.multiplier,
                    class_multipliers=piece.class_multipliers,
                    table=table,
                    notes=self.solver.rule.lull_notes(table, piece, end_s),
                )
            )
        rule, in_turn = self.solver.rule, [one.table for one in windows]
        return Schedule(
            schedule_version=SCHEDULE_VERSION,
            created_by=created_by(),
            workload=workload,
            server=self.server,
            workload_sha256=workload.sha256(),
            server_sha256=self.server.sha256(),
            policy=self.solver.policy,
            period_s=workload.period_s,
            windows=tuple(windows),
            hand_over=rule.hand_over(workload, self.server, in_turn),
            arrivals=rule.arrivals_at_hand_overs(
                self.server, in_turn, workload.period_s is not None
            ),
        )

    def _in_step(self, workload: Workload, pieces: list[RatePiece]) -> dict[_Rates, ThresholdTable]:
        """The table of each kind of window, such that they can follow each other if possible."""
        kinds = {_rates_of(one): one for one in pieces if one.multiplier > 0}
        tables = {key: self._window_table(workload, one) for key, one in kinds.items()}
        for solver in self.solver.in_step(list(tables.values())):
            job = _Job(self.server, solver, self.evaluator, self.overload, self.uncertainty)
            try:
                return {key: job._window_table(workload, one) for key, one in kinds.items()}
            except (InfeasibleError, InputError):
                continue
        return tables

    def _window_table(self, workload: Workload, piece: RatePiece) -> ThresholdTable:
        try:
            return self.table(constant(workload, piece))
        except InfeasibleError as error:
            raise InfeasibleError(
                f"window from {piece.start_s:g} s on (multiplier {piece.multiplier:g}): "
                f"{error.args[0].split('; binding: ')[0]}",
                error.cause,
                error.nearest,
                error.max_scale,
            ) from None


_Rates = tuple[float, tuple[tuple[str, float], ...]]


def _rates_of(piece: RatePiece) -> _Rates:
    """What two windows with the same table have in common."""
    return piece.multiplier, tuple(sorted((piece.class_multipliers or {}).items()))


def _merged(pieces: tuple[RatePiece, ...]) -> list[RatePiece]:
    groups = itertools.groupby(pieces, key=_rates_of)
    return [next(group) for _, group in groups]
