"""Stable or not, from the path of the backlog: does the work in the system grow with arrivals?

The backlog alone cannot tell: it climbs for a while on every server that starts empty, and it
wanders like a random walk near the limit. What can is the *netput*: backlog less the completions
that the server lost for want of work, X = B − μ·lost. Reflection takes the losses out of X, so that
X drifts with λ/μ − 1 per completion from the first request on, below, at and above the limit alike
(Harrison 1985, Brownian Motion and Stochastic Flow Systems, 2.2). B counts work still owed, in
requests of mean work: what a token takes of a full server, as in the fluid model (THEORY 2). A
count of requests or outputs drifts alike, but its fluctuations are several times as large. μ is
what was completed per second not lost. Three losses are certain or nearly so:

- nobody in the system: all of the time (`idle_s`);
- nobody waiting: the part of an iteration that more residents would have shared, its overhead
  f(B) − B f′(∞), less the share of memory that is taken (`room_s`), and at most the share of seats
  that stayed free where the recording shows how many there are;
- nothing running, as the rule holds requests until more have come (`held_s`), while no more wait
  than it is used to hold: a standing inventory that is bounded is no growth.

For "unstable" the loss is taken at its largest (`spare_s`), for "stable" at its least; a second
proof of stability needs no model at all: while anyone waits, or more than usual, the backlog falls.

The drift is judged by Student's t over batch means (Schmeiser 1982, Operations Research 30(3)):
batches of at least two sojourns each, so that they are nearly independent, replications pooled.
Before `LEAST_SOJOURNS` nothing counts but empty periods, and those in which a rule rests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.special import stdtrit

from validation.simulator.netput import Backlog, Floats

Word = Literal[
    "stable", "unstable", "undecided", "closed loop", "finite job", "bounded", "impatient"
]
"""A verdict; or, where the backlog cannot grow, the kind of traffic (`Traffic.word`)."""

UNSTABLE_ERROR, STABLE_ERROR = 0.01, 0.02
"""Of each one-sided test at the limit itself; far from it, and overall, they are rarer."""

MARGIN = 0.005
"""Growth per arrival below which the accounting of losses is not to be trusted."""

LEAST_SOJOURNS, EARLY_SOJOURNS = 10.0, 20.0
"""Length of a recording in mean sojourns for "stable", in early ones for "unstable"."""

FILLED_SOJOURNS = 3.0
"""After which the second half of a recording has seen a rule's standing inventory complete."""

BATCH_SOJOURNS = 2.0
LEAST_BATCHES, MOST_BATCHES = 4, 40

LEAST_ARRIVALS = 100
"""For proofs by spare capacity: an overload of 2 % would have left somebody waiting by then."""

_MANY_BATCHES = 10
"""Fewer are skewed where arrivals are bursty: "stable" is then held to the smaller error, too."""

_LEAST_MORE = 1.2
"""Longer than this by less is not worth a run."""

_WARM_UP_SOJOURNS, _WARM_UP_SHARE = 2.0, 0.2


class Recorded(Protocol):
    """What the verdict reads of a replication."""

    @property
    def path(self) -> Floats: ...

    @property
    def stuck(self) -> bool: ...


@dataclass(frozen=True)
class Verdict:
    """Whether the backlog grows.

    Attributes:
        growth_per_arrival: Requests by which the backlog would grow with each arrival if no
            capacity were lost; negative where there is some to spare. NaN where unknown.
        low, high: Its interval, wrong with `UNSTABLE_ERROR` below and `STABLE_ERROR` above.
        sojourns: Length of the recordings in mean sojourns.
        reason: Why, in one sentence.
        more_requests: Arrivals after which the question should be decided; None where it is.
        growing: Replications that are unstable on their own.
        idle_shares: Of each replication, time with nobody in the system.
    """

    word: Word
    growth_per_arrival: float
    low: float
    high: float
    sojourns: float
    reason: str
    more_requests: int | None
    growing: int
    idle_shares: tuple[float, ...]


@dataclass(frozen=True)
class Drift:
    """Growth per arrival over batches, pooled: mean, standard error, degrees of freedom."""

    mean: float
    error: float
    freedom: int

    def limit(self, sign: int) -> float:
        """Upper (1) or lower (−1) confidence limit."""
        if self.freedom < LEAST_BATCHES - 1:
            return sign * math.inf
        lenient = sign > 0 and self.freedom >= _MANY_BATCHES
        level = 1 - (STABLE_ERROR if lenient else UNSTABLE_ERROR)
        return self.mean + sign * float(stdtrit(self.freedom, level)) * self.error


def drift(batches: Sequence[Floats]) -> Drift:
    """Of the growth per arrival of each batch, by replication."""
    values = np.concatenate([np.zeros(0), *batches])
    if len(values) < 2:
        return Drift(math.nan, math.inf, 0)
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Drift(float(values.mean()), error, len(values) - 1)


def batch_growth(path: Backlog, series: Floats, sojourn_s: float | None) -> Floats:
    """Growth per arrival of `series` in batches of equal arrivals.

    Args:
        sojourn_s: Batches hold at least `BATCH_SOJOURNS` of these, after a warm-up; None for as
            many batches as there are pairs of arrivals, from the start.
    """
    first = 0
    count = min(float(MOST_BATCHES), path.arrivals / 2)
    if sojourn_s is not None:
        warm_s = min(_WARM_UP_SOJOURNS * sojourn_s, _WARM_UP_SHARE * path.duration_s)
        first = int(np.searchsorted(path.clock_s, path.clock_s[0] + warm_s))
        left_s = path.duration_s - warm_s
        count = min(count, left_s / (BATCH_SOJOURNS * sojourn_s) if sojourn_s > 0 else count)
    count = int(min(count, (len(series) - first) // 2))
    if count < LEAST_BATCHES:
        return np.zeros(0)
    edges = np.linspace(path.arrived[first], path.arrivals, count + 1)
    return np.diff(np.interp(edges, path.arrived, series)) / np.diff(edges)


def verdict(replications: Sequence[Recorded]) -> Verdict:
    """Judge independent recordings of one system together; a single one alike."""
    paths = [Backlog(one.path) for one in replications if len(one.path) > 1]
    idle = tuple(path.idle_share for path in paths)
    stuck = sum(one.stuck for one in replications)
    if stuck:
        reason = f"in {stuck} of {len(replications)} replications the rest is never completed"
        return Verdict("unstable", math.nan, math.nan, math.nan, 0.0, reason, None, stuck, idle)
    if not paths:
        return _undecided((), Drift(math.nan, math.inf, 0), 0.0, ())
    sojourns = float(np.median([path.sojourns() for path in paths]))
    rising = [_rising(path) for path in paths]
    growing = sum(limit > MARGIN for limit in _corrected(rising))
    most = drift(rising)
    if most.limit(-1) > MARGIN or growing:
        return _unstable(most, sojourns, idle, growing, len(paths))
    for evidence, margin, reason in _proofs(paths):
        found = drift(evidence)
        if found.limit(1) < -margin:
            low, high = found.limit(-1), found.limit(1)
            return Verdict("stable", found.mean, low, high, sojourns, reason, None, 0, idle)
    return _undecided(paths, _best_guess(paths, most), sojourns, idle)


def behind(replication: Recorded) -> bool:
    """Whether a recording that is long enough to tell ends with more backlog than at its middle."""
    if replication.stuck:
        return True
    path = Backlog(replication.path)
    if path.early_sojourns() < EARLY_SOJOURNS:
        return False
    quarter = len(path.columns) // 4
    return float(path.owed[-quarter:].mean()) > float(path.owed[quarter : 2 * quarter].mean())


def grows_after(columns: Floats, clock_s: float) -> bool:
    """Whether the backlog grows while anyone waits, from this time on, which a burst has begun.

    The server is full then, so that no warm-up hides anything and batches last as long as a request
    is in service, not as long as it waits.
    """
    path = Backlog(columns).since(clock_s)
    if len(path.columns) < 2:
        return False
    growth = batch_growth(path, path.while_waiting(), path.service_s())
    return drift([growth]).limit(-1) > MARGIN


def _rising(path: Backlog) -> Floats:
    """Growth where losses are taken at their largest; empty for a recording that is too short."""
    if path.early_sojourns() < EARLY_SOJOURNS:
        return np.zeros(0)
    return batch_growth(path, path.netput(path.largest_loss_s()), path.early_sojourn_s())


def _corrected(rising: Sequence[Floats]) -> list[float]:
    """Lower limits of each replication alone, for that many questions at once (Bonferroni)."""
    level = 1 - UNSTABLE_ERROR / max(1, len(rising))
    found = [drift([one]) for one in rising]
    return [
        one.mean - float(stdtrit(one.freedom, level)) * one.error
        if one.freedom >= LEAST_BATCHES - 1
        else -math.inf
        for one in found
    ]


def _proofs(paths: Sequence[Backlog]) -> list[tuple[list[Floats], float, str]]:
    """Series that fall if the system is stable, by how much at least, and what that shows."""
    enough = [path for path in paths if path.arrivals >= LEAST_ARRIVALS]
    long = [path for path in enough if path.sojourns() >= LEAST_SOJOURNS]
    filled = [path for path in enough if path.sojourns() >= FILLED_SOJOURNS]
    return [
        (
            [batch_growth(path, path.netput(path.empty_s()), None) for path in paths],
            MARGIN,
            "the system empties too often to be overloaded",
        ),
        (
            [batch_growth(path, path.netput_while_holding(), None) for path in filled],
            MARGIN,
            "the rule rests until more requests come too often to be overloaded",
        ),
        (
            [
                batch_growth(path, path.netput(path.certain_loss_s()), path.sojourn_s())
                for path in long
            ],
            MARGIN,
            "the server has capacity to spare, and the backlog does not use it up",
        ),
        (
            [batch_growth(path, path.while_waiting(), path.sojourn_s()) for path in long],
            0.0,
            "the backlog falls while anyone waits",
        ),
        (
            [batch_growth(path, path.while_above_usual(), path.sojourn_s()) for path in long],
            0.0,
            "the backlog falls whenever it is above its usual level",
        ),
    ]


def _unstable(
    most: Drift, sojourns: float, idle: tuple[float, ...], growing: int, replications: int
) -> Verdict:
    low, high = most.limit(-1), most.limit(1)
    reason = f"the backlog grows by {most.mean:.2g} requests per arrival"
    if low <= MARGIN:
        reason = f"the backlog grows in {growing} of {replications} replications"
    return Verdict("unstable", most.mean, low, high, sojourns, reason, None, growing, idle)


def _best_guess(paths: Sequence[Backlog], most: Drift) -> Drift:
    """The proof nearest to a decision, or the growth where that is nearer."""
    found = [
        one for one in map(drift, (batches for batches, _, _ in _proofs(paths))) if one.freedom
    ]
    if most.freedom and most.mean > 0:
        return most
    return min(found, key=lambda one: one.mean, default=most)


def _undecided(
    paths: Sequence[Backlog], guess: Drift, sojourns: float, idle: tuple[float, ...]
) -> Verdict:
    more = _more_requests(paths, guess)
    low, high = guess.limit(-1), guess.limit(1)
    if sojourns == 0:
        reason = "nobody has completed yet"
    elif sojourns < LEAST_SOJOURNS:
        reason = f"the recording lasts {sojourns:.2g} sojourns, and nothing less than ten can tell"
    else:
        reason = "the backlog neither grows nor falls by more than its own fluctuations"
    return Verdict("undecided", guess.mean, low, high, sojourns, reason, more, 0, idle)


def _more_requests(paths: Sequence[Backlog], guess: Drift) -> int:
    """Arrivals still needed if growth and fluctuations stay: the error falls as 1/√n.

    A recording in which nobody has completed is shorter than a sojourn. Where it is long enough but
    its growth cannot be told from none: those that would show a growth of today's error.
    """
    arrivals = sum(path.arrivals for path in paths)
    growing = guess.freedom > 0 and guess.mean > MARGIN
    lengths = [path.early_sojourns() if growing else path.sojourns() for path in paths]
    length = float(np.median(lengths or [0.0]))
    needed = EARLY_SOJOURNS / max(length, 1.0)
    if guess.error > 0 and guess.freedom and (growing or length >= LEAST_SOJOURNS):
        errors = max((abs(guess.mean) - MARGIN) / guess.error, 1.0)
        factor = float(stdtrit(max(guess.freedom, _MANY_BATCHES), 1 - UNSTABLE_ERROR))
        needed = max(needed, (factor / errors) ** 2)
    return max(math.ceil((max(needed, _LEAST_MORE) - 1) * max(arrivals, 10)), 10)
