"""Stability limits of neighbouring models on the same workload, side by side (THEORY 7).

Each limit is the largest total rate of the workload's mix that its model calls stable. They differ
by what they assume, and the lowest is the one to respect as far as its assumption holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, columns_of, number, percent
from fluid.server import Server, require_fits
from fluid.stages import class_stages, memory_sums
from fluid.steady.stability import stability
from fluid.workload import Workload, warn_of_prefixes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """The limit of one model.

    Attributes:
        name: "ao", "dai", "nie" or "dong-cao".
        source: Authors and arXiv number.
        rate_per_s: Largest total rate of the mix in requests per second.
        cause: What sets it: "compute", "memory" or "batch tokens".
        assumption: What makes it differ from the others, in words.
    """

    name: str
    source: str
    rate_per_s: float
    cause: str
    assumption: str


@dataclass(frozen=True, repr=False)
class Bounds(Result):
    """All limits of one workload on one server.

    Attributes:
        bounds: In the order Ao, Nie, Dong–Cao and, with a batch-token cap, Dai.
        slot_s: Slot length of Dong–Cao.
        per_slot: Dong–Cao's limit as requests of the mix per slot.
    """

    workload: Workload
    server: Server
    bounds: tuple[Bound, ...]
    slot_s: float
    per_slot: float

    @property
    def binding(self) -> Bound:
        """The lowest limit."""
        return min(self.bounds, key=lambda one: one.rate_per_s)

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each model."""
        return columns_of(self.bounds)

    def blocks(self) -> Iterator[Block]:
        rate_per_s = self.workload.rate_per_s
        yield Table(
            f"Limits of {self.workload.name} at {number(rate_per_s)} /s on {self.server.name}",
            ("model", "limit /s", "of it used", "set by", "source"),
            tuple(
                (
                    one.name,
                    number(one.rate_per_s),
                    percent(rate_per_s / one.rate_per_s),
                    one.cause,
                    one.source,
                )
                for one in self.bounds
            ),
            left=(0, 3, 4),
            spare=("source", "set by"),
        )
        yield from (f"{one.name}: {one.assumption}." for one in self.bounds)
        lowest = self.binding
        yield f"The lowest limit is that of {lowest.name}, {number(lowest.rate_per_s)} /s."

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "rate_per_s": self.workload.rate_per_s,
            "bounds": [asdict(one) for one in self.bounds],
            "slot_s": self.slot_s,
            "per_slot": self.per_slot,
            "binding": self.binding.name,
        }


def bounds(
    workload: Workload,
    server: Server,
    *,
    batch_tokens: int | None = None,
    slot_s: float | None = None,
) -> Bounds:
    """Every limit that can be told from the arguments (THEORY 7).

    Args:
        batch_tokens: b_max of Dai et al., most tokens per iteration; without it theirs is left out.
        slot_s: Fixed slot length of Dong–Cao; by default τ at full memory.

    Raises:
        InputError: A request does not fit, or an argument is not positive.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> found = fw.bounds(load, fw.Server.named("paper-long-decode"), batch_tokens=2048)
    >>> [one.name for one in found.bounds], found.binding.name
    (['ao', 'nie', 'dong-cao', 'dai'], 'ao')
    """
    require_fits(workload, server)
    warn_of_prefixes(workload)
    for name, value in (("batch_tokens", batch_tokens), ("slot_s", slot_s)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(name, value, "a number > 0")
    full_s = full_memory_time_s(workload, server)
    slot = full_s if slot_s is None else slot_s
    per_slot = dong_cao_per_slot(workload, server)
    found = [
        _ao(workload, server),
        Bound(
            "nie",
            "Nie, Si, Zhou, arXiv 2605.04595",
            nie_rate_per_s(workload, server),
            "memory",
            "memory is full at the boundary, so that every iteration takes b̄, τ at full memory",
        ),
        Bound(
            "dong-cao",
            "Dong, Cao, arXiv 2604.11001",
            per_slot / slot,
            "memory",
            f"every iteration is a slot of {slot:.4g} s, whatever is in the batch; stages 1 … l'",
        ),
    ]
    if batch_tokens is not None:
        found.append(
            Bound(
                "dai",
                "Dai, Deng, Li, Peng, arXiv 2504.07347",
                dai_rate_per_s(workload, server, batch_tokens),
                "batch tokens",
                f"memory is unlimited and KV costs nothing to read; at most {batch_tokens} tokens "
                "per iteration, prefill and decode mixed",
            )
        )
    return Bounds(workload, server, tuple(found), slot, per_slot)


def nie_rate_per_s(workload: Workload, server: Server) -> float:
    """μ = C/(b̄·E[g]): g = token-iterations of a request, b̄ = τ at full memory (2605.04595).

    g counts the stages of the server's own convention, with whole blocks. For affine servers this
    is the boundary of THEORY 2.3; counting stages 1 … l' changes g by one stage at most.
    """
    mix, sums = workload.shares, memory_sums(workload, server)
    return float(server.usable_kv_tokens / (full_memory_time_s(workload, server) * (mix @ sums)))


def full_memory_time_s(workload: Workload, server: Server) -> float:
    """b̄: τ of the batch that holds the mix at every stage and fills the memory, seconds."""
    mix, sums = workload.shares, memory_sums(workload, server)
    per_stage = mix * server.usable_kv_tokens / (mix @ sums)
    stages = [class_stages(one, server) for one in workload.classes]
    prompts = np.array([one.prefill_tokens for one in stages], dtype=float)
    decodes = np.array([one.decodes.sum() for one in stages], dtype=float)
    read = np.array([one.kv_tokens[one.decodes].sum() for one in stages], dtype=float)
    return float(
        server.iteration_time(
            per_stage @ (prompts + decodes),
            kv_tokens=per_stage @ read,
            prefill_tokens=per_stage @ prompts,
            decode_requests=per_stage @ decodes,
            prefill_tokens_sq=per_stage @ prompts**2,
        )
    )


def dai_rate_per_s(workload: Workload, server: Server, batch_tokens: int) -> float:
    """Largest λ with λ·E[l + l'] < b_max/t(b_max) (2504.07347).

    t(b) is f(b) plus what the mix's share of b adds through prompt tokens, squared prompts and
    decoding requests; reading KV costs nothing in that model.
    """
    tau, mix = server.iteration_time, workload.shares
    prompts = np.array([one.prefill_tokens for one in workload.classes], dtype=float)
    outputs = np.array([one.decode_tokens for one in workload.classes], dtype=float)
    tokens = float(mix @ (prompts + outputs))
    requests = batch_tokens / tokens
    time_s = tau(
        batch_tokens,
        prefill_tokens=requests * (mix @ prompts),
        decode_requests=requests * (mix @ outputs),
        prefill_tokens_sq=requests * (mix @ prompts**2),
    )
    return float(batch_tokens / time_s / tokens)


def dong_cao_per_slot(workload: Workload, server: Server) -> float:
    """Requests of the mix per slot at which Σ b_k m_k = C, m_k = Σ_{s=1}^{l'} (l + s) (2604.11001).

    Token-granular, as in that model; the activation caps b_k sit at the arrivals per slot.
    """
    sums = [
        one.decode_tokens * (one.prefill_tokens + one.context_tokens + (one.decode_tokens + 1) / 2)
        for one in workload.classes
    ]
    return float(server.usable_kv_tokens / (workload.shares @ np.array(sums)))


def _ao(workload: Workload, server: Server) -> Bound:
    found = stability(workload, server)
    return Bound(
        "ao",
        "Ao, Luo, Simchi-Levi, Wang, arXiv 2504.11320",
        found.max_scale * workload.rate_per_s,
        found.binding,
        "iterations take what their batch takes, at the best inventory that fits into memory",
    )
