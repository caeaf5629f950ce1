"""The watcher on a clock: every so often a scrape, for ever or for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fluid.errors import InputError
from validation.live.scrape import Source
from validation.live.step import Step
from validation.live.watcher import Watcher

HOUR_S = 3600.0

PATIENCE_S = 300.0
"""How long `once` waits for a newer scrape: as long as a Prometheus keeps its last sample."""


@dataclass
class Loop:
    """A source, read again and again.

    Attributes:
        once: End after the first window, and refuse a source that gives no newer scrape within
            `PATIENCE_S` and four intervals.
        duration_s: End after so long; None for never.
        clock, sleep: Those of the machine.
    """

    source: Source
    watcher: Watcher
    interval_s: float = 15.0
    once: bool = False
    duration_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if not 0.1 <= self.interval_s <= HOUR_S:
            raise InputError("interval_s", self.interval_s, f"seconds from 0.1 to {HOUR_S:g}")
        if self.duration_s is not None and not self.duration_s > 0:
            raise InputError("duration_s", self.duration_s, "seconds above 0")

    def steps(self) -> Iterator[Step]:
        """One look after another; what goes wrong after the first is a step as well.

        Raises:
            InputError: At the first look, or with `once` at any.
        """
        start_s = self.clock()
        patience_s = max(PATIENCE_S, 4 * self.interval_s)
        yield self.watcher.step(self.source.read())
        turn = 0
        while True:
            turn += 1
            due_s = start_s + turn * self.interval_s
            if self.duration_s is not None and due_s > start_s + self.duration_s:
                return
            self.sleep(max(due_s - self.clock(), 0.0))
            # A look that took longer than the interval is no reason to look twice at once.
            turn = max(turn, int((self.clock() - start_s) / self.interval_s))
            try:
                step = self.watcher.step(self.source.read())
            except InputError as error:
                if self.once:
                    raise
                step = Step(time.time(), "trouble", str(error), table=self.watcher.table)
            yield step
            if self.once and step.status != "waiting":
                return
            if self.once and self.clock() - start_s > patience_s:
                allowed = f"metrics that are written again within {patience_s:g} s"
                raise InputError("metrics", "the same scrape", allowed)


class Sayings:
    """What is worth a line: another status, a new table, and trouble at most once an hour."""

    def __init__(self) -> None:
        self._status = ""
        self._said_at_s: dict[str, float] = {}

    def worth_saying(self, step: Step, now_s: float) -> bool:
        """Whether this step is told."""
        before, self._status = self._status, step.status
        if step.status in ("written", "would write"):
            return True
        if step.status not in ("trouble", "kept"):
            return step.status != before
        last_s = self._said_at_s.get(step.status)
        if last_s is not None and now_s - last_s < HOUR_S:
            return False
        self._said_at_s[step.status] = now_s
        return True
