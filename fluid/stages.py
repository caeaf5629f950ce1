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
Floats = NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class StageSums:
    """What the stages of each class add up to, in closed form; arrays of shape (m,).

    Attributes:
        count: S_j, the number of iterations a request needs.
        prefill_tokens: l_j.
        decodes: Stages that decode, all but prefill.
        first_decodes: Of them, those up to the first output token: 0 or 1.
        kv_read_tokens: KV read by all decode stages together.
        first_kv_read_tokens: KV read by the first `first_decodes` of them.
        first_held_tokens: KV occupied at the first stage, in whole blocks; last_held_tokens at the
            last one, the peak.
        memory_sum: m_j, block-rounded, token·iterations (THEORY 2).
    """

    count: Floats
    prefill_tokens: Floats
    decodes: Floats
    first_decodes: Floats
    kv_read_tokens: Floats
    first_kv_read_tokens: Floats
    first_held_tokens: Floats
    last_held_tokens: Floats
    memory_sum: Floats

    def prefill_seconds(self, server: Server) -> Floats:
        """Seconds that stage 0 adds to an iteration apart from f, shape (m,)."""
        tau, prompts = server.iteration_time, self.prefill_tokens
        return tau.per_prefill_token_s * prompts + tau.per_prefill_token_sq_s * prompts**2

    def linear_seconds(self, server: Server) -> Floats:
        """Σ_s w_js apart from f: seconds that a request adds over all its stages, shape (m,)."""
        tau = server.iteration_time
        decode_s = (
            tau.per_decode_request_s * self.decodes + tau.per_kv_token_s * self.kv_read_tokens
        )
        return self.prefill_seconds(server) + decode_s


@functools.lru_cache(maxsize=16)
def stage_sums(workload: Workload, server: Server) -> StageSums:
    """The sums over `class_stages` of every class, without the stages themselves."""
    columns = workload.columns
    return sums_of(columns.prefill_tokens, columns.decode_tokens, columns.context_tokens, server)


def sums_of(
    prefill_tokens: NDArray[np.int64],
    decode_tokens: NDArray[np.int64],
    context_tokens: NDArray[np.int64],
    server: Server,
) -> StageSums:
    """The sums for requests of these lengths, all of shape (m,).

    Args:
        context_tokens: KV that is there already; beside a prompt it is what a prefix cache holds.
    """
    block = server.block_tokens
    # In floating point: sums of squares leave 64 bits before they leave its range.
    prompts, outputs, contexts = (
        one.astype(float) for one in (prefill_tokens, decode_tokens, context_tokens)
    )
    known = prompts + contexts
    prefills = prompts > 0
    late = server.first_token == "decode"
    decodes = np.where(prefills & (not late), outputs - 1, outputs)
    first_decodes = np.where(prefills, float(late), 1.0)
    before = known - prefills
    last = known + decodes
    return StageSums(
        count=read_only(decodes + prefills),
        prefill_tokens=read_only(prompts),
        decodes=read_only(decodes),
        first_decodes=read_only(first_decodes),
        kv_read_tokens=read_only(known * decodes + decodes * (decodes + 1) / 2),
        first_kv_read_tokens=read_only(first_decodes * (known + 1)),
        first_held_tokens=read_only(np.ceil((before + 1) / block) * block),
        last_held_tokens=read_only(np.ceil(last / block) * block),
        memory_sum=read_only(rounded_sum(last, block) - rounded_sum(before, block)),
    )


def rounded_sum(tokens: Floats, block: int) -> Floats:
    """Σ of 1, 2, …, `tokens`, each rounded up to whole blocks; elementwise."""
    whole, rest = np.divmod(tokens, block)
    return np.asarray(block * (block * whole * (whole + 1) / 2 + rest * (whole + 1)))


def memory_sums(workload: Workload, server: Server) -> Floats:
    """m_j per class, block-rounded, token·iterations, shape (m,)."""
    return stage_sums(workload, server).memory_sum
