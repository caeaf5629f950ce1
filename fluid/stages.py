"""Stages of a request and what each costs in memory and time (THEORY 1.2, 2, 5.5).

Class j passes stages s = first … last, one per iteration: stage 0 is prefill, each later stage
decodes one token. At stage s the request holds l + s KV tokens (context + s if decode-only).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fluid.server import FirstToken, Server
from fluid.workload import RequestClass, Workload

Shared = TypeVar("Shared", bound=np.generic)


@dataclass(frozen=True)
class Stages:
    """Stages of one class on one server. Its arrays are shared and cannot be written to.

    Attributes:
        index: Stage numbers s, shape (S,).
        kv_tokens: KV read or written at each stage, token-granular, shape (S,).
        held_kv_tokens: KV occupied at each stage, rounded up to blocks, shape (S,).
        first_output: Position in these arrays of the stage that emits the first output token.
        prefill_tokens: Prompt tokens computed at stage 0; 0 for a decode-only class.
    """

    index: NDArray[np.int64]
    kv_tokens: NDArray[np.int64]
    held_kv_tokens: NDArray[np.int64]
    first_output: int
    prefill_tokens: int

    @property
    def count(self) -> int:
        """S, the number of iterations a request needs."""
        return len(self.index)

    @cached_property
    def memory_sum(self) -> float:
        """m = Σ_s of the KV held, token·iterations (THEORY 2)."""
        return float(self.held_kv_tokens.sum())

    @cached_property
    def decodes(self) -> NDArray[np.bool_]:
        """Which stages decode (all but prefill), shape (S,)."""
        return read_only(self.index > 0)


def class_stages(request: RequestClass, server: Server) -> Stages:
    """Stages of `request` under the server's first-token convention and block size."""
    return _stages(
        request.prefill_tokens,
        request.context_tokens,
        request.decode_tokens,
        server.first_token,
        server.block_tokens,
    )


# A solver asks for the stages of a class a dozen times, at other rates each time.
@functools.lru_cache(maxsize=256)
def _stages(prompt: int, context: int, output: int, first_token: FirstToken, block: int) -> Stages:
    if prompt == 0:
        index = np.arange(1, output + 1)
        first_output = 0
    elif first_token == "prefill":
        index = np.arange(output)
        first_output = 0
    else:
        index = np.arange(output + 1)
        first_output = 1
    kv = prompt + context + index
    held = -(-kv // block) * block
    return Stages(read_only(index), read_only(kv), read_only(held), first_output, prompt)


def read_only(array: NDArray[Shared]) -> NDArray[Shared]:
    """An array that several may hold, as nobody can write to it."""
    array.flags.writeable = False
    return array


def linear_stage_seconds(stages: Stages, server: Server, token_s: float) -> NDArray[np.float64]:
    """w_js: seconds that each stage adds to an iteration, with f of slope `token_s`, shape (S,)."""
    tau = server.iteration_time
    prompt = stages.prefill_tokens
    prefill_s = (
        token_s + tau.per_prefill_token_s
    ) * prompt + tau.per_prefill_token_sq_s * prompt**2
    decode_s = token_s + tau.per_decode_request_s + tau.per_kv_token_s * stages.kv_tokens
    return np.where(stages.decodes, decode_s, prefill_s)


def memory_sums(workload: Workload, server: Server) -> NDArray[np.float64]:
    """m_j per class, block-rounded, token·iterations, shape (m,)."""
    return np.array([class_stages(one, server).memory_sum for one in workload.classes])
