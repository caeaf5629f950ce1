"""Shapes of requests: what the simulator has to know of a request's class and lengths."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server, fit_of, peak_kv_tokens
from fluid.service_levels import promises
from fluid.workload import RequestClass, Workload
from validation.simulator.prefix.content import RUN
from validation.simulator.traffic.traffic import Traffic

SHAPE = np.dtype(
    [
        ("share_cumulative", "f8"),  # probability of this shape or an earlier one
        ("prompt_tokens", "i8"),  # prefill and context tokens known on arrival
        ("context_tokens", "i8"),  # of these, KV already present on arrival
        ("output_tokens", "i8"),
        ("prompt_rank", "i8"),  # position of the prompt among the distinct prompts, ascending
        ("volume_rank", "i8"),  # the same for KV tokens held, summed over all stages
        ("report_class", "u4"),  # class under which requests of this shape are reported
        ("too_long", "u4"),  # 1: never fits into memory, so that it is refused at submission
        ("limited", "i8"),  # 1: its class has limits,
        ("ttft_limit_s", "f8"),  # inf where there is none
        ("tpot_limit_s", "f8"),
        ("latency_limit_s", "f8"),
        ("promise", "i8"),  # whose limits they are, in the order of `promises`; -1: none
        ("quantile", "f8"),  # share of its requests that has to meet them; 0: their means
        ("work_s", "f8"),  # server seconds that a request takes of a full batch
        ("first_run", "i8"),  # its part of `Model.runs`, and how many records that is
        ("runs", "i8"),
        ("go_on", "f8"),  # probability that another turn follows, of the next shape
        ("think_s", "f8"),  # mean time before it
        ("think_random", "i8"),  # 1: exponential
    ],
    align=True,
)
"""A distinct (prompt, context, output) of a request.

Without gaps between its fields: what a model is known by is a hash of its bytes.
"""


def shapes_of(workload: Workload, server: Server, traffic: Traffic) -> NDArray[np.void]:
    """SHAPE records: one for every class, or for every turn or output length of it.

    Of conversations the turns follow each other, and arrive at a rate only if they are the first.

    Raises:
        InputError: Drawn output lengths beside conversations, whose later turns repeat them.
    """
    parts = []
    promise_of = {
        index: (number, one.slo.quantile)
        for number, one in enumerate(promises(workload))
        for index in one.classes
    }
    for index, one in enumerate(workload.classes):
        turns = one.turns
        lengths, within = np.full(len(turns.shares), one.decode_tokens), np.ones(1)
        if traffic.outputs is not None:
            if one.conversation is not None:
                allowed = f"none beside the conversations of {one.name}, which repeat them"
                raise InputError("outputs", traffic.outputs.law, allowed)
            longest = _longest_output(one, server)
            lengths, within = traffic.outputs.lengths(one.decode_tokens, longest)
        part = np.zeros(len(lengths), SHAPE)
        part["share_cumulative"][: len(within)] = one.rate_per_s * turns.shares[0] * within
        part["prompt_tokens"] = turns.prefill_tokens + one.context_tokens
        part["context_tokens"] = one.context_tokens
        part["output_tokens"] = lengths
        part["report_class"] = index
        number, quantile = promise_of.get(index, (-1, "mean"))
        part["promise"], part["quantile"] = number, 0 if quantile == "mean" else quantile
        slo = one.slo or workload.slo
        part["limited"] = slo is not None
        for limit in ("ttft", "tpot", "latency"):
            asked_s = getattr(slo, f"{limit}_s", None)
            part[f"{limit}_limit_s"] = math.inf if asked_s is None else asked_s
        if one.conversation is not None:
            part["go_on"] = turns.go_on
            part["think_s"] = one.conversation.think_time_s
            part["think_random"] = one.conversation.think_time_law == "exponential"
        # A block that the prefix does not fill is every request's own.
        part["first_run"], part["runs"] = index, one.prefix_tokens >= server.block_tokens
        parts.append(part)
    shapes = np.concatenate(parts)
    shapes["share_cumulative"] = np.cumsum(shapes["share_cumulative"])
    shapes["share_cumulative"] /= shapes["share_cumulative"][-1]
    return shapes


def shared_runs(workload: Workload, server: Server) -> NDArray[np.void]:
    """RUN records: the prefix that all requests of a class have in common, shape (classes,)."""
    runs = np.zeros(len(workload.classes), RUN)
    runs["end_block"] = [one.prefix_tokens // server.block_tokens for one in workload.classes]
    runs["id"] = np.arange(len(runs))
    return runs


def starts_of(workload: Workload) -> Workload:
    """The requests that come at a rate: those that do not follow an earlier turn."""
    classes = tuple(
        one.model_copy(update={"rate_per_s": one.rate_per_s * float(one.turns.shares[0])})
        for one in workload.classes
    )
    return workload.model_copy(update={"classes": classes})


def _longest_output(one: RequestClass, server: Server) -> int:
    """Output tokens of the longest request of a class that fits; its own where not even that."""
    outputs = np.arange(1, server.usable_kv_tokens + 2)
    peak = peak_kv_tokens(
        one.prefill_tokens,
        outputs,
        one.context_tokens,
        first_token=server.first_token,
        block_tokens=server.block_tokens,
    )
    return max(int((peak <= server.usable_kv_tokens).sum()), one.decode_tokens)


def over_shapes(profile: NDArray[np.void], shapes: NDArray[np.void]) -> NDArray[np.void]:
    """PIECE records of the classes, for all shapes of each class in their proportions."""
    if profile.shape[1] == len(shapes):
        return profile
    owner = shapes["report_class"]
    shares = np.diff(shapes["share_cumulative"], prepend=0.0)
    within = shares / np.bincount(owner, shares)[owner]
    here = np.diff(profile["share_cumulative"], axis=1, prepend=0.0)[:, owner] * within
    found = profile[:, owner].copy()
    found["share_cumulative"] = np.cumsum(here, axis=1)
    found["share_cumulative"] /= found["share_cumulative"][:, -1:]
    return found


def mark_too_long(shapes: NDArray[np.void], server: Server) -> None:
    """Mark what never fits; it never enters, so that its lengths may be those of what does.

    Raises:
        InputError: Nothing else is left.
    """
    context_tokens = shapes["context_tokens"]
    computed_tokens = shapes["prompt_tokens"] - context_tokens
    fit = fit_of(computed_tokens, shapes["output_tokens"], context_tokens, server)
    shapes["too_long"] = fit.too_large | fit.too_long
    if shapes["too_long"].all():
        allowed = f"some that fit into the {server.usable_kv_tokens} tokens of {server.name}"
        raise InputError("requests", "all too long for the KV cache", allowed)
    fitting = np.flatnonzero(shapes["too_long"] == 0)[0]
    for name in ("prompt_tokens", "context_tokens", "output_tokens"):
        shapes[name][shapes["too_long"] == 1] = shapes[name][fitting]


def work_parts(tau: IterationTime, capacity_tokens: int) -> dict[str, float]:
    """The last slope of f, and what prompt, output and KV tokens take of a full server.

    Token by token, as in the fluid model: the overhead of an iteration is shared by what fits into
    memory, in proportion to the KV tokens held.
    """
    token_s = tau.last_slope_s
    return {
        "token_s": token_s,
        "prefill_work_s": token_s + tau.per_prefill_token_s,
        "output_work_s": token_s + tau.per_decode_request_s,
        "kv_work_s": tau.per_kv_token_s + tau.overhead_s / capacity_tokens,
    }


def work_of(constants: np.void, shapes: NDArray[np.void]) -> NDArray[np.float64]:
    prompts, outputs = shapes["prompt_tokens"], shapes["output_tokens"]
    work_s: NDArray[np.float64] = (
        constants["prefill_work_s"] * (prompts - shapes["context_tokens"])
        + constants["output_work_s"] * outputs
        + constants["kv_work_s"] * outputs * (prompts + 0.5 * outputs)
    )
    return work_s


def ranks_of(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each value among the distinct values, ascending, from 0."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def kv_volumes(shapes: NDArray[np.void], server: Server) -> NDArray[np.int64]:
    """m of each shape (THEORY 2): block-rounded KV tokens held, summed over its stages."""
    decode_only = shapes["prompt_tokens"] == shapes["context_tokens"]
    first = shapes["prompt_tokens"] + decode_only
    silent = (server.first_token == "decode") & ~decode_only
    last = first + shapes["output_tokens"] - 1 + silent
    return _rounded_sum(last, server.block_tokens) - _rounded_sum(first - 1, server.block_tokens)


def _rounded_sum(last: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Σ of 1 … last, each rounded up to whole blocks."""
    whole, rest = last // block, last % block
    return block * (block * (whole * (whole + 1) // 2) + rest * (whole + 1))
