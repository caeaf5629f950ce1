"""What the requests of a workload find in a prefix cache and leave there (THEORY 10.1–10.3).

A request falls into one of three outcomes: it finds its whole context and the shared prefix, the
shared prefix alone, or nothing. Each place in a conversation of each class is a *turn* here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.workload import RequestClass, Workload

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Kinds:
    """All turns of all classes side by side, in whole blocks; arrays of shape (n,).

    Attributes:
        of_class: Index of the class.
        rates_per_s: ν_i.
        prefill_tokens: Prompt, whatever of it is cached.
        decode_tokens: Output.
        shared_tokens: s_j, of which all residents of a class hold one copy.
        shared_hit_tokens: What of the prompt need not be computed if only s_j is found.
        context_hit_tokens: The same if the context is found too; 0 where there is none.
        left_tokens: z_i, private tokens that the request leaves in the cache.
        go_on: Share that another turn follows.
        follows: Whether a turn came before, so that there is a context to be found.
        think_s: Mean think time before the next turn.
        fixed: Whether every think time is the mean.
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
    left_tokens: Whole
    go_on: Floats
    follows: NDArray[np.bool_]
    think_s: Floats
    fixed: NDArray[np.bool_]
    class_rates_per_s: Floats
    class_shared_tokens: Whole

    @property
    def fixed_think_s(self) -> Floats:
        """The distinct think times that do not vary, at which the share of hits jumps."""
        return np.unique(self.think_s[self.fixed & (self.go_on > 0)])

    def context_hits(self, survive_s: float) -> Floats:
        """P(Θ ≤ T_c) for each turn that follows another one, else 0 (THEORY 10.2)."""
        exponential = -np.expm1(-survive_s / np.maximum(self.think_s, 1e-300))
        found = np.where(self.fixed, self.think_s <= survive_s, exponential)
        return np.where(self.follows, np.where(self.think_s == 0, 1.0, found), 0.0)

    def unused_s(self, survive_s: float) -> Floats:
        """E[min(Θ, T_c)]: how long what a turn leaves stays in the cache unused (THEORY 10.3)."""
        exponential = -self.think_s * np.expm1(-survive_s / np.maximum(self.think_s, 1e-300))
        thinking = np.where(self.fixed, np.minimum(self.think_s, survive_s), exponential)
        return np.asarray(self.go_on * thinking + (1 - self.go_on) * survive_s)

    def shared_hits(self, survive_s: float, service_s: Floats) -> Floats:
        """h_j = 1 − e^{−λ_j (R_j + T_c)}, shape (m,); `service_s` is R_j (THEORY 10.1)."""
        return np.asarray(-np.expm1(-self.class_rates_per_s * (service_s + survive_s)))


def kinds_of(workload: Workload, server: Server) -> Kinds:
    """The turns of a workload on a server with its block size."""
    parts = [_columns(index, one, server) for index, one in enumerate(workload.classes)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    block = server.block_tokens
    shared = np.array([one.prefix_tokens // block * block for one in workload.classes])
    return Kinds(**columns, class_rates_per_s=workload.rates_per_s, class_shared_tokens=shared)


def _columns(index: int, one: RequestClass, server: Server) -> dict[str, NDArray[np.generic]]:
    turns, block = one.turns, server.block_tokens
    ones = np.ones(len(turns.shares), dtype=np.int64)
    shared = one.prefix_tokens // block * block
    prompts = turns.prefill_tokens
    # At least one token is computed: a prompt of whole blocks computes the last one again.
    most = (prompts - 1) // block * block
    follows = turns.context_tokens > 0
    # The last output's KV was never written.
    known = (one.prefix_tokens + turns.context_tokens - 1) // block * block
    thinks = one.conversation
    return {
        "of_class": index * ones,
        "rates_per_s": one.rate_per_s * turns.shares,
        "prefill_tokens": prompts,
        "decode_tokens": one.decode_tokens * ones,
        "shared_tokens": shared * ones,
        "shared_hit_tokens": np.minimum(shared, most),
        "context_hit_tokens": np.where(follows, np.minimum(known, most), 0),
        "left_tokens": (prompts + one.decode_tokens - 1) // block * block - shared,
        "go_on": turns.go_on,
        "follows": follows,
        "think_s": ones * (thinks.think_time_s if thinks else 0.0),
        "fixed": np.full(len(ones), bool(thinks and thinks.think_time_law == "fixed")),
    }
