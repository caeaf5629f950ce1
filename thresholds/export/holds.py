"""Which running requests Nested WAIT holds back in one step (THEORY 4.2, 5.3).

A running request stands at the stage of the tokens that it has generated. The literal form
("nested-wait") runs segments 1 … k, k the largest for which the entry queue of each of them holds
its threshold, with at most n_k requests of every stage; the form without waiting ("nested-cap")
lets at most n_k requests of each segment run. What a step admits comes on top of what it runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from thresholds.export.admission import Restraints


@dataclass(frozen=True)
class Holds:
    """A decision: indices of the running requests to hold, and how many new ones to admit."""

    held: tuple[int, ...]
    room: int


@dataclass
class SegmentHolds:
    """The rule, with the times at which requests reached the boundaries they wait at."""

    restraints: Restraints
    _reached: dict[str, tuple[int, float]] = field(default_factory=dict)
    _stalled_since_s: float = math.inf

    def decide(
        self,
        running: Sequence[tuple[str, int]],
        waiting: int,
        longest_wait_s: float,
        now_s: float,
    ) -> Holds:
        """The holds of one step.

        Args:
            running: Identity and generated tokens of the running requests, in order of admission.
            waiting: Requests in the external queue.
            longest_wait_s: How long the first of them has waited.
        """
        if self.restraints.gated:
            return self._gated(running, waiting, longest_wait_s, now_s)
        return self._capped(running)

    def forget(self, request: str) -> None:
        """A request has left the engine."""
        self._reached.pop(request, None)

    def _capped(self, running: Sequence[tuple[str, int]]) -> Holds:
        taken: Counter[int] = Counter()
        held = []
        for index, (_, generated) in enumerate(running):
            segment = self.restraints.segment_of(generated)
            taken[segment] += 1
            if taken[segment] > self.restraints.segment_thresholds[segment]:
                held.append(index)
        return Holds(tuple(held), max(self.restraints.segment_thresholds[0] - taken[0], 0))

    def _gated(
        self,
        running: Sequence[tuple[str, int]],
        waiting: int,
        longest_wait_s: float,
        now_s: float,
    ) -> Holds:
        restraints = self.restraints
        if waiting < restraints.segment_thresholds[0] and longest_wait_s < restraints.max_wait_s:
            return self._stalled(running, now_s)
        self._stalled_since_s = math.inf
        active = 1 + self._open_boundaries(running, now_s)
        taken: Counter[int] = Counter()
        held = []
        for index, (_, generated) in enumerate(running):
            segment = restraints.segment_of(generated)
            taken[generated] += 1
            if segment >= active or taken[generated] > restraints.segment_thresholds[segment]:
                held.append(index)
        return Holds(tuple(held), restraints.segment_thresholds[0])

    def _stalled(self, running: Sequence[tuple[str, int]], now_s: float) -> Holds:
        """Nothing runs while the first gate is closed; after max_wait_s all do, until it opens."""
        if not running:
            self._stalled_since_s = math.inf
        self._stalled_since_s = min(self._stalled_since_s, now_s)
        if now_s - self._stalled_since_s >= self.restraints.max_wait_s:
            return Holds((), 0)
        return Holds(tuple(range(len(running))), 0)

    def _open_boundaries(self, running: Sequence[tuple[str, int]], now_s: float) -> int:
        """How many boundaries in a row, from the first, let their segment run."""
        waiting: Counter[int] = Counter()
        since_s: dict[int, float] = {}
        boundaries = self.restraints.segment_ends[:-1]
        for request, generated in running:
            if generated not in boundaries:
                continue
            if self._reached.get(request, (-1, 0.0))[0] != generated:
                self._reached[request] = (generated, now_s)
            waiting[generated] += 1
            since_s[generated] = min(since_s.get(generated, now_s), self._reached[request][1])
        for index, boundary in enumerate(boundaries):
            overdue = now_s - since_s.get(boundary, now_s) >= self.restraints.max_wait_s
            if waiting[boundary] < self.restraints.segment_thresholds[index + 1] and not overdue:
                return index
        return len(boundaries)
