"""Segments of output length: what one request at each of their stages adds to a batch.

Cuts c_1 < … < c_L, c_0 = 0, c_L the longest output (THEORY 4.1, 5.2). Segment k is entered by
every request whose output is longer than c_{k−1}, at rate Λ_k, and spans the stages that emit
output tokens c_{k−1} + 1 … c_k; segment 1 begins with prefill. A full segment holds n_k requests at
each of its stages (THEORY 4.4), also where some leave earlier inside it.

Where prompts differ (THEORY 5.4), time counts their rate-weighted mean over the requests that enter
the segment, as drift is a statement about long-run means; memory counts the longest of them, which
no path exceeds, or the weighted mean, with which no overflow probability is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.server import Server
from fluid.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Prompts = Literal["worst", "weighted"]


@dataclass(frozen=True)
class Segments:
    """What one unit of n_k adds to the full batch; arrays of shape (L,) unless said otherwise.

    Attributes:
        cuts: c_k, output tokens at which the segments end.
        rates_per_s: Λ_k, the rate at which segment k is entered.
        stages: σ_k.
        mean_stages: Stages that a request which enters segment k spends in it, mean over requests.
        kv_tokens: KV tokens read by its decode stages.
        decode_requests: Decode stages.
        memory_tokens: KV held over its stages, block-rounded.
        boundary_tokens: KV of a request waiting to enter segment k, from k = 2 on, shape (L − 1,),
            as Theorem 2 counts it: prompt and all output.
        waiting_tokens: The same as held, without an output token that is not computed yet.
        prefill_tokens: Mean prompt of a request; 0 for decode-only workloads. Scalar.
        prefill_tokens_sq: Mean squared prompt. Scalar.
        prompts_differ: Whether some segment is entered by prompts of several lengths.
        first_output: Position among the stages of the one that emits the first output token.
    """

    server: Server
    cuts: Integers
    rates_per_s: Floats
    stages: Floats
    mean_stages: Floats
    kv_tokens: Floats
    decode_requests: Floats
    memory_tokens: Floats
    boundary_tokens: Floats
    waiting_tokens: Floats
    prefill_tokens: float
    prefill_tokens_sq: float
    prompts_differ: bool
    first_output: int

    @property
    def count(self) -> int:
        """L."""
        return len(self.cuts)

    @property
    def widths(self) -> Floats:
        """Output tokens emitted in each segment, c_k − c_{k−1}."""
        return np.diff(self.cuts, prepend=0).astype(float)

    @property
    def survivals(self) -> Floats:
        """p_k = Λ_k/Λ_{k−1} for k = 2 … L, shape (L − 1,)."""
        return self.rates_per_s[1:] / self.rates_per_s[:-1]

    def iteration_time_s(self, thresholds: ArrayLike) -> Floats:
        """ΔT(n) of the full batch in seconds; thresholds (..., L) give shape (...)."""
        n = np.asarray(thresholds, dtype=float)
        decodes = n @ self.decode_requests
        return self.server.iteration_time(
            n[..., 0] * self.prefill_tokens + decodes,
            kv_tokens=n @ self.kv_tokens,
            prefill_tokens=n[..., 0] * self.prefill_tokens,
            decode_requests=decodes,
            prefill_tokens_sq=n[..., 0] * self.prefill_tokens_sq,
        )

    def load(self, thresholds: ArrayLike) -> Floats:
        """u = Λ_1 ΔT(n)/n_1, below 1 where drift holds (THEORY 4.3); shape (...)."""
        n = np.asarray(thresholds, dtype=float)
        return np.asarray(self.rates_per_s[0] * self.iteration_time_s(n) / n[..., 0])

    def work_seconds(self, token_s: float) -> Floats:
        """Seconds that one unit of n_k adds to ΔT(n), with f of slope `token_s`."""
        tau = self.server.iteration_time
        work_s = (
            token_s + tau.per_decode_request_s
        ) * self.decode_requests + tau.per_kv_token_s * self.kv_tokens
        work_s[0] += (token_s + tau.per_prefill_token_s) * self.prefill_tokens
        work_s[0] += tau.per_prefill_token_sq_s * self.prefill_tokens_sq
        return work_s


class Spans(NamedTuple):
    """Segments by themselves, wherever the others are cut; fields as those of `Segments`."""

    stages: Floats
    mean_stages: Floats
    kv_tokens: Floats
    decode_requests: Floats
    memory_tokens: Floats


@dataclass(frozen=True)
class Lengths:
    """The distinct output lengths l'_1 < … < l'_L of a workload; arrays of shape (L,).

    Row i of the arrays that speak of "entering" is about requests longer than l'_i, of index i − 1
    in `outputs`; row 0 is about all requests.

    Attributes:
        outputs: l'_i.
        rates_per_s: Rate of requests longer than l'_{i−1}.
        mean_prompts: Their mean prompt (with context, where there is some).
        memory_prompts: The prompt that memory counts for them, whole tokens.
        rate_sums: Σ λ·l' over requests of at most this length.
    """

    server: Server
    outputs: Integers
    rates_per_s: Floats
    mean_prompts: Floats
    memory_prompts: Integers
    rate_sums: Floats
    prefill_tokens: float
    prefill_tokens_sq: float
    decode_only: bool
    prompts_differ: bool

    @property
    def first_stage_offset(self) -> int:
        """How many stages before output token 1 the numbering of stages starts: s = token − this.

        1 in the engine convention, where prefill emits the first token; else 0.
        """
        return int(self.server.first_token == "prefill" and not self.decode_only)

    @property
    def first_output(self) -> int:
        """Position among the stages of the one that emits the first output token."""
        return int(self.server.first_token == "decode" and not self.decode_only)

    def segments(self, ends: ArrayLike) -> Segments:
        """Segments that end at these indices into `outputs`, ascending, the last m − 1."""
        last = np.asarray(ends, dtype=np.int64)
        first = np.concatenate([[0], last[:-1] + 1])
        spans = self.spans(first, last)
        return Segments(
            server=self.server,
            cuts=self.outputs[last],
            rates_per_s=self.rates_per_s[first],
            stages=spans.stages,
            mean_stages=spans.mean_stages,
            kv_tokens=spans.kv_tokens,
            decode_requests=spans.decode_requests,
            memory_tokens=spans.memory_tokens,
            boundary_tokens=self.boundary_tokens[first[1:]].astype(float),
            waiting_tokens=self.waiting_tokens[first[1:]].astype(float),
            prefill_tokens=self.prefill_tokens,
            prefill_tokens_sq=self.prefill_tokens_sq,
            prompts_differ=self.prompts_differ,
            first_output=self.first_output,
        )

    def spans(self, first: Integers, last: Integers) -> Spans:
        """What segments of the lengths first … last are, each by itself; elementwise."""
        cuts = self.outputs[last]
        before = np.where(first > 0, self.outputs[first - 1], 0)
        low, high = self.stage_range(before, cuts)
        decode_low = np.maximum(low, 1)
        decodes = (high - decode_low + 1).astype(float)
        entered = self.rates_per_s[first]
        sums = np.append(self.rate_sums, 0.0)
        leaving = sums[last] - sums[first - 1]
        staying = np.append(self.rates_per_s[1:], 0.0)[last]
        tokens = (leaving + staying * cuts - entered * before) / entered
        held = self.memory_prompts[first]
        return Spans(
            stages=(high - low + 1).astype(float),
            mean_stages=tokens + (high - low + 1 - (cuts - before)),
            kv_tokens=decodes * (self.mean_prompts[first] + (decode_low + high) / 2),
            decode_requests=decodes,
            memory_tokens=self.held_sums[held + high] - self.held_sums[held + low - 1],
        )

    def spread(self, most: int) -> Integers:
        """Indices of at most so many lengths, evenly spaced in their order, with the longest."""
        last = len(self.outputs) - 1
        return np.unique(np.linspace(0, last, min(most, last + 1)).astype(np.int64))

    def merged(self, ends: ArrayLike) -> Lengths:
        """The same requests where only these indices may end a segment, the last m − 1."""
        last = np.asarray(ends, dtype=np.int64)
        first = np.concatenate([[0], last[:-1] + 1])
        return replace(
            self,
            outputs=self.outputs[last],
            rates_per_s=self.rates_per_s[first],
            mean_prompts=self.mean_prompts[first],
            memory_prompts=self.memory_prompts[first],
            rate_sums=self.rate_sums[last],
        )

    def scaled(self, factor: float) -> Lengths:
        """The same requests at so many times their rates."""
        return replace(
            self,
            rates_per_s=factor * self.rates_per_s,
            rate_sums=factor * self.rate_sums,
        )

    @cached_property
    def held_sums(self) -> Floats:
        """Σ_{t=1}^{i} of t rounded up to whole blocks, for every KV i that can occur."""
        most = int(self.memory_prompts.max() + self.outputs[-1])
        held = _rounded_up(np.arange(most + 1), self.server.block_tokens)
        return np.asarray(np.cumsum(held, dtype=float))

    @property
    def boundary_tokens(self) -> Integers:
        """KV of a request waiting behind length i − 1, in blocks, shape (m,); row 0 has none."""
        before = np.concatenate([[0], self.outputs[:-1]])
        return _rounded_up(self.memory_prompts + before, self.server.block_tokens)

    @property
    def waiting_tokens(self) -> Integers:
        """The same without the token that the next stage computes, as prefill emits the first."""
        before = np.concatenate([[0], self.outputs[:-1]]) - self.first_stage_offset
        return _rounded_up(self.memory_prompts + before, self.server.block_tokens)

    def stage_range(self, before: Integers, cuts: Integers) -> tuple[Integers, Integers]:
        """First and last stage of segments that emit output tokens before + 1 … cut."""
        low = before + 1 - self.first_stage_offset
        if not self.decode_only:
            low = np.where(before == 0, 0, low)
        return low, cuts - self.first_stage_offset


def distinct_lengths(workload: Workload, server: Server, prompts: Prompts = "worst") -> Lengths:
    """The workload by output length, ready to be cut into segments.

    Raises:
        InputError: Some classes are decode-only and others are not: they share no stages.
    """
    decode_only = {one.prefill_tokens == 0 for one in workload.classes}
    if len(decode_only) > 1:
        raise InputError("classes", "prompts and contexts mixed", "prefill_tokens in all or none")
    order = sorted(workload.classes, key=lambda one: one.decode_tokens)
    output = np.array([one.decode_tokens for one in order], dtype=np.int64)
    rate = np.array([one.rate_per_s for one in order])
    prompt = np.array([one.prefill_tokens + one.context_tokens for one in order], dtype=np.int64)
    prefill = np.array([one.prefill_tokens for one in order], dtype=float)
    outputs, start = np.unique(output, return_index=True)
    entering = np.cumsum(rate[::-1])[::-1]
    mean = np.cumsum((rate * prompt)[::-1])[::-1] / entering
    longest = np.maximum.accumulate(prompt[::-1])[::-1]
    counted = longest if prompts == "worst" else np.ceil(mean * (1 - 1e-12)).astype(np.int64)
    return Lengths(
        server=server,
        outputs=outputs,
        rates_per_s=entering[start],
        mean_prompts=mean[start],
        memory_prompts=counted[start],
        rate_sums=np.cumsum(rate * output)[np.append(start[1:], len(output)) - 1],
        prefill_tokens=float(np.average(prefill, weights=rate)),
        prefill_tokens_sq=float(np.average(prefill**2, weights=rate)),
        decode_only=decode_only == {True},
        prompts_differ=bool(prompt.min() < prompt.max()),
    )


def _rounded_up(tokens: Integers, block: int) -> Integers:
    return -(-tokens // block) * block
