"""Tables for rates that vary over time (THEORY 5.1): one per window of the rate profile.

The table in force depends on the clock alone, never on the load seen so far, so that there is no
hysteresis and two servers with the same clock agree. At a hand-over nothing is evicted or moved:
the next table governs admissions and batches from the next iteration on, with the residents it
finds. Under literal WAIT a stage then never holds more than the largest threshold that has been in
force (while more are there than pass on, no more come in than go out), but a surplus stays while
the class is busy. KV is therefore bounded by Σ m_j max n_j over all windows: the condition
`hand_over`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from fluid.errors import InfeasibleError
from fluid.files import FileModel
from fluid.server import Server
from fluid.stages import memory_sums
from fluid.workload import Name, RatePiece, Workload
from thresholds.overload import admission
from thresholds.problem import Problem
from thresholds.solve import solve
from thresholds.solvers.common import condition
from thresholds.table import Condition, Sha256, ThresholdTable, created_by

SCHEDULE_VERSION = "1.0"
SCHEDULE_MAJOR = SCHEDULE_VERSION.split(".")[0]


class Window(FileModel):
    """From `start_s` until `end_s` (None: for ever) `table` is in force.

    Attributes:
        multiplier: Of all rates of the workload in this window.
    """

    start_s: Annotated[float, Field(ge=0)]
    end_s: Annotated[float, Field(gt=0)] | None
    multiplier: Annotated[float, Field(ge=0)]
    table: ThresholdTable
    notes: tuple[str, ...]


class Schedule(FileModel):
    """Tables over the rate profile of a workload.

    Attributes:
        period_s: After so many seconds the first window follows the last; None: never.
        hand_over: That KV fits with the residents of all windows; None but for literal WAIT.
    """

    schedule_version: Annotated[str, Field(pattern=rf"^{SCHEDULE_MAJOR}\.\d+$")]
    created_by: str
    workload: Workload
    server: Server
    workload_sha256: Sha256
    server_sha256: Sha256
    policy: Name
    period_s: float | None
    windows: Annotated[tuple[Window, ...], Field(min_length=1)]
    hand_over: Condition | None

    def document(self) -> dict[str, Any]:
        """Plain data with every field, null where absent; workload and server as in a table."""
        windows = [
            one.model_dump(mode="json", exclude={"table"}) | {"table": one.table.document()}
            for one in self.windows
        ]
        parts = {"workload": self.workload.document(), "server": self.server.document()}
        return self.model_dump(mode="json") | parts | {"windows": windows}

    def table_at(self, clock_s: float) -> ThresholdTable:
        """The table in force at a time since the start of the profile, ≥ 0 s."""
        within_s = clock_s % self.period_s if self.period_s else clock_s
        return next(one for one in reversed(self.windows) if one.start_s <= within_s).table


def solve_schedule(problem: Problem, overload: bool = False) -> Schedule:
    """A table for each window of constant rates; neighbours with equal rates are one window.

    A window without arrivals keeps the table before it (in a period the last one).

    Args:
        overload: Where a window is unstable, solve for what `thresholds.overload` admits in it.

    Raises:
        InputError: As `solve`.
        InfeasibleError: Naming the window that is unstable, or for which no table exists.
    """
    workload, server = problem.workload, problem.server
    pieces = _merged(workload.rate_profile or (RatePiece(start_s=0.0, multiplier=1.0),))
    tables = {
        one.multiplier: _table(problem, one, overload) for one in pieces if one.multiplier > 0
    }
    ends = [*(one.start_s for one in pieces[1:]), workload.period_s]
    in_force = [tables.get(one.multiplier) for one in pieces]
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
                table=table,
                notes=_lull_notes(table, piece, end_s),
            )
        )
    return Schedule(
        schedule_version=SCHEDULE_VERSION,
        created_by=created_by(),
        workload=workload,
        server=server,
        workload_sha256=workload.sha256(),
        server_sha256=server.sha256(),
        policy=problem.policy,
        period_s=workload.period_s,
        windows=tuple(windows),
        hand_over=_hand_over(workload, server, windows) if problem.policy == "wait" else None,
    )


def constant(workload: Workload, multiplier: float) -> Workload:
    """The workload inside one window: constant rates, no profile."""
    flat = workload.model_copy(update={"rate_profile": None, "period_s": None})
    return flat.scaled(multiplier)


def _merged(pieces: tuple[RatePiece, ...]) -> list[RatePiece]:
    groups = itertools.groupby(pieces, key=lambda one: one.multiplier)
    return [next(group) for _, group in groups]


def _table(problem: Problem, piece: RatePiece, overload: bool) -> ThresholdTable:
    load = constant(problem.workload, piece.multiplier)
    try:
        return solve_admitted(problem, load) if overload else solve(_with(problem, load))
    except InfeasibleError as error:
        raise InfeasibleError(
            f"window from {piece.start_s:g} s on (multiplier {piece.multiplier:g}): "
            f"{error.args[0].split('; binding: ')[0]}",
            error.cause,
            error.nearest,
            error.max_scale,
        ) from None


def solve_admitted(problem: Problem, load: Workload) -> ThresholdTable:
    """The table for what is admitted of a load; of all of it where it is stable."""
    admitted = admission(load, problem.server)
    table = solve(_with(problem, admitted.workload))
    if all(share == 1 for share in admitted.shares.values()):
        return table
    return table.model_copy(update={"notes": (admitted.note(), *table.notes)})


def _with(problem: Problem, load: Workload) -> Problem:
    return replace(problem, workload=load)


def _hand_over(workload: Workload, server: Server, windows: list[Window]) -> Condition:
    """Σ m_j max n_j ≤ C, the maximum over all windows (0 where a class is not admitted)."""
    largest = dict.fromkeys((one.name for one in workload.classes), 0.0)
    for window in windows:
        for one in window.table.thresholds:
            largest[one.name] = max(largest[one.name], one.threshold)
    held = float(np.array(list(largest.values())) @ memory_sums(workload, server))
    return condition("memory over all hand-overs: Σ m_j max n_j ≤ C", held, server.usable_kv_tokens)


def _lull_notes(table: ThresholdTable, piece: RatePiece, end_s: float | None) -> tuple[str, ...]:
    """Bounded delay under WAIT needs n_j arrivals in bounded time (THEORY 5.1)."""
    if table.policy != "wait":
        return ()
    if piece.multiplier == 0:
        return ("nothing arrives: literal WAIT stands still, and whoever is in service waits",)
    slowest_s, name = max(
        (one.threshold / load.rate_per_s, one.name)
        for one, load in zip(table.thresholds, table.workload.classes, strict=True)
    )
    notes = [f"{name} collects its {slowest_s:.3g} s of arrivals before each stage"]
    if end_s is not None and slowest_s > end_s - piece.start_s:
        notes.append("that is longer than this window: delays are those of the windows after it")
    return tuple(notes)
