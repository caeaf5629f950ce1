"""What every solver of thresholds is: options, and one way from a load to a table."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium, equilibrium
from fluid.workload import Workload
from thresholds.evaluator import Evaluator
from thresholds.export.engines import engine_flags
from thresholds.export.view import TableView
from thresholds.prediction import with_prediction
from thresholds.solvers.common import rounded_down
from thresholds.solvers.rule import Rule
from thresholds.table import ThresholdTable


@dataclass(frozen=True)
class Solver(ABC):
    """A rule of admission with the options of its solver, which are checked when it is made.

    A subclass is a frozen dataclass whose fields are the options.

    Attributes:
        policy: Name of the policy that its tables set.
        rule: What its tables mean.
        keeps: Statistics of the classes' objectives that are among its constraints.
        needs_rising: Whether its proofs need an iteration time that never falls as the batch grows.
    """

    policy: ClassVar[str]
    rule: ClassVar[Rule]
    keeps: ClassVar[tuple[str, ...]] = ()
    needs_rising: ClassVar[bool] = True

    def solve(
        self, workload: Workload, server: Server, evaluator: Evaluator | None = None
    ) -> ThresholdTable:
        """The table for a load, at its mean rates where they vary.

        Args:
            evaluator: Simulates settings, for solvers that refine on a simulator.

        Raises:
            InputError: A request that does not fit into the cache, or an option that does not suit
                the load.
            InfeasibleError: The workload is unstable (THEORY 2.1–2.3), or no table satisfies the
                conditions; with the binding cause and the nearest feasible change.
        """
        found = equilibrium(workload, server)
        if not found.stable:
            raise _unstable(workload, server, found)
        proved = _never_falling(server) if self.needs_rising else server
        table = self._table(workload, proved, found, evaluator)
        if proved is not server:
            own = {"server": server, "server_sha256": server.sha256()}
            table = table.model_copy(update={**own, "notes": (_FALLS, *table.notes)})
        table = with_prediction(table)
        notes = (*self._slo_notes(workload), *_queue_notes(table), *table.notes)
        return table.model_copy(update={"notes": notes, "engine_flags": engine_flags(table)})

    def in_step(self, tables: Sequence[ThresholdTable]) -> Iterator[Solver]:
        """Ways of solving so that tables of several loads can follow each other, if need be.

        Args:
            tables: What this solver finds for each load by itself.
        """
        return iter(())

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(one.name for one in fields(cls))

    @abstractmethod
    def _table(
        self,
        workload: Workload,
        server: Server,
        found: Equilibrium,
        evaluator: Evaluator | None,
    ) -> ThresholdTable:
        """The table of a stable load, without engines' flags; `found` is its equilibrium."""

    def _slo_notes(self, workload: Workload) -> tuple[str, ...]:
        """An objective that is not among the constraints must not look as if it were."""
        names = [
            one.name
            for one in workload.classes
            if one.slo is not None and one.slo.quantile not in self.keeps
        ]
        if workload.slo is not None:
            names.append("the workload")
        if not names:
            return ()
        return (
            f"the slo of {', '.join(names)} is no constraint of this solver: check it by replay",
        )


def _queue_notes(table: ThresholdTable) -> tuple[str, ...]:
    """What may wait above capacity, where there is a limit of TTFT."""
    queue = TableView(table).queue
    return () if queue is None else (f"above capacity: {queue.sentence.rstrip('.')}",)


_FALLS = (
    "the iteration time falls after jumps: thresholds hold for the least one above it that never "
    "does, and so for it"
)


def _never_falling(server: Server) -> Server:
    """The server with the least iteration time above its own that never falls, or itself."""
    tau = server.iteration_time
    return server if tau.rising is tau else server.model_copy(update={"iteration_time": tau.rising})


def _unstable(workload: Workload, server: Server, found: Equilibrium) -> InfeasibleError:
    nearest = f"multiply all rates by at most {rounded_down(found.max_scale)}"
    if found.kv_tokens is not None and found.limit_share == 0:
        block = server.block_tokens
        needed = math.ceil(found.kv_tokens / block) * block
        nearest += f", or raise kv_capacity_tokens to at least {needed}"
    nearest += ", or admit a part of the load (overload)"
    return InfeasibleError(
        f"workload {workload.name} is unstable on server {server.name} "
        f"({1 / found.max_scale:.4g} times what it carries)",
        found.binding,
        nearest,
        found.max_scale,
    )
