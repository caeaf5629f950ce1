"""Arrival processes: when requests come, and of which shape.

Every process is laid out at the workload's mean rate in *rate time*, the integral of the rate
profile's multipliers, and then mapped to the clock by inverting that integral. For Poisson
arrivals this is the exact non-homogeneous process. Sojourn times of `mmpp` are in rate time too.
All draws are functions of (seed, replication, request, purpose, attempt): adding a burst or a rate
profile leaves the underlying stream as it was. Where the mix varies too, a request is of a shape by
the mix at its time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError, not_a_name
from fluid.workload import RatePiece, Workload
from validation.simulator.compiling import called_kernel, inlined, kernel
from validation.simulator.rng import PURPOSE_ARRIVAL, two_uniforms

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

POISSON, GAMMA, DETERMINISTIC, MMPP, POISSON_CLIPPED = range(5)

KINDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "poisson": (POISSON, ()),
    "gamma": (GAMMA, ("cv",)),
    "deterministic": (DETERMINISTIC, ()),
    "mmpp": (MMPP, ("ratio", "mean_s", "slow_mean_s")),
    "poisson-clipped": (POISSON_CLIPPED, ()),
}
"""Number of each process and the parameters that it has beside those of the burst."""

CLIP = 3.0
"""Longest gap of `poisson-clipped` in mean gaps: the rate is 1/(1 − e⁻³) of the nominal one."""

BURST_PARAMETERS = ("burst", "burst_at_s")

ARRIVALS = np.dtype(
    [
        ("kind", "i8"),
        ("cv", "f8"),
        ("fast_factor", "f8"),  # rate of the fast state ÷ mean rate
        ("slow_factor", "f8"),
        ("fast_mean_s", "f8"),  # mean sojourn in the fast state
        ("slow_mean_s", "f8"),
        ("burst_requests", "i8"),
        ("burst_at_s", "f8"),
        ("period_s", "f8"),  # of the rate profile; 0 where it does not repeat
        ("period_integral_s", "f8"),  # rate time of one period
    ],
    align=True,
)

PIECE = np.dtype(
    [
        ("start_s", "f8"),
        ("multiplier", "f8"),
        ("integral_s", "f8"),  # rate time up to its start
        ("share_cumulative", "f8"),  # in this piece, probability of this shape or an earlier one
    ],
    align=True,
)
"""A piece of the rate profile and a shape; all but the share are the same for every shape."""

_GAMMA_NORMAL, _GAMMA_ACCEPT = np.uint64(16), np.uint64(17)
_FIRST_STATE, _SOJOURN, _BURST = np.uint64(18), np.uint64(19), np.uint64(20)
_ATTEMPT_SHIFT = np.uint64(8)


@dataclass(frozen=True)
class Arrivals:
    """How requests arrive, at the mean rate of the workload.

    Attributes:
        kind: A name in KINDS.
        cv: Coefficient of variation of the gamma distributed gaps, ordinary renewal from time 0.
        ratio: Rate of the fast state ÷ rate of the slow state, stationary at time 0.
        mean_s: Mean sojourn in the fast state, seconds.
        slow_mean_s: The same of the slow state; that of the fast state where None.
        burst: Requests, with the workload's mix, that come all at once beside the others.
        burst_at_s: When they come; ahead of a request that arrives at the same instant.

    Raises:
        InputError: An unknown kind or a value out of range.
    """

    kind: str = "poisson"
    cv: float = 1.0
    ratio: float = 5.0
    mean_s: float = 30.0
    slow_mean_s: float | None = None
    burst: int = 0
    burst_at_s: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("arrivals", self.kind, "one of " + ", ".join(KINDS))
        slow_mean_s = self.mean_s if self.slow_mean_s is None else self.slow_mean_s
        for name, value, fine, allowed in (
            ("cv", self.cv, 0.01 <= self.cv <= 100, "a number from 0.01 to 100"),
            ("ratio", self.ratio, 1 <= self.ratio < math.inf, "a finite number ≥ 1"),
            ("mean_s", self.mean_s, 0 < self.mean_s < math.inf, "finite seconds > 0"),
            ("slow_mean_s", slow_mean_s, 0 < slow_mean_s < math.inf, "finite seconds > 0"),
            ("burst", self.burst, self.burst >= 0, "a whole number of requests ≥ 0"),
            ("burst_at_s", self.burst_at_s, 0 <= self.burst_at_s < math.inf, "finite seconds ≥ 0"),
        ):
            if not fine:
                raise InputError(f"arrivals {self.kind}: {name}", value, allowed)

    @property
    def rate_factor(self) -> float:
        """Requests that arrive ÷ nominal rate, bursts aside: above 1 where gaps are clipped."""
        return 1 / (1 - math.exp(-CLIP)) if self.kind == "poisson-clipped" else 1.0

    @property
    def label(self) -> str:
        """Kind and the parameters that differ from their defaults, as `parse_arrivals` reads."""
        shown = [
            f"{one.name}={getattr(self, one.name):g}"
            for one in fields(self)
            if one.name != "kind" and getattr(self, one.name) != one.default
        ]
        return self.kind + (":" + ",".join(shown) if shown else "")

    def record(self, workload: Workload) -> NDArray[np.void]:
        """What the kernels read, one record of ARRIVALS, shape (1,)."""
        slow_mean_s = self.mean_s if self.slow_mean_s is None else self.slow_mean_s
        fast_share = self.mean_s / (self.mean_s + slow_mean_s)
        slow_factor = 1.0 / (fast_share * self.ratio + 1.0 - fast_share)
        period_s = workload.period_s or 0.0
        last = rate_pieces(workload)[-1, 0]
        period_integral_s = last["integral_s"] + last["multiplier"] * (period_s - last["start_s"])
        found = np.zeros(1, ARRIVALS)
        found["kind"] = KINDS[self.kind][0]
        found["cv"] = self.cv
        found["fast_factor"], found["slow_factor"] = self.ratio * slow_factor, slow_factor
        found["fast_mean_s"], found["slow_mean_s"] = self.mean_s, slow_mean_s
        found["burst_requests"], found["burst_at_s"] = self.burst, self.burst_at_s
        found["period_s"], found["period_integral_s"] = period_s, period_integral_s
        return found


def parse_arrivals(text: str) -> Arrivals:
    """Read ``KIND[:key=value,…]``: ``gamma:cv=2``, ``mmpp:ratio=5,mean_s=30``, ``poisson:burst=9``.

    Raises:
        InputError: Unknown kind or parameter, or a value out of range.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise not_a_name("arrivals", kind, KINDS)
    known = (*KINDS[kind][1], *BURST_PARAMETERS)
    values: dict[str, float] = {}
    for part in filter(None, rest.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise InputError(f"arrivals {kind}: parameter", name, "one of " + ", ".join(known))
        try:
            values[name] = int(value) if name == "burst" else float(value)
        except ValueError:
            allowed = "a whole number" if name == "burst" else "a number"
            raise InputError(f"arrivals {kind}: {name}", value, allowed) from None
    return Arrivals(kind, **values)  # type: ignore[arg-type]  # burst was read as an integer


def as_arrivals(given: Arrivals | str | None) -> Arrivals:
    """Arrivals as users give them: text is read, and nothing is Poisson.

    Raises:
        InputError: As `parse_arrivals`.
    """
    if given is None:
        return Arrivals()
    return parse_arrivals(given) if isinstance(given, str) else given


def rate_pieces(workload: Workload) -> NDArray[np.void]:
    """PIECE records of the workload's rate profile, shape (pieces, classes).

    One constant piece where it has none. The multiplier is that of the total rate.
    """
    profile = workload.rate_profile or (RatePiece(start_s=0, multiplier=1),)
    found = np.zeros((len(profile), len(workload.classes)), PIECE)
    rates = workload.rates_per_s
    for row, piece, factors in zip(found, profile, workload.factors, strict=True):
        row["start_s"] = piece.start_s
        row["multiplier"] = piece.multiplier
        here = rates
        if piece.class_multipliers and piece.multiplier > 0:
            here = rates * factors
            row["multiplier"] = here.sum() / rates.sum()
        row["share_cumulative"] = np.cumsum(here) / here.sum()
    rate_time = found["multiplier"][:-1] * np.diff(found["start_s"], axis=0)
    found["integral_s"][1:] = np.cumsum(rate_time, axis=0)
    return found


@kernel
def lay_out(model, lane, seed, replication, rate):
    """Set time and shape of every request of the replication, at `rate` requests per second."""
    arrivals = model.arrivals[0]
    begin_state(arrivals, lane.scalars[0], seed, replication)
    _draw_all(lane, seed, replication)
    number = 0
    burst = 0
    uniform = lane.requests[0].first_token_at_s
    rate_time_s = gap_s(arrivals, lane.scalars[0], rate, seed, replication, number, uniform)
    for index in range(lane.requests.size):
        request = lane.requests[index]
        request.arrived_at_s, piece = clock_at(model, rate_time_s)
        if burst < arrivals.burst_requests and request.arrived_at_s >= arrivals.burst_at_s:
            request.arrived_at_s = arrivals.burst_at_s
            mix, _ = two_uniforms(seed, replication, burst, _BURST)
            request.shape = choose_shape(model.shapes, mix)
            burst += 1
            continue
        request.shape = choose_shape(model.profile[piece], lane.requests[number].completed_at_s)
        number += 1
        if number < lane.requests.size:
            uniform = lane.requests[number].first_token_at_s
            gap = gap_s(arrivals, lane.scalars[0], rate, seed, replication, number, uniform)
            rate_time_s += gap


@inlined
def _draw_all(lane, seed, replication):
    """The uniforms of all requests, kept until then where their times of service will be.

    A loop of nothing else: a processor makes several blocks of random numbers at once.
    """
    for number in range(lane.requests.size):
        request = lane.requests[number]
        uniform, choice = two_uniforms(seed, replication, number, PURPOSE_ARRIVAL)
        request.first_token_at_s, request.completed_at_s = uniform, choice


@inlined
def choose_shape(shares, uniform):
    """The first shape whose cumulative share reaches `uniform`."""
    low, high = 0, shares.size - 1
    while low < high:
        middle = (low + high) // 2
        if shares[middle].share_cumulative >= uniform:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def clock_at(model, rate_time_s):
    """When the integral of the multipliers reaches `rate_time_s`, and the piece at that time."""
    arrivals = model.arrivals[0]
    begin_s, rest_s = 0.0, rate_time_s
    if arrivals.period_s > 0.0:
        cycles = math.floor(rate_time_s / arrivals.period_integral_s)
        begin_s = cycles * arrivals.period_s
        rest_s = max(rate_time_s - cycles * arrivals.period_integral_s, 0.0)
    low, high = 0, model.profile.shape[0] - 1
    while low < high:
        middle = (low + high + 1) // 2
        if model.profile[middle, 0].integral_s <= rest_s:
            low = middle
        else:
            high = middle - 1
    piece = model.profile[low, 0]
    if piece.multiplier == 0.0:  # A lull at the end of the period, entered by rounding.
        return begin_s + piece.start_s, low
    return begin_s + piece.start_s + (rest_s - piece.integral_s) / piece.multiplier, low


@inlined
def gap_s(arrivals, scalars, rate, seed, replication, number, uniform):
    """Rate time between request `number` and the one before it."""
    if arrivals.kind == GAMMA:
        gap = gamma_of_mean_one(
            arrivals.cv, seed, replication, number, uniform, _GAMMA_NORMAL, _GAMMA_ACCEPT
        )
        return gap / rate
    if arrivals.kind == DETERMINISTIC:
        return 1.0 / rate
    if arrivals.kind == MMPP:
        return mmpp_gap_s(arrivals, scalars, rate, seed, replication, number, uniform)
    if arrivals.kind == POISSON_CLIPPED:
        return min(-math.log(uniform), CLIP) / rate
    return -math.log(uniform) / rate


@kernel
def attempt_of(purpose, attempt):
    """Purpose of the draws of one attempt, in bits above those of the purposes."""
    return purpose | (np.uint64(attempt) << _ATTEMPT_SHIFT)


@called_kernel
def gamma_of_mean_one(cv, seed, replication, number, uniform, normal_purpose, accept_purpose):
    """Gamma number, exact: Marsaglia and Tsang (2000), with their boost below shape 1.

    The purposes are those of the draws of each attempt; `uniform` is used below shape 1 alone.
    """
    shape = 1.0 / (cv * cv)
    d = (shape + 1.0 if shape < 1.0 else shape) - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    attempt = 0
    while True:
        normal = attempt_of(normal_purpose, attempt)
        radius, angle = two_uniforms(seed, replication, number, normal)
        accept, _ = two_uniforms(seed, replication, number, attempt_of(accept_purpose, attempt))
        x = math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)
        root = 1.0 + c * x
        v = root * root * root
        if v > 0.0 and math.log(accept) <= 0.5 * x * x + d - d * v + d * math.log(v):
            break
        attempt += 1
    gap = d * v / shape
    return gap * uniform ** (1.0 / shape) if shape < 1.0 else gap


@kernel
def begin_state(arrivals, scalars, seed, replication):
    """Draw the stationary state of the two-state process, whose residual sojourn is memoryless."""
    state, sojourn = two_uniforms(seed, replication, 0, _FIRST_STATE)
    fast = state * (arrivals.fast_mean_s + arrivals.slow_mean_s) <= arrivals.fast_mean_s
    mean_s = arrivals.fast_mean_s if fast else arrivals.slow_mean_s
    scalars.arrivals_fast = 1 if fast else 0
    scalars.arrivals_state_left_s = -math.log(sojourn) * mean_s


@kernel
def mmpp_gap_s(arrivals, scalars, rate, seed, replication, number, uniform):
    """Spend a unit exponential at the rate of the current state, through changes of state."""
    left = -math.log(uniform)
    passed_s = 0.0
    attempt = 0
    while True:
        fast = scalars.arrivals_fast == 1
        speed = rate * (arrivals.fast_factor if fast else arrivals.slow_factor)
        gap = left / speed
        if gap <= scalars.arrivals_state_left_s:
            scalars.arrivals_state_left_s -= gap
            return passed_s + gap
        left -= speed * scalars.arrivals_state_left_s
        passed_s += scalars.arrivals_state_left_s
        draw, _ = two_uniforms(seed, replication, number, attempt_of(_SOJOURN, attempt))
        mean_s = arrivals.slow_mean_s if fast else arrivals.fast_mean_s
        scalars.arrivals_fast = 0 if fast else 1
        scalars.arrivals_state_left_s = -math.log(draw) * mean_s
        attempt += 1
