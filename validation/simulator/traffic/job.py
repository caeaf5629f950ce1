"""A finite job: a number of requests that is run to its end, and measured as a whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FiniteJob:
    """All requests of a run are measured, from the first arrival to the last end.

    Attributes:
        at_once: Whether they all come at time 0, not at the times of the workload or recording.

    >>> import fluidwait as fw
    >>> fw.FiniteJob(at_once=True).label
    'a finite job, all at once'
    """

    at_once: bool = False

    @property
    def label(self) -> str:
        """In words."""
        return "a finite job, all at once" if self.at_once else "a finite job"
