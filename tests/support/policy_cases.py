"""Random parameters of each policy for the test of agreement: one function per policy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

Values = dict[str, Any]


def sometimes(rng: random.Random, share: float, options: dict[str, list[Any]]) -> Values:
    """Each option with this probability, at one of its values."""
    return {key: rng.choice(choices) for key, choices in options.items() if rng.random() < share}


def greedy(rng: random.Random, largest: int) -> Values:
    return sometimes(
        rng, 0.35, {"watermark": [0.0, 0.1, 0.3], "cap": [2, 5], "pace": [0.2, 0.9, 1.5]}
    )


def vllm_v1(rng: random.Random, largest: int) -> Values:
    return sometimes(
        rng,
        0.2,
        {
            "max_num_batched_tokens": [1, 2, 3, 4, 6, 16, 40],
            "max_num_seqs": [1, 3, 6],
            "watermark": [0.05, 0.1, 0.4],
            "reserve_full_prompt": [0],
            "cap": [2, 5],
            "pace": [0.2, 0.9, 1.5],
            "async_scheduling": [1],
            "max_num_active_seqs": [4, 6],
            "long_prefill_token_threshold": [1, 5, 12],
        },
    )


def vllm_v0(rng: random.Random, largest: int) -> Values:
    return sometimes(
        rng,
        0.3,
        {
            "watermark": [0.0, 0.1, 0.3],
            "max_batched_tokens": [largest, 2 * largest],
            "padded": [1],
            "cap": [2, 4, 8],
        },
    )


def sarathi(rng: random.Random, largest: int) -> Values:
    return sometimes(
        rng, 0.5, {"chunk": [1, 5, 16, 40], "cap": [2, 5, 10], "watermark": [0.0, 0.1, 0.3]}
    )


def trtllm(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.4, {"max_num_tokens": [1, 3, 6, 16, 40], "max_batch_size": [1, 3, 6]})


def trtllm_no_evict(rng: random.Random, largest: int) -> Values:
    return trtllm(rng, largest) | sometimes(rng, 0.4, {"max_output_tokens": [5, 20, largest]})


def sglang(rng: random.Random, largest: int) -> Values:
    """Mostly with little reserved, so that there are retractions."""
    guess = {"schedule_conservativeness": [0.01, 0.3, 3.0], "clip_max_new_tokens": [1, 2, 5]}
    seats = {"max_running_requests": [1, 3, 6], "max_output_tokens": [5, 20, largest]}
    chunk = {"chunked_prefill_size": [1, 5, 16, 40]}
    return sometimes(rng, 0.7, guess) | sometimes(rng, 0.1, seats) | sometimes(rng, 0.2, chunk)


VALVES = {"max_wait_s": [0.0, 0.1, 1.0], "drain": [0.5, 1.0, 3.0]}


def wait(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.35, VALVES)


def nested_wait(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.35, {**VALVES, "boundary_iteration": [1]})


def authors(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.7, {"cap": [1, 2, 4, 8]})


def dai(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.35, {"budget_tokens": [1, 7, 20, 60]})


def slai(rng: random.Random, largest: int) -> Values:
    options = {"budget_tokens": [1, 7, 20, 60], "tbt_target_s": [0.0, 0.05, 0.3, 1.0, math.inf]}
    return sometimes(rng, 0.35, options)


def a_min(rng: random.Random, largest: int) -> Values:
    return sometimes(rng, 0.35, {"lowest_tokens": [2, 5, 10, 40]})


RANDOM_PARAMETERS: dict[str, Callable[[random.Random, int], Values]] = {
    "greedy": greedy,
    "dai": dai,
    "slai": slai,
    "a-min": a_min,
    "wait": wait,
    "nested-wait": nested_wait,
    "wait-authors": authors,
    "nested-authors": authors,
    "vllm-v1": vllm_v1,
    "vllm-v0": vllm_v0,
    "sarathi": sarathi,
    "sglang": sglang,
    "trtllm-no-evict": trtllm_no_evict,
    "trtllm-max-utilization": trtllm,
}
"""By policy: a function of the generator and the tokens of the largest request."""
