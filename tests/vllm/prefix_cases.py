"""Random small servers and requests that have prompts in common, for vLLM's scheduler and ours.

Among them: system prompts, conversations, repeated prompts, prompts of whole blocks, copies that
arrive together, equal arrival times with and without equal priorities.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

from fluid.iteration import IterationTime
from fluid.server import Server
from tests.vllm.virtual_engine import SEATS, Tape

REQUESTS = 40
VOCABULARY = 100
TURNS_TOKENS = 12
"""Blocks up to which a conversation goes on."""


@dataclass(frozen=True)
class Case:
    """A server, requests, the simulator's parameters and vLLM's settings."""

    server: Server
    tape: Tape
    parameters: dict[str, Any]
    settings: dict[str, Any]


@dataclass
class _Prompts:
    """Token lists that have beginnings in common."""

    rng: random.Random
    block: int
    said: list[list[int]] = field(default_factory=list)
    asked: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.systems = [self.draw(self.rng.choice([self.block, 2 * self.block, 37])) for _ in "ab"]

    def draw(self, count: int) -> list[int]:
        return [self.rng.randrange(VOCABULARY) for _ in range(count)]

    def next(self) -> list[int]:
        """The prompt of one more request."""
        rng, block = self.rng, self.block
        kind = rng.random()
        if self.asked and kind < 0.15:
            return list(rng.choice(self.asked[-6:]))
        if self.said and kind < 0.5:
            before = rng.choice(self.said[-8:])
            if len(before) < TURNS_TOKENS * block:
                return before + self.draw(rng.randint(1, 2 * block))
        start = rng.choice([*self.systems, []])
        prompt = start + self.draw(rng.randint(1, 3 * block))
        if rng.random() < 0.3:
            whole = math.ceil(len(prompt) / block) * block
            prompt += self.draw(whole - len(prompt))
        return prompt


def random_prefix_case(name: str, number: int) -> Case:
    """The case of this number; cases of different names have nothing in common.

    `name` says the order of the queue, fcfs or priority, and what else tells tests apart.
    """
    rng = random.Random(f"{name}-{number}")
    block = rng.choice([16, 32])
    prompts = _Prompts(rng, block)
    rate = rng.uniform(0.5, 20.0)
    arrived_at_s, asked, tokens, clock_s = [], [], [], 0.0
    while len(asked) < REQUESTS:
        clock_s += rng.expovariate(rate)
        prompt = prompts.next()
        prompts.asked.append(prompt)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            arrived_at_s.append(clock_s)
            asked.append(len(prompt))
            tokens.append(prompt + prompts.draw(rng.choice([1, rng.randint(1, 2 * block)])))
            if rng.random() < 0.3:
                prompt = prompts.next()
        prompts.said.append(tokens[-1])
    outputs = [len(one) - prompt for one, prompt in zip(tokens, asked, strict=True)]
    priorities = None
    if name.startswith("priority"):
        levels = rng.choice([1, 1, 2, 3])
        priorities = [rng.randrange(levels) for _ in asked]
    largest = max(math.ceil(len(one) / block) for one in tokens)
    blocks = 1 + math.ceil(largest * rng.choice([1, 1.3, 2, 3]))
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=blocks * block,
        block_tokens=block,
        iteration_time=IterationTime.affine(0.05, 1e-3, 1e-4),
    )
    budget = rng.choice([block // 2, block + 5, 3 * block, 2048, 2048])
    seats = min(budget, rng.choice([2, 4, 8, SEATS, SEATS]))
    active = min(seats, rng.choice([1, 3, seats, seats, seats, seats]))
    settings: dict[str, Any] = {
        "max_num_batched_tokens": budget,
        "max_num_seqs": seats,
        "watermark": rng.choice([0.0, 0.0, 0.05, 0.2]),
        "scheduler_reserve_full_isl": rng.random() < 0.8,
        "long_prefill_token_threshold": min(budget, rng.choice([0, 0, 0, 7, block])),
    }
    if active < seats:
        settings["max_num_active_seqs"] = active
    parameters = dict(settings)
    parameters["reserve_full_prompt"] = int(parameters.pop("scheduler_reserve_full_isl"))
    tape = Tape(arrived_at_s, asked, outputs, priorities, tokens)
    return Case(server, tape, parameters, settings)


def contents(tape: Tape, block: int) -> list[list[int]]:
    """What the full blocks of each request hold, a number for every beginning."""
    numbers: dict[tuple[int, ...], int] = {}
    return [
        [
            numbers.setdefault(tuple(one[:end]), len(numbers))
            for end in range(block, len(one) + 1, block)
        ]
        for one in tape.tokens or []
    ]
