"""Random small servers under pressure, with every policy at random parameters.

What the compiled engine, its slow reference and the GPU have to agree on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from tests.support.policy_cases import RANDOM_PARAMETERS
from validation.policies import POLICIES, ConfiguredPolicy, Policy
from validation.simulator.model import poisson_model

EVICTION_OPTIONS = {
    "victim": ["last-admitted", "latest-arrival"],
    "requeue": ["front", "back"],
    "progress": ["lost", "lost", "kept"],
}

SEGMENT_THRESHOLDS = {"nested-wait": (1, 3), "nested-cap": (2, 12), "nested-authors": (1, 3)}
"""Range of the thresholds per segment."""


@dataclass(frozen=True)
class Case:
    workload: Workload
    server: Server
    policy: ConfiguredPolicy
    seed: int
    arrivals: str | None = None


def random_iteration_time(rng: random.Random) -> IterationTime:
    knots = [0.0, 40.0, 40.0, 100.0, 300.0] if rng.random() < 0.5 else [0.0, 100.0]
    seconds = sorted(rng.uniform(0.01, 0.1) for _ in knots)
    return IterationTime(
        tokens_knots=tuple(knots),
        seconds_knots=tuple(seconds),
        per_kv_token_s=rng.choice([0.0, 1e-4]),
        per_prefill_token_s=rng.choice([0.0, 1e-3]),
        per_decode_request_s=rng.choice([0.0, 1e-3]),
        per_prefill_token_sq_s=rng.choice([0.0, 1e-5]),
        per_prefill_context_token_s=rng.choice([0.0, 1e-5]),
    )


def random_case(name: str, number: int) -> Case:
    """A small server under pressure: memory for a few requests, rates near the limit."""
    rng = random.Random(f"{name}-{number}")
    decode_only = rng.random() < 0.2
    classes = tuple(
        RequestClass(
            name=f"class-{index}",
            rate_per_s=rng.uniform(0.2, 4.0),
            prefill_tokens=0 if decode_only else rng.randint(1, 30),
            context_tokens=rng.randint(1, 30) if decode_only else 0,
            decode_tokens=rng.randint(1, 25),
        )
        for index in range(rng.randint(1, 3))
    )
    largest = max(c.prefill_tokens + c.context_tokens + c.decode_tokens for c in classes)
    block = rng.choice([1, 1, 4, 16])
    capacity = -(-largest // block) * block * rng.choice([1, 2, 3, 4, 8])
    policy = POLICIES[name]
    first_tokens = ["prefill"] if policy.engine_convention_only else ["prefill", "decode"]
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=capacity,
        block_tokens=block,
        first_token=rng.choice(first_tokens),
        iteration_time=random_iteration_time(rng),
    )
    known = {parameter.name for parameter in policy.parameters}
    values: dict[str, Any] = {
        key: rng.choice(choices) for key, choices in EVICTION_OPTIONS.items() if key in known
    }
    if name in RANDOM_PARAMETERS:
        values |= RANDOM_PARAMETERS[name](rng, largest)
    thresholds, cuts = random_thresholds(rng, policy, classes)
    workload = Workload(name="random", classes=classes)
    configured = policy.configure(
        values, thresholds, cuts, random_priorities(rng, policy, values, classes)
    )
    return Case(workload, large_enough(server, workload, configured), configured, seed=number)


CROWD = {
    "greedy": {"pace": [0.3, 2.0], "watermark": [0.1], "cap": [12]},
    "dai": {"budget_tokens": [3, 8, 40]},
    "vllm-v1": {
        "max_num_batched_tokens": [3, 8, 40],
        "pace": [0.5],
        "reserve_full_prompt": [0],
        "async_scheduling": [1],
        "long_prefill_token_threshold": [2, 9],
    },
    "sarathi": {"chunk": [3, 8, 40], "watermark": [0.0]},
    "a-min": {"lowest_tokens": [5]},
}
"""Parameters under which a crowd is another case; budgets are below the number of decoders."""


def crowded_case(name: str, number: int) -> Case:
    """Many residents at once, for rules that do not touch each of them.

    Bursts of simultaneous arrivals, outputs of one token, prompts of whole blocks, requests that
    come with their prompts in memory, and memory from just enough for one to ample.
    """
    rng = random.Random(f"crowd-{name}-{number}")
    block = rng.choice([1, 4, 16])
    decode_only = rng.random() < 0.2
    some = rng.random() < 0.5
    prompts = [
        block * rng.randint(1, 3) if rng.random() < 0.5 else rng.randint(1, 40)
        for _ in range(rng.randint(1, 3))
    ]
    fresh = [not decode_only or (some and index == 0) for index in range(len(prompts))]
    classes = tuple(
        RequestClass(
            name=f"class-{index}",
            rate_per_s=rng.uniform(0.5, 8.0),
            prefill_tokens=prompt if new else 0,
            context_tokens=0 if new else prompt,
            decode_tokens=rng.choice([1, 2, rng.randint(3, 25), rng.randint(20, 60)]),
        )
        for index, (prompt, new) in enumerate(zip(prompts, fresh, strict=True))
    )
    largest = max(c.prefill_tokens + c.context_tokens + c.decode_tokens for c in classes)
    policy = POLICIES[name]
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=-(-largest // block) * block * rng.choice([1, 2, 5, 12, 40]),
        block_tokens=block,
        first_token="prefill"
        if policy.engine_convention_only
        else rng.choice(["prefill", "decode"]),
        iteration_time=random_iteration_time(rng),
    )
    known = {parameter.name for parameter in policy.parameters}
    options = {key: choices for key, choices in EVICTION_OPTIONS.items() if key in known}
    values: dict[str, Any] = {key: rng.choice(choices) for key, choices in options.items()}
    values |= {key: rng.choice(of) for key, of in CROWD.get(name, {}).items() if rng.random() < 0.4}
    thresholds, cuts = random_thresholds(rng, policy, classes)
    workload = Workload(name="crowd", classes=classes)
    configured = policy.configure(
        values, thresholds, cuts, random_priorities(rng, policy, values, classes)
    )
    arrivals = rng.choice(
        [None, "poisson:burst=30", "deterministic", "poisson:burst=9,burst_at_s=4"]
    )
    server = large_enough(server, workload, configured)
    return Case(workload, server, configured, seed=number, arrivals=arrivals)


def random_thresholds(
    rng: random.Random, policy: Policy, classes: Sequence[RequestClass]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Thresholds and cuts, if the policy needs them; the cuts its own or those of the workload."""
    if policy.per_class:
        return tuple(rng.randint(1, 3) for _ in classes), ()
    if not policy.per_segment:
        return (), ()
    lengths = {one.decode_tokens for one in classes}
    cuts = rng.sample(range(1, max(lengths)), min(max(lengths) - 1, rng.randint(0, 3)))
    own = rng.random() < 0.5
    segments = len(cuts) + 1 if own else len(lengths)
    last = max(lengths) + rng.choice([0, 5])
    lowest, highest = SEGMENT_THRESHOLDS[policy.name]
    thresholds = tuple(rng.randint(lowest, highest) for _ in range(segments))
    return thresholds, (*sorted(cuts), last) if own else ()


def random_priorities(
    rng: random.Random, policy: Policy, values: dict[str, Any], classes: Sequence[RequestClass]
) -> tuple[int, ...]:
    """Priorities of the classes, where the policy has any and runs by priority."""
    order = (values.get("victim"), values.get("requeue"))
    if not policy.prioritises or order != ("latest-arrival", "front") or rng.random() < 0.4:
        return ()
    return tuple(rng.randint(-1, 1) for _ in classes)


def large_enough(server: Server, workload: Workload, policy: ConfiguredPolicy) -> Server:
    """With as many more blocks as the policy needs beside its largest request."""
    while True:
        try:
            policy.check(poisson_model(workload, server))
        except InputError:
            more = server.kv_capacity_tokens + server.block_tokens
            server = server.model_copy(update={"kv_capacity_tokens": more})
        else:
            return server
