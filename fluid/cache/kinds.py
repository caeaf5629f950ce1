"""What the requests of a workload find in a prefix cache and leave there (THEORY 10.1–10.3).

A request falls into one of three outcomes: it finds its whole context and the shared prefix, the
shared prefix alone, or nothing. Each place in a conversation of each class is a *turn* here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.workload import RequestClass, Workload

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


_RARE = 1e-4
"""Share of returns to a server that are so late that they are left out."""


@dataclass(frozen=True, eq=False)
class Left:
    """Private tokens that finished turns leave in the cache, by when they are asked for again.

    Attributes:
        tokens_per_s: ν_i z_i, in whole blocks, shape (r,).
        steps: After how many think times they are asked for; 0 for never.
        think_s: Mean of a think time.
        fixed: Whether every think time is the mean.
    """

    tokens_per_s: Floats
    steps: Whole
    think_s: Floats
    fixed: NDArray[np.bool_]

    def unused_tokens(self, survive_s: float) -> float:
        """Σ ν_i z_i E[min(Θ_i, T_c)]: what of them the cache holds (THEORY 10.3)."""
        from scipy.special import gammainc, gammaincc  # a serving engine reads tables without scipy

        some = np.maximum(self.steps, 1)
        law = some * self.think_s * gammainc(some + 1, _ratio(survive_s, self.think_s))
        law += survive_s * gammaincc(some, _ratio(survive_s, self.think_s))
        known = np.where(self.fixed, np.minimum(some * self.think_s, survive_s), law)
        return float(self.tokens_per_s @ np.where(self.steps > 0, known, survive_s))


@dataclass(frozen=True, eq=False)
class Kinds:
    """All turns of all classes side by side, in whole blocks; arrays of shape (n,).

    Where turns of a conversation go to several servers a turn stands here once for each number of
    turns since the conversation was last on its server.

    Attributes:
        of_class: Index of the class.
        rates_per_s: ν_i.
        prefill_tokens: Prompt, whatever of it is cached.
        decode_tokens: Output.
        shared_tokens: s_j, of which all residents of a class hold one copy.
        shared_hit_tokens: What of the prompt need not be computed if only s_j is found.
        context_hit_tokens: The same if the context is found too.
        steps: Think times since the context was left; 0 where there is none to be found.
        think_s: Mean of a think time.
        fixed: Whether every think time is the mean.
        left: What turns leave in the cache.
        class_rates_per_s: λ_j, shape (m,).
        class_shared_tokens: s_j, shape (m,).
    """

    of_class: Whole
    rates_per_s: Floats
    prefill_tokens: Whole
    decode_tokens: Whole
    shared_tokens: Whole
    shared_hit_tokens: Whole
    context_hit_tokens: Whole
    steps: Whole
    think_s: Floats
    fixed: NDArray[np.bool_]
    left: Left
    class_rates_per_s: Floats
    class_shared_tokens: Whole

    @property
    def fixed_think_s(self) -> Floats:
        """The distinct times after which all that is asked for again comes at once."""
        return np.unique((self.steps * self.think_s)[self.fixed & (self.steps > 0)])

    def context_hits(self, survive_s: float) -> Floats:
        """P(Θ ≤ T_c) for each turn whose context was left on the server, else 0 (THEORY 10.2)."""
        from scipy.special import gammainc

        some = np.maximum(self.steps, 1)
        law = gammainc(some, _ratio(survive_s, self.think_s))
        found = np.where(self.fixed | (self.think_s == 0), some * self.think_s <= survive_s, law)
        return np.where(self.steps > 0, found, 0.0)

    def shared_hits(self, survive_s: float, service_s: Floats) -> Floats:
        """h_j = 1 − e^{−λ_j (R_j + T_c)}, shape (m,); `service_s` is R_j (THEORY 10.1)."""
        return np.asarray(-np.expm1(-self.class_rates_per_s * (service_s + survive_s)))

    def scaled(self, factor: float) -> Kinds:
        """The same with every rate multiplied by `factor`."""
        return replace(
            self,
            rates_per_s=factor * self.rates_per_s,
            left=replace(self.left, tokens_per_s=factor * self.left.tokens_per_s),
            class_rates_per_s=factor * self.class_rates_per_s,
        )


def _ratio(survive_s: float, think_s: Floats) -> Floats:
    return np.asarray(max(survive_s, 0.0) / np.maximum(think_s, 1e-300))


def kinds_of(workload: Workload, server: Server, servers: int = 1) -> Kinds:
    """The turns of a workload on a server with its block size.

    Args:
        servers: Each turn goes to one of so many, whichever the others went to; the rates are those
            of one server.
    """
    parts = [_columns(index, one, server, servers) for index, one in enumerate(workload.classes)]
    columns, left = (
        {name: np.concatenate([part[which][name] for part in parts]) for name in parts[0][which]}
        for which in (0, 1)
    )
    block = server.block_tokens
    shared = np.array([one.prefix_tokens // block * block for one in workload.classes])
    return Kinds(
        **columns,
        left=Left(**left),
        class_rates_per_s=workload.rates_per_s,
        class_shared_tokens=shared,
    )


def _columns(
    index: int, one: RequestClass, server: Server, servers: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The columns of a class, and those of what it leaves."""
    turns, block = one.turns, server.block_tokens
    count = len(turns.shares)
    back = _returns(servers, count)
    shared = one.prefix_tokens // block * block
    prompts = turns.prefill_tokens
    # At least one token is computed: a prompt of whole blocks computes the last one again.
    most = (prompts - 1) // block * block
    rates = one.rate_per_s * turns.shares
    talk = one.conversation
    thinks = talk.think_time_s if talk else 0.0
    fixed = bool(talk and talk.think_time_law == "fixed")
    # Turn k with the context that turn k − m left: its tokens but the last, never written.
    turn, steps = (axis.ravel() for axis in np.indices((count, len(back) + 1)))
    there = (steps <= turn) & (steps > 0)
    before = np.where(there, turn - steps + 1, 0)
    known = (one.prefix_tokens + turns.context_tokens[before] - 1) // block * block
    weights = np.where(there, np.append(0.0, back)[steps], 0.0).reshape(count, -1)
    weights[:, 0] = 1 - weights.sum(axis=1)
    some = weights.ravel() > 0
    columns = {
        "of_class": np.full(len(turn), index),
        "rates_per_s": rates[turn] * weights.ravel(),
        "prefill_tokens": prompts[turn],
        "decode_tokens": np.full(len(turn), one.decode_tokens),
        "shared_tokens": np.full(len(turn), shared),
        "shared_hit_tokens": np.minimum(shared, most)[turn],
        "context_hit_tokens": np.where(there, np.minimum(known, most[turn]), 0),
        "steps": np.where(there, steps, 0),
        "think_s": np.full(len(turn), thinks),
        "fixed": np.full(len(turn), fixed),
    }
    # What turn k leaves is asked for by turn k + m, if the conversation gets there.
    reached = turns.shares / turns.shares[0]
    after = turn + steps
    goes = (after < count) & (steps > 0)
    chance = np.where(goes, reached[np.where(goes, after, 0)] / reached[turn], 0.0)
    chance = (chance * np.append(0.0, back)[steps]).reshape(count, -1)
    chance[:, 0] = 1 - chance.sum(axis=1)
    tokens = (prompts + one.decode_tokens - 1) // block * block - shared
    left = {
        "tokens_per_s": (rates * tokens)[turn] * chance.ravel(),
        "steps": np.where(goes, steps, 0),
        "think_s": np.full(len(turn), thinks),
        "fixed": np.full(len(turn), fixed),
    }
    used = chance.ravel() > 0
    return (
        {name: values[some] for name, values in columns.items()},
        {name: values[used] for name, values in left.items()},
    )


def _returns(servers: int, turns: int) -> Floats:
    """Chance that a conversation is back on a server after 1, 2, … turns, and not before."""
    away = 1 - 1 / servers
    most = 1 if away == 0 else math.ceil(math.log(_RARE) / math.log(away))
    return np.asarray(away ** np.arange(min(most, max(turns - 1, 1))) / servers)
