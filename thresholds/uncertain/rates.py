"""What rates may be: near the given ones, of another mix, or what a recording tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.server import Server
from fluid.stages import memory_sums
from fluid.workload import Workload
from thresholds.checks import is_number
from thresholds.solvers.common import rounded_down, rounded_up
from thresholds.uncertain.gamma_sums import ratio_quantile, sum_quantile
from thresholds.uncertain.worst import at_rates, by_length, chain_load, largest_mean, load_weights

Floats = NDArray[np.float64]

_NESTED = ("nested-wait", "nested-cap")
_LEAST_REQUESTS = 10

_ALL = 1 - 1e-9
"""Share that outlives a boundary where all may: rates of those that end there stay above 0."""


class RateUncertainty(ABC):
    """What the rates of a load may be, for solvers of thresholds that have to hold for all of it.

    A subclass is a frozen dataclass; `size` is how uncertain the rates are, 0 for not at all.
    """

    @abstractmethod
    def worst(self, policy: str, workload: Workload, server: Server) -> Workload:
        """The load at which the policy's conditions are hardest.

        Raises:
            InputError: This policy's conditions are not known to hold anywhere else then.
        """

    @abstractmethod
    def largest_mean_memory(self, workload: Workload, server: Server) -> float:
        """Largest token·iterations of a mean request, over all mixes that the rates may have."""

    @abstractmethod
    def words(self, workload: Workload) -> str:
        """What a table holds for, in words that go on after "holds"."""

    @property
    @abstractmethod
    def size(self) -> float:
        """How uncertain the rates are, from 0 on."""

    @abstractmethod
    def of_size(self, size: float) -> Self:
        """The same kind of uncertainty of another size."""

    @abstractmethod
    def size_words(self, size: float) -> str:
        """An allowed size, in words."""


@dataclass(frozen=True)
class RateBox(RateUncertainty):
    """Each rate lies within a share of the given one; all of them deviate, or only a few.

    Attributes:
        share: u: λ_j between (1 − u) and (1 + u) times the given rate.
        classes: Γ: the deviations, in units of u, add up to so many at most (a budget); None for
            no such limit (a box).

    Raises:
        InputError: A share that is negative or not below 1, or a budget that is not above 0.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, 64, 20), code=fw.Requests(1.0, 256, 60))
    >>> table = fw.solve(load, fw.Server.named("paper-lmsys"), uncertainty=fw.RateBox(0.2))
    >>> round(table.workload.rate_per_s, 9), table.notes[0][:45]
    (6.0, 'holds for all rates within 20 % of the given ')
    """

    share: float
    classes: float | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.share) and 0 <= self.share < 1):
            raise InputError("share", self.share, "0 or more and below 1, as 0.2 for 20 %")
        if self.classes is not None and not (is_number(self.classes) and self.classes > 0):
            raise InputError("classes", self.classes, "a number of classes above 0, or none")

    def worst(self, policy: str, workload: Workload, server: Server) -> Workload:
        rates = workload.rates_per_s
        if policy in _NESTED:
            return self._chain(policy, workload)
        up = np.ones(len(rates))
        if self.classes is not None:
            # Drift of literal WAIT asks one class at a time, the practical table the sum of all.
            up *= min(1.0, self.classes)
            if policy == "paced":
                up = self._spent(rates * load_weights(workload, server), self.classes)
        return at_rates(workload, rates * (1 + self.share * up))

    def _chain(self, policy: str, workload: Workload) -> Workload:
        """Λ_1 at its most, and each p_k: those above at their most, those that end at their least.

        No single corner: each condition has one of its own.
        """
        if self.classes is not None:
            raise InputError("classes", self.classes, f"none for policy {policy}: a box")
        nominal = by_length(workload, workload.rates_per_s)
        above = np.cumsum(nominal[::-1])[::-1]
        most = (1 + self.share) * above
        survivals = most[1:] / (most[1:] + (1 - self.share) * nominal[:-1])
        return chain_load(workload, float(most[0]), survivals)

    @staticmethod
    def _spent(worth: Floats, budget: float) -> Floats:
        """Shares between 0 and 1 that spend a budget where it is worth most, shape (m,)."""
        up = np.zeros(len(worth))
        order = np.argsort(-worth)
        up[order] = np.clip(budget - np.arange(len(worth)), 0.0, 1.0)
        return up

    def largest_mean_memory(self, workload: Workload, server: Server) -> float:
        rates = workload.rates_per_s
        sums = memory_sums(workload, server)
        return largest_mean(sums, (1 - self.share) * rates, (1 + self.share) * rates)

    def words(self, workload: Workload) -> str:
        budget = ""
        if self.classes is not None:
            budget = f", their deviations together those of {self.classes:g} classes at most"
        return f"for all rates within {100 * self.share:g} % of the given ones{budget}"

    @property
    def size(self) -> float:
        return self.share

    def of_size(self, size: float) -> RateBox:
        return replace(self, share=size)

    def size_words(self, size: float) -> str:
        return f"a rate uncertainty of at most {rounded_down(size) if size else 0:g}"


@dataclass(frozen=True)
class RateMix(RateUncertainty):
    """The total rate is known, the mix is not: whole, or a share of it.

    Attributes:
        share: s: the mix is 1 − s of the given one and s of any other; 1 for any mix at all.

    Raises:
        InputError: A share that is not between 0 and 1. `solve` raises it too for the practical
            table on a server whose f is not affine.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(40.0, 64, 20), code=fw.Requests(10.0, 64, 60))
    >>> table = fw.solve(load, fw.Server.named("paper-lmsys"), uncertainty=fw.RateMix(0.5))
    >>> table.notes[0][:40]
    'holds for all mixes of which 50 % is the'
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        if not (is_number(self.share) and 0 <= self.share <= 1):
            raise InputError("share", self.share, "0 to 1, as 0.2 for 20 %, or 1 for any mix")

    def worst(self, policy: str, workload: Workload, server: Server) -> Workload:
        rates, total = workload.rates_per_s, workload.rate_per_s
        if policy in _NESTED:
            return self._all_longest(workload)
        if policy != "paced":
            # Drift of literal WAIT asks one class at a time: each at its most.
            return at_rates(workload, (1 - self.share) * rates + self.share * total)
        if not server.iteration_time.is_affine:
            raise InputError("iteration_time", "f that is not affine", "affine f for any mix")
        weights = load_weights(workload, server)
        given = float(weights @ rates)
        most = (1 - self.share) * given + self.share * total * float(weights.max())
        return at_rates(workload, rates * (most / given))

    def _all_longest(self, workload: Workload) -> Workload:
        """Each p_k is largest where all that is unknown has the longest output."""
        nominal = by_length(workload, workload.rates_per_s)
        above = np.cumsum(nominal[::-1])[::-1]
        above = (1 - self.share) * above + self.share * above[0]
        survivals = np.minimum(above[1:] / above[:-1], _ALL)
        return chain_load(workload, float(above[0]), survivals)

    def largest_mean_memory(self, workload: Workload, server: Server) -> float:
        sums = memory_sums(workload, server)
        given = float(workload.rates_per_s @ sums) / workload.rate_per_s
        return (1 - self.share) * given + self.share * float(sums.max())

    def words(self, workload: Workload) -> str:
        known = f" of which {100 * (1 - self.share):g} % is the given one" if self.share < 1 else ""
        return f"for all mixes{known}, at the given total rate"

    @property
    def size(self) -> float:
        return self.share

    def of_size(self, size: float) -> RateMix:
        return replace(self, share=size)

    def size_words(self, size: float) -> str:
        return f"a mix of which a share of at most {rounded_down(size) if size else 0:g} is unknown"


@dataclass(frozen=True)
class RatePosterior(RateUncertainty):
    """Rates as a recording tells them: Gamma laws about the counts, the mix a Dirichlet law.

    The workload says how long its rates were counted (`observed_s`).

    Attributes:
        miss_probability: ε: the table holds for the true rates with probability 1 − ε at least.

    Raises:
        InputError: A probability that is not between 0 and 1. `solve` raises it too for a workload
            that does not say how long it was recorded, or holds fewer than 10 requests.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=64, output=20))
    >>> load = load.changed(observed_s=600.0)
    >>> found = fw.RatePosterior(0.05).worst("wait", load, fw.Server.named("paper-lmsys"))
    >>> round(found.rate_per_s, 2)
    4.14
    """

    miss_probability: float = 0.05

    def __post_init__(self) -> None:
        if not (is_number(self.miss_probability) and 0 < self.miss_probability < 1):
            allowed = "a probability above 0 and below 1"
            raise InputError("miss_probability", self.miss_probability, allowed)

    def shapes(self, workload: Workload) -> Floats:
        """Counts and Jeffreys' ½, the shapes of the rates' Gamma laws, shape (m,)."""
        return workload.rates_per_s * self.seconds(workload) + 0.5

    def seconds(self, workload: Workload) -> float:
        """T, how long the rates were counted.

        Raises:
            InputError: The workload does not say, or too little came.
        """
        seconds = workload.observed_s
        if seconds is None:
            allowed = "seconds over which the rates were counted, as `workload from-trace` writes"
            raise InputError("observed_s", "nothing", allowed)
        if workload.rate_per_s * seconds < _LEAST_REQUESTS:
            allowed = f"long enough for {_LEAST_REQUESTS} requests at least"
            raise InputError("observed_s", seconds, allowed)
        return seconds

    def worst(self, policy: str, workload: Workload, server: Server) -> Workload:
        if policy == "paced":
            return self._scaled(workload, server)
        each = (1 - self.miss_probability) ** (1 / self._events(policy, workload))
        return self.at_level(policy, workload, each)

    def at_level(self, policy: str, workload: Workload, level: float) -> Workload:
        """Each rate at this quantile of its law; of Nested WAIT Λ_1 and each p_k."""
        from scipy.special import betaincinv, gammaincinv

        shapes, seconds = self.shapes(workload), self.seconds(workload)
        if policy not in _NESTED:
            return at_rates(workload, gammaincinv(shapes, level).astype(float) / seconds)
        ends = by_length(workload, shapes)
        above = np.cumsum(ends[::-1])[::-1]
        survivals = betaincinv(above[1:], ends[:-1], level).astype(float)
        return chain_load(workload, float(gammaincinv(above[0], level)) / seconds, survivals)

    def _events(self, policy: str, workload: Workload) -> int:
        """How many independent quantities the policy's conditions depend on.

        Of a Dirichlet mix p_2, p_3, … and the sum of all rates are independent.
        """
        if policy in _NESTED:
            return len(np.unique(workload.columns.decode_tokens))
        return len(workload.classes)

    def _scaled(self, workload: Workload, server: Server) -> Workload:
        """All rates times the factor by which Σ λ_j a_j may exceed the given one."""
        shapes, seconds = self.shapes(workload), self.seconds(workload)
        weights = load_weights(workload, server)
        most = sum_quantile(weights, shapes, 1 - self.miss_probability / 2) / seconds
        rates = workload.rates_per_s
        return at_rates(workload, rates * (most / float(weights @ rates)))

    def largest_mean_memory(self, workload: Workload, server: Server) -> float:
        sums = memory_sums(workload, server)
        return ratio_quantile(sums, self.shapes(workload), 1 - self.miss_probability / 2)

    def words(self, workload: Workload) -> str:
        requests, seconds = workload.rate_per_s * self.seconds(workload), self.seconds(workload)
        return (
            f"with probability {100 * (1 - self.miss_probability):g} % at least, by what "
            f"{requests:,.0f} requests in {seconds:,.0f} s tell of the rates (Poisson streams)"
        )

    @property
    def size(self) -> float:
        return 1 - self.miss_probability

    def of_size(self, size: float) -> RatePosterior:
        return replace(self, miss_probability=1 - size)

    def size_words(self, size: float) -> str:
        return f"a miss probability of at least {rounded_up(1 - size):g}"
