"""What the bench knows of a statement: its claim, an experiment that can refute it, its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from validation.policies import Policy

Floats = NDArray[np.float64]
Size = TypeVar("Size")

LEVEL = 0.9999
"""Confidence level of every interval on which a verdict rests."""


@dataclass(frozen=True)
class Effort:
    """How much is simulated: "quick" is part of the test suite, "full" is for the record.

    Attributes:
        threads: Of the CPU; all of its cores if None.
    """

    name: Literal["quick", "full"] = "full"
    seed: int = 0
    threads: int | None = None

    def choose(self, quick: Size, full: Size) -> Size:
        """The size that belongs to this effort."""
        return quick if self.name == "quick" else full


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval at LEVEL, of no width where the figure is exact."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def is_exact(self) -> bool:
        """Whether nothing random went into it."""
        return self.low == self.high


@dataclass(frozen=True)
class Measure:
    """A measured figure and what was expected of it.

    Attributes:
        would_see: Where the interval need only contain a stated figure, which no width of it
            proves: the deviation that would have failed in 99 of 100 repetitions. None where the
            whole interval must lie in what is expected, so that anything else is excluded at LEVEL,
            and where nothing random is involved.
    """

    name: str
    found: Estimate
    expected: str
    holds: bool
    would_see: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a number that does not exist is null."""
        numbers = {
            key: one if math.isfinite(one) else None for key, one in asdict(self.found).items()
        }
        return {
            "name": self.name,
            **numbers,
            "expected": self.expected,
            "holds": self.holds,
            "would_see": self.would_see,
        }


@dataclass(frozen=True)
class Line:
    """One series of a plot, arrays of shape (points,).

    Attributes:
        low, high: Ends of the intervals of measured points; None draws a plain line.
    """

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class Plot:
    """What a statement's picture shows.

    Attributes:
        names: Labels of x = 0, 1, … where the points stand for things, not for numbers.
    """

    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What came out of one experiment."""

    measures: tuple[Measure, ...]
    plot: Plot

    @property
    def holds(self) -> bool:
        """Whether every measure is as expected."""
        return all(one.holds for one in self.measures)


Policies = Mapping[str, Policy]
Experiment = Callable[[Effort, Policies], Finding]


@dataclass(frozen=True)
class Statement:
    """A statement of THEORY with its experiment.

    Attributes:
        key: Short name, unique.
        theory: Section, such as "3.3".
        claim: What is tested, in one or two sentences.
        tried: On what.
        run: Function of an effort and the registry of policies, in which a test may break one.
    """

    key: str
    theory: str
    claim: str
    tried: str
    run: Experiment
