"""Random small servers and requests that have tokens in common, for vLLM, reference and kernels.

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
from validation.reference import Request

REQUESTS = 40
VOCABULARY = 100
MOST_BLOCKS = 12
"""Of a conversation that goes on."""

MANY = 1024
"""Seats, as good as no limit."""


@dataclass(frozen=True)
class Case:
    """A server, requests in order of arrival, and parameters of vllm-v1 without the order.

    Attributes:
        tokens: Of each request, prompt and outputs.
        priorities: Of each request; empty first come, first served.
    """

    server: Server
    arrived_at_s: list[float]
    prompt_tokens: list[int]
    tokens: list[list[int]]
    priorities: list[int]
    parameters: dict[str, Any]

    @property
    def output_tokens(self) -> list[int]:
        return [
            len(one) - prompt for one, prompt in zip(self.tokens, self.prompt_tokens, strict=True)
        ]

    @property
    def contents(self) -> list[list[int]]:
        """What the full blocks of each request hold, a number for every beginning."""
        numbers: dict[tuple[int, ...], int] = {}
        block = self.server.block_tokens
        return [
            [
                numbers.setdefault(tuple(one[:end]), len(numbers))
                for end in range(block, len(one) + 1, block)
            ]
            for one in self.tokens
        ]

    def values(self, ahead: bool) -> dict[str, Any]:
        """Parameters of vllm-v1, the order among them."""
        victim = "latest-arrival" if self.priorities else "last-admitted"
        order = {"victim": victim, "async_scheduling": int(ahead), "prefix_caching": 1}
        return self.parameters | order

    def requests(self) -> list[Request]:
        """As the slow reference has them."""
        lengths = zip(self.arrived_at_s, self.prompt_tokens, self.output_tokens, strict=True)
        priorities = self.priorities or [0] * len(self.tokens)
        return [
            Request(number, at_s, 0, prompt, 0, outputs, priority=priority, content=content)
            for number, ((at_s, prompt, outputs), priority, content) in enumerate(
                zip(lengths, priorities, self.contents, strict=True)
            )
        ]


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
            if len(before) < MOST_BLOCKS * block:
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
    priorities = []
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
    seats = min(budget, rng.choice([2, 4, 8, MANY, MANY]))
    active = min(seats, rng.choice([1, 3, seats, seats, seats, seats]))
    parameters: dict[str, Any] = {
        "max_num_batched_tokens": budget,
        "max_num_seqs": seats,
        "watermark": rng.choice([0.0, 0.0, 0.05, 0.2]),
        "reserve_full_prompt": int(rng.random() < 0.8),
        "long_prefill_token_threshold": min(budget, rng.choice([0, 0, 0, 7, block])),
    }
    if active < seats:
        parameters["max_num_active_seqs"] = active
    return Case(server, arrived_at_s, asked, tokens, priorities, parameters)
