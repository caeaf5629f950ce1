"""Mean times of a request among N clients with room for all of them (THEORY 13.1–13.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluid.overload.iterations import Iteration, Mix

_CLOSE = 1e-9


@dataclass(frozen=True)
class ClosedTimes:
    """Means in seconds.

    Attributes:
        clients: N.
        lockstep: All take the same number of iterations and nobody thinks: they stay in step.
        iteration_s: As a request in service sees it.
        by_class: TTFT, TPOT (None without a gap between outputs) and latency of each class.
        latency_s: Over all requests; ttft_s alike.
        tpot_s: Over requests with at least two outputs; None where there are none.
    """

    clients: int
    lockstep: bool
    iteration_s: float
    by_class: tuple[tuple[float, float | None, float], ...]
    latency_s: float
    ttft_s: float
    tpot_s: float | None

    def in_service(self, think_s: float) -> float:
        """Clients that are not thinking."""
        return self.clients * self.latency_s / (think_s + self.latency_s)


def closed_times(mix: Mix, clients: int, think_s: float, *, spread: bool = False) -> ClosedTimes:
    """Times of a tagged request that sees the others as clients of their own (arrival theorem).

    Others are at their first stage in a share π = 1/(S̄ + (Z + r)/τ) of the iterations and later in
    (S̄ − 1)·π; r is the wait for the next iteration.

    Args:
        spread: Ages are apart even where all take the same number of iterations, as under a pace.
    """
    from scipy.optimize import brentq

    others, stages = clients - 1, mix.mean_stages
    if mix.one_length and think_s == 0 and not spread:
        first, later = mix.iteration(others, 1.0, 0.0), mix.iteration(others, 0.0, 1.0)
        return _times(mix, clients, first, later, 0.0, lockstep=True)
    if think_s == 0:
        among = mix.iteration(others, 1 / stages, 1 - 1 / stages)
        return _times(mix, clients, among, among, 0.0)

    def state(rate: float) -> tuple[Iteration, float, float, float]:
        """What others bring at this π, E τ, E τ² and r beside them."""
        among = mix.iteration(others, rate, (stages - 1) * rate)
        time_s = seen_s(mix, among)
        square_s2 = among.square_s2(1, float(mix.shares @ mix.later_s))
        return among, time_s, square_s2, _wait_s(time_s, square_s2, think_s)

    def excess(rate: float) -> float:
        _, time_s, _, wait_s = state(rate)
        return 1 / (stages + (think_s + wait_s) / time_s) - rate

    rate = float(brentq(excess, 0.0, 1 / stages, xtol=_CLOSE / stages, rtol=_CLOSE))
    among, time_s, square_s2, wait_s = state(rate)
    busy = 1 - (1 - stages * rate) ** others
    # Who arrives in an iteration finds a long one rather, in which others arrived too.
    longer = min(rate * square_s2 / time_s**2, 1 - (stages - 1) * rate)
    beside = mix.iteration(others, longer, (stages - 1) * rate)
    return _times(mix, clients, beside, among, busy * wait_s)


def seen_s(mix: Mix, among: Iteration) -> float:
    """Mean iteration time over the stages of a tagged request."""
    total = 0.0
    for j, share in enumerate(mix.shares.tolist()):
        first_s = among.mean_s(int(mix.first_tokens[j]), float(mix.first_s[j]))
        later_s = among.mean_s(1, float(mix.later_s[j]))
        total += share * (first_s + (float(mix.counts[j]) - 1) * later_s)
    return total / mix.mean_stages


def _wait_s(time_s: float, square_s2: float, think_s: float) -> float:
    """r, the rest of the iteration in which thinking ends.

    E τ²/(2 E τ) where thinking takes many iterations. Thinking begins as one begins, so that short
    thinking ends early in it: the factor is that of equal iterations, from 2 down to 1.
    """
    ratio = time_s / think_s
    early = 1.0 + ratio / 6 if ratio < 1e-4 else 2 * (1 / -math.expm1(-ratio) - 1 / ratio)
    return early * square_s2 / (2 * time_s)


def _times(
    mix: Mix,
    clients: int,
    first: Iteration,
    later: Iteration,
    wait_s: float,
    lockstep: bool = False,
) -> ClosedTimes:
    found: list[tuple[float, float | None, float]] = []
    gaps = []
    for j, stages in enumerate(mix.stages):
        begin_s = wait_s + first.mean_s(int(mix.first_tokens[j]), float(mix.first_s[j]))
        later_s = later.mean_s(1, float(mix.later_s[j]))
        gaps.append(stages.count - 1 - stages.first_output)
        found.append(
            (
                begin_s + stages.first_output * later_s,
                later_s if gaps[-1] else None,
                begin_s + (stages.count - 1) * later_s,
            )
        )
    shares = mix.shares.tolist()
    latency_s = sum(share * one[2] for share, one in zip(shares, found, strict=True))
    known = [(share, one[1]) for share, one in zip(shares, found, strict=True) if one[1]]
    weight = sum(share for share, _ in known)
    return ClosedTimes(
        clients=clients,
        lockstep=lockstep,
        iteration_s=(latency_s - wait_s) / mix.mean_stages,
        by_class=tuple(found),
        latency_s=latency_s,
        ttft_s=sum(share * one[0] for share, one in zip(shares, found, strict=True)),
        tpot_s=sum(share * value for share, value in known) / weight if known else None,
    )
