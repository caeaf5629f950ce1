"""One recording of the backlog, and its netput: what drifts as the load, below the limit and above.

The losses that `Backlog` knows are those of `validation.simulator.backlog`, which judges them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.simulator.state import PATH_COLUMNS

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Backlog:
    """One recording, as arrays over its samples; see `PATH_COLUMNS`."""

    columns: Floats

    def __getattr__(self, name: str) -> Floats:
        if name not in PATH_COLUMNS:
            raise AttributeError(name)
        column: Floats = self.columns[:, PATH_COLUMNS.index(name)]
        return column

    def since(self, clock_s: float) -> Backlog:
        """The recording from this time on; whoever is in the system then counts as arriving."""
        rest = self.columns[self.clock_s >= clock_s].copy()
        if len(rest):
            began = dict(zip(PATH_COLUMNS, rest[0], strict=True))
            rest[:, PATH_COLUMNS.index("arrived")] -= began["arrived"] - began["in_system"]
            work_s = began["arrived_work_s"] - began["owed_work_s"]
            rest[:, PATH_COLUMNS.index("arrived_work_s")] -= work_s
        return Backlog(rest)

    @property
    def arrivals(self) -> float:
        """Requests that have arrived at the last sample."""
        return float(self.arrived[-1]) if len(self.columns) else 0.0

    @property
    def duration_s(self) -> float:
        """From the first sample to the last."""
        return float(self.clock_s[-1] - self.clock_s[0]) if len(self.columns) else 0.0

    @property
    def idle_share(self) -> float:
        """Share of the time with nobody in the system."""
        if self.duration_s <= 0:
            return 0.0
        return float((self.idle_s[-1] - self.idle_s[0]) / self.duration_s)

    @property
    def completed(self) -> Floats:
        """Completions so far."""
        return self.arrived - self.in_system

    @property
    def owed(self) -> Floats:
        """Work owed ÷ mean work of a request."""
        mean_work_s = float(self.arrived_work_s[-1] / self.arrived[-1])
        return self.owed_work_s / mean_work_s

    @property
    def residents(self) -> Floats:
        """Requests in service."""
        return self.in_system - self.waiting

    def sojourn_s(self) -> float:
        """Mean time in the system by Little's law."""
        return self._by_little(self.in_system)

    def sojourns(self) -> float:
        """Length of the recording in these; 0 where nobody has completed."""
        return _ratio(self.duration_s, self.sojourn_s())

    def early_sojourns(self) -> float:
        """Its length in sojourns before queues grew."""
        return _ratio(self.duration_s, self.early_sojourn_s())

    def early_sojourn_s(self) -> float:
        """Before queues grow: the least that Little's law gives for any part from the start.

        A server that is overloaded from the first second on queues at once: the time in service
        is the most that it can be.
        """
        done = self.completed[1:]
        seconds = np.cumsum(self.in_system[:-1] * np.diff(self.clock_s))
        some = done > 0
        least_s = float((seconds[some] / done[some]).min()) if some.any() else math.inf
        return min(least_s, self.service_s())

    def service_s(self) -> float:
        """Mean time in service by Little's law, the waiting before it left out."""
        return self._by_little(self.residents)

    def _by_little(self, present: Floats) -> float:
        """Mean time that a request is among those present; infinite where nobody has completed."""
        done = self.completed[-1]
        seconds = float((present[:-1] * np.diff(self.clock_s)).sum())
        return seconds / done if done > 0 else math.inf

    def seats(self) -> float:
        """Most requests in service while others waited; infinite where there never were both."""
        most = float(self.residents[self.waiting > 0].max(initial=0.0))
        return most if most > 0 else math.inf

    def certain_loss_s(self) -> Floats:
        """Seconds lost so far, at the least."""
        elapsed = np.diff(self.clock_s, prepend=self.clock_s[0])
        room = np.diff(self.room_s, prepend=self.room_s[0])
        residents = np.concatenate([[0.0], self.residents[:-1]])
        free = np.maximum(1.0 - residents / self.seats(), 0.0) if len(elapsed) else elapsed
        least: Floats = self.empty_s() + np.cumsum(np.minimum(room, free * elapsed))
        return least

    def largest_loss_s(self) -> Floats:
        """Seconds lost so far, at the most."""
        most: Floats = self.empty_s() + self.holding_s() + self.spare_s - self.spare_s[0]
        return most

    def empty_s(self) -> Floats:
        """Seconds so far with nobody in the system."""
        empty: Floats = self.idle_s - self.idle_s[0]
        return empty

    @property
    def late(self) -> Backlog:
        """The second half of the arrivals, which a growing backlog has saturated."""
        return Backlog(self.columns[len(self.columns) // 2 :])

    def lost_share(self) -> float:
        """Of the work done, what was for requests that were evicted, and is done again."""
        if len(self.columns) < 2:
            return 0.0
        lost_s = float(self.lost_work_s[-1] - self.lost_work_s[0])
        kept = self.arrived_work_s - self.owed_work_s
        return _ratio(lost_s, lost_s + float(kept[-1] - kept[0]))

    def holding_s(self) -> Floats:
        """Seconds so far in which nothing ran as the rule waited for more requests."""
        holding: Floats = self.held_s - self.held_s[0]
        return holding

    def netput(self, lost_s: Floats) -> Floats:
        """Backlog less the completions lost, in requests."""
        return self.owed - self._per_s(lost_s) * lost_s

    def netput_while_holding(self) -> Floats:
        """The netput of the second half, with what is lost to emptiness and to holding back.

        That is counted only while no more wait than ever did in the first half: a rule that holds
        more and more has no capacity to spare.
        """
        half = len(self.columns) // 2
        late = np.arange(len(self.columns) - 1) >= half
        usual = self.waiting[:-1] <= self.waiting[:half].max(initial=0.0)
        empty_s, holding_s = self.empty_s(), self.holding_s()
        lost_s = np.diff(empty_s) + np.diff(holding_s) * usual
        per_s = self._per_s(empty_s + holding_s)
        return _sum(late * (np.diff(self.owed) - per_s * lost_s))

    def _per_s(self, lost_s: Floats) -> float:
        """Completions per second that was not lost."""
        busy_s = self.duration_s - float(lost_s[-1])
        return (self.arrivals - float(self.owed[-1])) / busy_s if busy_s > 0 else 0.0

    def while_waiting(self) -> Floats:
        """Sum of the changes of the backlog from moments at which somebody waits."""
        return self._changes_where(self.waiting > 0)

    def while_above_usual(self) -> Floats:
        """The same for the second half, where more wait than the median of the first half.

        Some rules always hold requests back. The level is fixed before it is used, so that at the
        limit the sum is a martingale.
        """
        half = len(self.columns) // 2
        above = self.waiting > np.median(self.waiting[:half])
        above[:half] = False
        return self._changes_where(above)

    def _changes_where(self, chosen: NDArray[np.bool_]) -> Floats:
        return _sum(np.diff(self.owed) * chosen[:-1])


def _sum(changes: Floats) -> Floats:
    """Running sum from 0."""
    return np.concatenate([[0.0], np.cumsum(changes)])


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else math.inf if top > 0 else 0.0
