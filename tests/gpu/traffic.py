"""Random small servers under every kind of traffic that the simulator knows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fluid.overload.impatience import Patience
from fluid.traces.tape import Tape
from fluid.workload import RatePiece
from tests.support.random_cases import Case, large_enough, random_case
from validation.policies import ConfiguredPolicy
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.model import Model, poisson_model, tape_model
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

ARRIVALS = (
    "poisson",
    "gamma:cv=2",
    "deterministic",
    "mmpp:ratio=5,mean_s=3",
    "poisson-clipped",
    "poisson:burst=9,burst_at_s=3",
)
PROFILE, TAPE = "rate profile", "tape"
BEHAVIOURS = {
    "clients": Traffic(clients=Clients(4, 0.2, "exponential"), job=FiniteJob()),
    "job": Traffic(job=FiniteJob(at_once=True)),
    "bounded queue": Traffic(queue=QueueLimit(3, 60)),
    "patience": Traffic(patience=Patience(1.0, 0.6)),
}
TRAFFIC = (*ARRIVALS, *BEHAVIOURS, PROFILE, TAPE)


def random_models(
    name: str, number: int, tape_requests: int
) -> Iterator[tuple[str, Model, ConfiguredPolicy]]:
    """One random server and policy, with its model under each kind of `TRAFFIC`."""
    case = random_case(name, number)
    for text in ARRIVALS:
        model = poisson_model(case.workload, case.server, parse_arrivals(text))
        yield text, model, case.policy
    for behaviour, traffic in BEHAVIOURS.items():
        model = poisson_model(case.workload, case.server, traffic=traffic)
        yield behaviour, model, case.policy
    pieces = (RatePiece(start_s=0, multiplier=0.5), RatePiece(start_s=2, multiplier=2.0))
    varying = case.workload.model_copy(update={"rate_profile": pieces, "period_s": 5.0})
    yield PROFILE, poisson_model(varying, case.server), case.policy
    yield TAPE, *_recorded(case, number, tape_requests)


def _recorded(case: Case, number: int, requests: int) -> tuple[Model, ConfiguredPolicy]:
    """The classes of the case in turn, at times of its rate; a tape has one class and no context.

    Prompts that were in the cache have to be computed here, which may take more memory.
    """
    classes = tuple(
        one.model_copy(
            update={"prefill_tokens": one.prefill_tokens + one.context_tokens, "context_tokens": 0}
        )
        for one in case.workload.classes
    )
    chosen = [classes[index % len(classes)] for index in range(max(requests, len(classes)))]
    rng = random.Random(number)
    tape = Tape(
        np.cumsum([rng.expovariate(case.workload.rate_per_s) for _ in chosen]),
        np.array([one.prefill_tokens for one in chosen]),
        np.array([one.decode_tokens for one in chosen]),
    )
    workload = case.workload.model_copy(update={"classes": classes})
    server = large_enough(case.server, workload, case.policy)
    policy = case.policy
    if policy.policy.per_class:
        policy = replace(policy, thresholds=policy.thresholds[:1])
    policy = replace(policy, priorities=policy.priorities[:1])
    return tape_model(tape, server), policy
