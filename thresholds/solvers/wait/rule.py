"""What a table of literal WAIT means, also where it follows another one (THEORY 5.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fluid.server import Server
from fluid.stages import memory_sums
from fluid.workload import RatePiece, Workload
from thresholds.fields import Condition, TableFields
from thresholds.solvers.certificate import condition
from thresholds.solvers.rule import Rule
from thresholds.solvers.wait.batch import full_batch


class WaitRule(Rule):
    """n_j requests of a class are collected, then one stage serves them at once.

    No serving system follows it: none can tell classes that differ in their output lengths.
    """

    policy = "wait"
    whole = True
    meaning = "requests of the class that one stage serves at once"

    def hand_over(
        self, workload: Workload, server: Server, tables: Sequence[TableFields]
    ) -> Condition:
        """Σ m_j max n_j ≤ C, the maximum over all tables (0 where a class is not admitted)."""
        largest = dict.fromkeys((one.name for one in workload.classes), 0.0)
        for table in tables:
            for one in table.thresholds:
                largest[one.name] = max(largest[one.name], one.threshold)
        held = float(np.array(list(largest.values())) @ memory_sums(workload, server))
        text = "memory over all hand-overs: Σ m_j max n_j ≤ C"
        return condition(text, held, server.usable_kv_tokens)

    def arrivals_at_hand_overs(
        self, server: Server, tables: Sequence[TableFields], is_periodic: bool
    ) -> Condition | None:
        """A_j(t, ΔT) < n_j in an iteration that the hand-over falls into.

        None where a class is admitted in some windows only.
        """
        names = [[one.name for one in table.thresholds] for table in tables]
        if len(tables) == 1 or any(one != names[0] for one in names):
            return None
        pairs = [*itertools.pairwise(tables), *([(tables[-1], tables[0])] if is_periodic else [])]
        worst = 0.0
        for before, after in pairs:
            n = np.array([float(one.threshold) for one in before.thresholds])
            for table in (before, after):
                worst = max(worst, float(full_batch(table.workload, server).loads(n).max()))
        text = "arrivals over all hand-overs: A_j(t, ΔT) < n_j"
        return condition(text, worst, 1.0, strict=True)

    def lull_notes(
        self, table: TableFields, piece: RatePiece, end_s: float | None
    ) -> tuple[str, ...]:
        """Bounded delay needs n_j arrivals in bounded time."""
        if piece.multiplier == 0:
            return ("nothing arrives: literal WAIT stands still, and whoever is in service waits",)
        slowest_s, name = max(
            (one.threshold / load.rate_per_s, one.name)
            for one, load in zip(table.thresholds, table.workload.classes, strict=True)
        )
        notes = [f"{name} collects its {slowest_s:.3g} s of arrivals before each stage"]
        if end_s is not None and slowest_s > end_s - piece.start_s:
            notes.append(
                "that is longer than this window: delays are those of the windows after it"
            )
        return tuple(notes)
