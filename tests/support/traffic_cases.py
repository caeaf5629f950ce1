"""Random traffic for random small servers, in the engine and in its slow reference."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fluid.overload.impatience import Patience
from fluid.server import peak_kv_tokens
from fluid.workload import RequestClass
from tests.support.random_cases import Case, random_case
from validation.reference import Audience, Request
from validation.simulator.arrivals import gamma_of_mean_one
from validation.simulator.cpu import SamplePath
from validation.simulator.model import Model, poisson_model
from validation.simulator.rng import two_uniforms
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

_TURN, _PATIENCE, _NORMAL, _ACCEPT = (np.uint64(purpose) for purpose in (21, 22, 23, 24))


RULES = ("greedy", "wait", "nested-wait", "vllm-v1", "sarathi", "dai", "sglang")
"""One of each kind: every rule compiles a loop of its own for clients that react. All of them:
``python -m tests.benchmarks.traffic_agreement``."""


def closed(rng: random.Random) -> Traffic:
    return Traffic(clients=random_clients(rng, rng.choice([0.0, 0.3])))


def job(rng: random.Random) -> Traffic:
    clients = random_clients(rng, rng.choice([0.0, 0.3])) if rng.random() < 0.3 else None
    at_once = clients is None and rng.random() < 0.6
    return Traffic(clients=clients, job=FiniteJob(at_once=at_once))


def bounded(rng: random.Random) -> Traffic:
    limits = [QueueLimit(rng.randint(1, 6)), QueueLimit(prompt_tokens=rng.randint(1, 60))]
    return Traffic(queue=rng.choice([*limits, QueueLimit(4, 40)]))


def impatient(rng: random.Random) -> Traffic:
    return Traffic(patience=random_patience(rng))


def too_long(rng: random.Random) -> Traffic:
    clients = random_clients(rng, 0.2) if rng.random() < 0.5 else None
    return Traffic(clients=clients, refuse_too_long=True)


def everything(rng: random.Random) -> Traffic:
    queue = QueueLimit(rng.randint(1, 5), rng.choice([None, 50]))
    patience = random_patience(rng)
    return Traffic(random_clients(rng, 0.4), None, queue, patience, rng.random() < 0.5)


KINDS: tuple[Callable[[random.Random], Traffic], ...] = (
    closed,
    job,
    bounded,
    impatient,
    too_long,
    everything,
)


def random_clients(rng: random.Random, think_s: float) -> Clients:
    if think_s == 0:
        return Clients(rng.randint(1, 6))
    law = rng.choice(["deterministic", "exponential"])
    return Clients(rng.randint(1, 6), think_s * rng.uniform(0.5, 3.0), law)  # type: ignore[arg-type]


def random_patience(rng: random.Random) -> Patience:
    return Patience(
        rng.choice([0.05, 0.3, 2.0]) * rng.uniform(0.5, 2.0), rng.choice([0, 0.6, 1, 2])
    )


@dataclass(frozen=True)
class TrafficCase:
    """A random case under random traffic, at a rate that is more than it can do now and then."""

    case: Case
    traffic: Traffic
    rate_scale: float

    @property
    def model(self) -> Model:
        return poisson_model(self.case.workload, self.case.server, traffic=self.traffic)


def random_traffic_case(name: str, number: int, *, ahead: bool = False) -> TrafficCase:
    """Kinds of traffic in turn.

    Args:
        ahead: Whether the rule may decide while an iteration runs, as that of some cases does.
    """
    rng = random.Random(f"traffic-{name}-{number}")
    case = random_case(name, number)
    if not ahead:
        case = synchronous(case)
    traffic = KINDS[number % len(KINDS)](rng)
    if traffic.refuse_too_long and not case.policy.policy.per_class:
        case = with_a_long_class(case)
    return TrafficCase(case, traffic, rng.choice([1.0, 2.0, 5.0]))


def synchronous(case: Case) -> Case:
    """Without decisions ahead, under which a request that has ended keeps its seat for a while."""
    values = {k: v for k, v in case.policy.values.items() if k != "async_scheduling"}
    return replace(case, policy=replace(case.policy, values=values))


def with_a_long_class(case: Case) -> Case:
    """With a further class that never fits, the last to go; segments end where they did."""
    longest = max(one.decode_tokens for one in case.workload.classes)
    long = RequestClass(
        name="long",
        rate_per_s=case.workload.rate_per_s / 3,
        prefill_tokens=case.server.kv_capacity_tokens,
        decode_tokens=longest + 1,
    )
    classes = (*case.workload.classes, long)
    policy = case.policy
    if policy.priorities:
        policy = replace(policy, priorities=(*policy.priorities, max(policy.priorities)))
    workload = case.workload.model_copy(update={"classes": classes})
    return replace(case, workload=workload, policy=policy)


@dataclass(frozen=True)
class Drawn:
    """What the clients of a case draw, in plain Python."""

    of: TrafficCase

    def request(self, draw: int, at_s: float, kind: int) -> Request:
        """A request of one of the classes."""
        one = self.of.case.workload.classes[kind]
        server = self.of.case.server
        peak = peak_kv_tokens(
            one.prefill_tokens,
            one.decode_tokens,
            one.context_tokens,
            first_token=server.first_token,
            block_tokens=server.block_tokens,
        )
        lengths = one.prefill_tokens, one.context_tokens, one.decode_tokens
        priorities = self.of.case.policy.priorities
        return Request(
            draw,
            at_s,
            kind,
            *lengths,
            order=draw,
            gives_up_at_s=at_s + self.patience_s(draw),
            too_long=bool(peak > server.usable_kv_tokens),
            priority=priorities[kind] if priorities else 0,
        )

    def patience_s(self, draw: int) -> float:
        """How long the client of a request waits."""
        patience = self.of.traffic.patience
        if patience is None:
            return math.inf
        uniform, _ = two_uniforms(self.of.case.seed, 0, draw, _PATIENCE)
        if patience.variation == 0:
            return patience.mean_s
        if patience.variation == 1:
            return -patience.mean_s * math.log(uniform)
        drawn = gamma_of_mean_one(
            float(patience.variation), self.of.case.seed, 0, draw, uniform, _NORMAL, _ACCEPT
        )
        return float(patience.mean_s * drawn)

    def kind(self, draw: int) -> int:
        """Class of a client's request."""
        _, choice = two_uniforms(self.of.case.seed, 0, draw, _TURN)
        return int(np.searchsorted(np.cumsum(self.of.case.workload.shares), choice))

    def first(self, trace: SamplePath, requests: int) -> list[Request]:
        """Arrivals as the engine laid them out; those of clients at time 0."""
        clients = self.of.traffic.clients
        if clients is None:
            kinds, times_s = trace.class_index.tolist(), trace.arrived_at_s.tolist()
            return [self.request(k, times_s[k], kinds[k]) for k in range(requests)]
        return [self.request(k, 0.0, self.kind(k)) for k in range(min(clients.number, requests))]

    def audience(self, requests: int) -> Audience:
        """Clients that send so many requests together."""
        queue, clients = self.of.traffic.queue, self.of.traffic.clients
        bounds = (None, None) if queue is None else (queue.requests, queue.prompt_tokens)
        most = tuple(math.inf if one is None else one for one in bounds)
        if clients is None:
            return Audience(queue_requests=most[0], queue_tokens=most[1])
        left = requests - min(clients.number, requests)

        def send_next(ended: Request, at_s: float) -> Request | None:
            nonlocal left
            if left == 0:
                return None
            left -= 1
            draw = ended.order + clients.number
            think_s = clients.think_s
            if clients.think_law == "exponential":
                think_s *= -math.log(two_uniforms(self.of.case.seed, 0, draw, _TURN)[0])
            return self.request(draw, at_s + think_s, self.kind(draw))

        return Audience(send_next, *most, requests=requests)
