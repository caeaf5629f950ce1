"""Decoders that remember: young ones from the chain's past, old ones from the linear theory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency.decoders import FEW, spread_around
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slow
from fluid.steady.latency.walks import worth_by_age

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
"""Gauss's rule for the normal law of what is left of B."""


class Walked(Protocol):
    """What a chain says of its states, the open ones first; arrays of shape (m,)."""

    seconds: Floats
    law: Floats
    good: NDArray[np.bool_]

    @property
    def open_count(self) -> int: ...

    @property
    def variance_s2(self) -> float: ...


@dataclass(frozen=True)
class Past:
    """Young decoders.

    Attributes:
        requests, kv_tokens: Their means in each state, shape (m,).
        per_s, kv_per_s: Their means per second of intake.
    """

    requests: Floats
    kv_tokens: Floats
    per_s: float
    kv_per_s: float


def no_past(states: int) -> Past:
    """No decoder counts as young."""
    return Past(np.zeros(states), np.zeros(states), 0.0, 0.0)


def remembered(
    load: Load,
    mean_s: float,
    law: Floats,
    step: Floats,
    ending: Floats,
    good: NDArray[np.bool_],
    ages: int,
) -> Past:
    """Decoders of age 1 … `ages` from the prompts that ended so many iterations ago.

    E[ends in n − k | state of n] = λμ·(ending Q^k)(state)/π(state).

    Args:
        ending: Law of the state in which a prompt ends, shape (m,).
    """
    oldest = int(load.later.max())
    requests, kv = np.zeros(oldest + 1), np.zeros(oldest + 1)
    for share, stages in zip(load.shares, load.stages, strict=True):
        requests[1 : stages.count] += share
        kv[1 : stages.count] += share * stages.kv_tokens[1:]
    ages = min(ages, oldest)
    worth = np.stack([requests[1 : ages + 1], kv[1 : ages + 1]])
    found, found_kv = worth_by_age(load.rate_per_s * mean_s * ending, step, worth)
    divided = np.where(good, 1 / np.where(good, law, 1.0), 0.0)
    return Past(
        found * divided,
        found_kv * divided,
        load.rate_per_s * float(requests[1 : ages + 1].sum()),
        load.rate_per_s * float(kv[1 : ages + 1].sum()),
    )


@dataclass(frozen=True)
class Memory:
    """How the law of B and K depends on the state.

    Attributes:
        requests, kv_tokens: Young decoders in each state, shape (m,).
        per_s, kv_per_s: Young decoders per second of intake; the others are old.
        on_time, kv_on_time: Slopes of the old ones in the iteration time, 1/s and tokens/s.
        old_variance: Of the old ones given the time.
        kv_per_request: How K follows B.
        shift_s: Mean time less that of the states with nothing left over.
    """

    requests: Floats
    kv_tokens: Floats
    per_s: float
    kv_per_s: float
    on_time: float
    kv_on_time: float
    old_variance: float
    kv_per_request: float
    shift_s: float

    @classmethod
    def of(cls, slow: Slow, states: int) -> Memory:
        """All decoders from the linear theory."""
        zero = np.zeros(states)
        slopes = _regression(slow, slow.variance_s2, slow.variance_s2, old=False)
        return cls(zero, zero, 0.0, 0.0, *slopes, 0.0)

    @classmethod
    def after(cls, slow: Slow, past: Past, chain: Walked, mean_s: float) -> Memory:
        """Young decoders from the past, the others from the linear theory."""
        opened = chain.open_count
        requests = _filled(past.requests, chain.good, opened)
        kv_tokens = _filled(past.kv_tokens, chain.good, opened)
        variance = chain.variance_s2
        law = chain.law[:opened]
        open_s = float(law @ chain.seconds[:opened]) / max(float(law.sum()), 1e-12)
        slopes = _regression(slow, max(variance, slow.variance_s2 / 4), variance, old=True)
        return cls(requests, kv_tokens, past.per_s, past.kv_per_s, *slopes, mean_s - open_s)

    def towards(self, other: Memory, share: float) -> Memory:
        """Part of the way to another one."""
        mixed = {
            one.name: (1 - share) * getattr(self, one.name) + share * getattr(other, one.name)
            for one in fields(self)
        }
        return Memory(**mixed | {"shift_s": other.shift_s})

    def decoders(
        self, load: Load, seconds: Floats, opened: int, mean_s: float, most: float
    ) -> tuple[Floats, Floats, Floats]:
        """Requests, KV and weights in each state, shape (m, q) each; at most `most` requests."""
        deviation = np.where(np.arange(len(seconds)) < opened, seconds - mean_s + self.shift_s, 0.0)
        mean = self.requests + mean_s * (load.decodes_per_s - self.per_s)
        kv = self.kv_tokens + mean_s * (load.kv_read_per_s - self.kv_per_s)
        mean = np.clip(mean + self.on_time * deviation, 0.0, most)
        kv = np.maximum(kv + self.kv_on_time * deviation, 0.0)
        sd = np.sqrt(np.maximum(self.old_variance + self.requests, 0.0))
        weights = np.zeros((len(seconds), len(_NODES)))
        weights[:opened] = _WEIGHTS
        # A full iteration lasts about as long with a few decodes more.
        weights[opened:, len(_NODES) // 2] = 1.0
        away = sd[:, None] * _NODES
        requests = np.clip(mean[:, None] + away, 0.0, most)
        kv_tokens = np.maximum(kv[:, None] + self.kv_per_request * away, 0.0)
        few = np.flatnonzero(mean[:opened] < FEW)
        if not len(few) or not load.decodes_per_s:
            return requests, kv_tokens, weights
        ratio = self.old_variance / mean_s + self.per_s
        law = spread_around(mean[few], kv[few], ratio / load.decodes_per_s, self.kv_per_request)
        more = [(0, 0), (0, law.weights.shape[1] - len(_NODES))]
        requests, kv_tokens, weights = (np.pad(one, more) for one in (requests, kv_tokens, weights))
        requests[few], kv_tokens[few] = np.minimum(law.requests, most), law.kv_tokens
        weights[few] = law.weights
        return requests, kv_tokens, weights


def _regression(
    slow: Slow, divisor: float, variance: float, old: bool
) -> tuple[float, float, float, float]:
    """Slopes of B and K in the time, what is left of Var B, and how K follows B."""
    load, found = slow.load, slow.old_moments if old else slow.moments
    if divisor <= 0:
        return 0.0, 0.0, found.decodes_var, _kv_per_decode(load)
    on_time, kv_on_time = found.decodes_next / divisor, found.kv_next / divisor
    rest = max(found.decodes_var - on_time**2 * variance, 0.0)
    if rest <= 1e-6 * max(found.decodes_var, 1e-12):
        return on_time, kv_on_time, rest, _kv_per_decode(load)
    most = 2.0 * max(float(one.kv_tokens[-1]) for one in load.stages)
    per_request = (found.decodes_kv - on_time * kv_on_time * variance) / rest
    return on_time, kv_on_time, rest, min(max(per_request, 0.0), most)


def _kv_per_decode(load: Load) -> float:
    return load.kv_read_per_s / load.decodes_per_s if load.decodes_per_s else 0.0


def _filled(values: Floats, good: NDArray[np.bool_], opened: int) -> Floats:
    """Values of states without mass from their neighbours of the same kind."""
    found = values.copy()
    for part in (slice(0, opened), slice(opened, len(values))):
        seen = good[part]
        places = np.arange(len(seen))
        if seen.any():
            found[part] = np.interp(places, places[seen], values[part][seen])
        elif good[:opened].any():
            found[part] = values[:opened][good[:opened]][-1]
    return found
