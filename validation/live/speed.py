"""The server's speed learned from the time between output tokens.

A token that a request waits for y seconds saw as many other requests in decode as there are on
average (Poisson arrivals see time averages), which is D·y where D tokens come per second, and the
P·y prompt tokens that arrive meanwhile. With B = 1 + D·y, n = B + P·y and κ KV tokens a request

    y = a_0·d0 + a_1·E[f(n) − d0 + …] + a_2·c_kv·κ·B.

d0, f and c_kv are those of the server file, the factors a are learned. D and P are what traffic
asks for; y follows from them, and that y, not the measured one, stands on the right side: chance in
a measured y would be taken for an effect of the batch. Each window between scrapes is one
equation for its measured y, made linear where it is (recursive least squares, as in an extended
Kalman filter), with a weight that halves every half-life. The file is the prior:
each factor is 1 ± `PRIOR_SD`, within `BOUNDS`, and moves only in those directions of the three that
traffic excites.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from validation.live.seen import Seen

Floats = NDArray[np.float64]

PARTS = ("overhead", "per token", "per KV token")
PRIOR_SD = 0.5
BOUNDS = (1 / 3, 3.0)
"""A server that is slower or faster than this beside its file is another one."""

_MODEL_ERROR = 0.015
"""Relative error of the equation itself, per window."""

_MOST_ERROR = 0.15
"""What is above it is no chance: the server lies beyond `BOUNDS`."""

_FEWEST_GAPS = 200
_MOST_PREEMPTED = 0.01
"""Evictions per finished request, above which times between tokens are those of recomputing."""

_ROUNDS = 100
_LONGEST_S = 100.0
_LEAST_LEFT = 0.1
"""Of 1 − feedback: nearer to saturation a slope is not believed."""

_EXCITED = 40.0
"""Information in a direction of factors from which on it is learned: ± 0.16 by itself."""

_MOSTLY = 0.5
"""A factor is learned where this share of its direction is excited."""


@dataclass(frozen=True)
class Speed:
    """What is known of a server's speed.

    Attributes:
        factors: Of overhead, per token and per KV token, against the server file.
        sds: Their standard deviations.
        relative_sd: Of iteration times as far as they are learned, at other loads than those seen.
        unexcited: Names of the factors that traffic tells little of: they are kept at the file's,
            but for what they share with a direction that is excited.
        at_bound: Names of those that lie at the end of `BOUNDS`.
        windows: How many windows stand behind it, as many as they still weigh.
    """

    factors: tuple[float, float, float]
    sds: tuple[float, float, float]
    relative_sd: float
    unexcited: tuple[str, ...]
    at_bound: tuple[str, ...]
    windows: float

    def applied(self, server: Server) -> Server:
        """The server with this speed."""
        return server.model_copy(
            update={"iteration_time": scaled(server.iteration_time, self.factors)}
        )


def scaled(time: IterationTime, factors: tuple[float, float, float]) -> IterationTime:
    """An iteration time with overhead, all that grows with tokens, and KV reading multiplied."""
    overhead, work, kv = factors
    d0 = time.overhead_s
    knots = tuple(overhead * d0 + work * (one - d0) for one in time.seconds_knots)
    return IterationTime(
        tokens_knots=time.tokens_knots,
        seconds_knots=(max(knots[0], 0.0), *knots[1:]),
        per_kv_token_s=kv * time.per_kv_token_s,
        per_prefill_token_s=work * time.per_prefill_token_s,
        per_decode_request_s=work * time.per_decode_request_s,
        per_prefill_token_sq_s=work * time.per_prefill_token_sq_s,
        per_prefill_context_token_s=work * time.per_prefill_context_token_s,
    )


@dataclass
class SpeedLearner:
    """Equations of windows, summed.

    Attributes:
        server: As its file has it.
        half_life_s: After so long a window weighs half as much.
    """

    server: Server
    half_life_s: float = 3600.0
    _information: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    _right: Floats = field(default_factory=lambda: np.zeros(3))
    _windows: float = 0.0
    _errors: float = 0.0

    def add(self, seen: Seen, prompt_tokens: float, kv_per_decode_token: float) -> None:
        """One more window; one with too few tokens, or with evictions, tells nothing.

        Args:
            prompt_tokens: Mean length of a prompt.
            kv_per_decode_token: Mean KV that a request in decode reads.
        """
        kept = 0.5 ** (seen.seconds / self.half_life_s)
        for name in ("_information", "_right", "_windows", "_errors"):
            setattr(self, name, getattr(self, name) * kept)
        tpot_s = seen.tpot_s
        if tpot_s is None or not _tells(seen):
            return
        batch = _Batch(self.server, seen, prompt_tokens, kv_per_decode_token)
        factors = np.array(self.speed().factors)
        predicted_s, slopes = batch.balance_s(factors)
        error = math.log(tpot_s / predicted_s)
        row = slopes / predicted_s
        self._information += np.outer(row, row)
        self._right += row * (error + row @ (factors - 1))
        # What is left of the error is chance; all of it would hide that the file is wrong.
        left = math.log(tpot_s / batch.balance_s(np.array(self.speed().factors))[0])
        self._windows += 1
        self._errors += left**2

    def speed(self) -> Speed:
        """What is known now: the file, moved in the directions that traffic excites."""
        # One variance for all windows: those before it was known are no better than the others.
        found_error = math.sqrt(self._errors / max(self._windows, 1.0))
        noise = min(max(_MODEL_ERROR, found_error), _MOST_ERROR) ** 2
        found, directions = np.linalg.eigh(self._information / noise)
        excited = found >= _EXCITED
        prior = 1 / PRIOR_SD**2
        gains = np.where(excited, 1 / (found + prior), 0.0)
        moved = directions @ (gains * (directions.T @ self._right / noise))
        variances = directions**2 @ np.where(excited, gains, 1 / prior)
        factors = np.clip(1 + moved, *BOUNDS)
        learned = directions**2 @ excited >= _MOSTLY
        exists = self._parts_exist()
        ends = ~np.isclose(factors, 1 + moved)
        return Speed(
            factors=_three(factors),
            sds=_three(np.sqrt(variances)),
            relative_sd=_spread(found[excited]),
            unexcited=_named(~learned & exists),
            at_bound=_named(ends),
            windows=self._windows,
        )

    def _parts_exist(self) -> NDArray[np.bool_]:
        """Which parts the file has at all."""
        time = self.server.iteration_time
        return np.array([True, float(time(1e6)) > time.overhead_s, time.per_kv_token_s > 0])

    def predicted_tpot_s(
        self, seen: Seen, prompt_tokens: float, kv_per_decode_token: float
    ) -> float | None:
        """Time between tokens in a window, by what is known; None where it tells nothing."""
        if not _tells(seen):
            return None
        batch = _Batch(self.server, seen, prompt_tokens, kv_per_decode_token)
        return batch.balance_s(np.array(self.speed().factors))[0]


def _three(values: Floats) -> tuple[float, float, float]:
    overhead, work, kv = values.tolist()
    return overhead, work, kv


def _spread(information: Floats) -> float:
    """Of the direction known best, which all loads share, and about half of that known least."""
    if not len(information):
        return 0.0
    return math.hypot(1 / math.sqrt(information.max()), 0.5 / math.sqrt(information.min()))


def _named(chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(name for name, one in zip(PARTS, chosen, strict=True) if one)


def _tells(seen: Seen) -> bool:
    """Whether times between tokens are those of iterations."""
    return seen.gap_count >= _FEWEST_GAPS and seen.preempted <= _MOST_PREEMPTED * seen.finished


class _Batch:
    """What a token shares its iteration with, in one window."""

    def __init__(
        self, server: Server, seen: Seen, prompt_tokens: float, kv_per_decode_token: float
    ) -> None:
        spans = seen.seconds * seen.engines
        self.time = server.iteration_time
        self.tokens_per_s = seen.gap_count / spans
        self.prompt_tokens_per_s = seen.computed_prompt_tokens / spans
        self.prompt_tokens = prompt_tokens
        self.budget = server.max_num_batched_tokens or np.inf
        self.kv_per_decode_token = kv_per_decode_token

    def parts_s(self, tpot_s: float) -> Floats:
        """Overhead, work and KV of the file for tokens that take so long, shape (3,)."""
        time = self.time
        decodes = 1 + self.tokens_per_s * tpot_s
        arriving = self.prompt_tokens_per_s * tpot_s
        chunk = min(self.prompt_tokens, max(self.budget - decodes, 1.0))
        share = min(arriving / chunk, 1.0)
        chunk = arriving / share if share else 0.0
        alone, beside = time(
            [decodes, decodes + chunk],
            decode_requests=decodes,
            prefill_tokens=[0.0, chunk],
            prefill_tokens_sq=[0.0, chunk**2],
        )
        work = (1 - share) * alone + share * beside - time.overhead_s
        kv = time.per_kv_token_s * decodes * self.kv_per_decode_token
        return np.array([time.overhead_s, max(float(work), 0.0), kv])

    def balance_s(self, factors: Floats) -> tuple[float, Floats]:
        """The time between tokens that brings about itself, and its slope in each factor."""
        tpot_s = float(factors[0] * self.time.overhead_s)
        for _ in range(_ROUNDS):
            before_s, tpot_s = tpot_s, float(factors @ self.parts_s(tpot_s))
            if abs(tpot_s - before_s) <= 1e-6 * tpot_s or tpot_s > _LONGEST_S:
                break
        parts = self.parts_s(tpot_s)
        step_s = 1e-3 * tpot_s
        feedback = float(factors @ (self.parts_s(tpot_s + step_s) - parts)) / step_s
        return tpot_s, parts / max(1 - feedback, _LEAST_LEFT)
