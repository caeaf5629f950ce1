"""Servers with room for few requests: random ones, exact optima of tiny ones, and a slow server."""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, hstack, vstack

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import Stages, class_stages, linear_stage_seconds
from fluid.steady.packing import Packing
from fluid.workload import Workload
from tests.support import builders

MOST_STATES = 5_000


@dataclass(frozen=True)
class PackingCase:
    workload: Workload
    server: Server


def random_packing(seed: int) -> PackingCase:
    """One to three classes, memory for 2 to 20 of the largest requests, blocks half of the time."""
    draw = np.random.default_rng(seed)
    classes = [
        (
            float(draw.uniform(0.2, 3)),
            int(10 ** draw.uniform(0, 3)),
            int(10 ** draw.uniform(0, 2.3)),
        )
        for _ in range(draw.integers(1, 4))
    ]
    block = int(draw.choice([1, 16]))
    peak = -(-max(prompt + output for _, prompt, output in classes) // block) * block
    tau = IterationTime.affine(
        draw.uniform(0.005, 0.03),
        per_token_s=draw.choice([0, 2e-5]),
        per_kv_token_s=10 ** draw.uniform(-7, -5),
    )
    convention = str(draw.choice(["prefill", "decode"]))
    tokens = int(peak * draw.uniform(2, 20))
    machine = builders.server(tau, convention, tokens, block)
    return PackingCase(builders.workload(*classes), machine)


def tiny_packing(seed: int) -> PackingCase:
    """One or two classes of a few tokens, memory for one or two of the largest."""
    draw = np.random.default_rng(seed)
    most = 5 if draw.random() < 0.5 else 3
    classes = [
        (float(draw.uniform(0.5, 3)), int(draw.integers(2, 12)), int(draw.integers(1, most)))
        for _ in range(1 if most == 5 else 2)
    ]
    peak = max(prompt + output for _, prompt, output in classes)
    tau = IterationTime.affine(0.01, per_kv_token_s=draw.uniform(0, 1e-3))
    machine = builders.server(tau, "decode", int(peak * draw.uniform(1, 2.6)))
    return PackingCase(builders.workload(*classes), machine)


def exact_scale(case: PackingCase) -> float:
    """The largest multiple of the rates that any schedule carries, where everybody advances."""
    rates = np.array([one.rate_per_s for one in case.workload.classes])
    admissions, equalities, totals = _circulations(case)
    found = linprog(
        c=np.append(np.zeros(len(admissions)), -1.0),
        A_ub=np.column_stack([-admissions.T, rates]),
        b_ub=np.zeros(len(rates)),
        A_eq=hstack([equalities, csr_array((len(totals), 1))]),
        b_eq=totals,
    )
    return float(found.x[-1])


def exact_worth(case: PackingCase) -> float:
    """The largest Σ weight·rate that any schedule carries of the classes' rates, per second."""
    rates = np.array([one.rate_per_s for one in case.workload.classes])
    weights = np.array([one.weight for one in case.workload.classes])
    admissions, equalities, totals = _circulations(case)
    found = linprog(
        c=-admissions @ weights, A_ub=admissions.T, b_ub=rates, A_eq=equalities, b_eq=totals
    )
    return float(-found.fun)


def _circulations(case: PackingCase) -> tuple[np.ndarray, csr_array, np.ndarray]:
    """Schedules for ever, as flows ≥ 0 per second on the edges of a graph of all states.

    A state is who was admitted in which of the last iterations, an edge what is admitted next.

    Returns:
        Admissions by edge and class, and the equations of the flows: matrix and right-hand side.
    """
    stages = [class_stages(one, case.server) for one in case.workload.classes]
    capacity = case.server.usable_kv_tokens
    memory = max(one.count for one in stages) - 1
    most = [capacity // int(one.held_kv_tokens.max()) for one in stages]
    choices = list(itertools.product(*(range(one + 1) for one in most)))
    empty = ((0,) * len(stages),) * memory
    known, todo, edges = {empty: 0}, [empty], []
    while todo:
        state = todo.pop()
        for admitted in choices:
            recent = (admitted, *state)
            if _held(recent, stages) > capacity:
                continue
            after = recent[:memory]
            if after not in known:
                known[after] = len(known)
                todo.append(after)
            edges.append((known[state], known[after], admitted))
        assert len(known) <= MOST_STATES
    start, end = np.array([one[0] for one in edges]), np.array([one[1] for one in edges])
    admissions = np.array([one[2] for one in edges], dtype=float)
    tau = case.server.iteration_time
    work_s = [linear_stage_seconds(one, case.server, tau.last_slope_s).sum() for one in stages]
    seconds = tau.overhead_s + admissions @ work_s
    flows = np.arange(len(edges))
    balance = coo_array(
        (
            np.concatenate([np.ones(len(edges)), -np.ones(len(edges))]),
            (np.concatenate([start, end]), np.concatenate([flows, flows])),
        ),
        shape=(len(known), len(edges)),
    )
    equalities = vstack([balance, csr_array(seconds[None])])
    return admissions, equalities, np.append(np.zeros(len(known)), 1.0)


def _held(recent: tuple[tuple[int, ...], ...], stages: list[Stages]) -> int:
    """KV of those admitted `age` iterations ago, recent[age][class] of them."""
    return sum(
        count * int(one.held_kv_tokens[age])
        for age, admitted in enumerate(recent)
        for count, one in zip(admitted, stages, strict=True)
        if age < one.count
    )


def served_share(found: Packing, case: PackingCase, seconds_each: float) -> float:
    """Requests served ÷ those that the packing's largest multiple promises, the least of a class.

    Every iteration of the schedule is run as it stands on requests that are always there: one
    pattern after the other for its share of the time, the server empty in between. Memory is
    counted request by request.

    Args:
        seconds_each: Time of all patterns together; each runs for whole periods, rounded up, as one
            class may be served by a pattern that runs once in a while only.
    """
    stages = [class_stages(one, case.server) for one in case.workload.classes]
    tau, capacity = case.server.iteration_time, case.server.usable_kv_tokens
    residents: deque[tuple[int, int]] = deque()
    done, clock_s = np.zeros(len(stages)), 0.0

    def iterate(admitted: list[int]) -> None:
        nonlocal clock_s
        for kind, count in enumerate(admitted):
            residents.extend([(kind, 0)] * count)
        assert sum(int(stages[kind].held_kv_tokens[age]) for kind, age in residents) <= capacity
        prompts = [stages[k].prefill_tokens for k, age in residents if not stages[k].decodes[age]]
        read = [int(stages[k].kv_tokens[age]) for k, age in residents if stages[k].decodes[age]]
        clock_s += float(
            tau(
                sum(prompts) + len(read),
                kv_tokens=sum(read),
                prefill_tokens=sum(prompts),
                decode_requests=len(read),
                prefill_tokens_sq=sum(one**2 for one in prompts),
            )
        )
        for _ in range(len(residents)):
            kind, age = residents.popleft()
            if age + 1 < stages[kind].count:
                residents.append((kind, age + 1))
            else:
                done[kind] += 1

    for one in found.schedule:
        for _ in range(math.ceil(one.periods_per_s * seconds_each)):
            for column in one.pattern.admitted.T.tolist():
                iterate(column)
        while residents:
            iterate([0] * len(stages))
    rates = np.array([one.rate_per_s for one in case.workload.classes])
    return float((done / (clock_s * found.inner_scale * rates)).min())
