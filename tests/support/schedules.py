"""Nested WAIT under random schedules: the compiled rule and the slow one on the same requests."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from fluid.server import Server
from fluid.workload import RatePiece, RequestClass, Workload
from tests.support.builders import one_second_server
from validation.policies.scheduled import follow
from validation.reference import Request, simulate_slowly
from validation.reference.scheduled import scheduled
from validation.simulator import cpu
from validation.simulator.model import poisson_model


@dataclass(frozen=True)
class ScheduledCase:
    """A workload whose mix varies, with thresholds[i] in force from starts_s[i] on."""

    workload: Workload
    server: Server
    starts_s: tuple[float, ...]
    thresholds: tuple[tuple[int, ...], ...]
    cuts: tuple[int, ...]


def random_case(number: int) -> ScheduledCase:
    """Two or three windows of a few iterations each, memory for a few requests or for all."""
    draw = random.Random(number)
    lengths = sorted(draw.sample(range(1, 9), draw.randint(1, 3)))
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            rate_per_s=draw.uniform(0.2, 1.5),
            prefill_tokens=draw.randint(1, 6),
            decode_tokens=length,
        )
        for k, length in enumerate(lengths)
    )
    windows = draw.randint(2, 3)
    starts = tuple(10.0 * k for k in range(windows))
    pieces = tuple(
        RatePiece(
            start_s=at,
            multiplier=draw.uniform(0.5, 2.0),
            class_multipliers={one.name: draw.uniform(0.2, 3.0) for one in classes},
        )
        for at in starts
    )
    workload = Workload(
        name="random", classes=classes, rate_profile=pieces, period_s=10.0 * windows
    )
    cuts = tuple(sorted({*draw.sample(lengths, draw.randint(1, len(lengths))), lengths[-1]}))
    thresholds = tuple(tuple(draw.randint(1, 4) for _ in cuts) for _ in starts)
    capacity = draw.choice([15, 60, 10_000])
    server = one_second_server(capacity, draw.choice(["prefill", "decode"]), 1)
    return ScheduledCase(workload, server, starts, thresholds, cuts)


def disagreement(case: ScheduledCase, requests: int = 60, seed: int = 0) -> float:
    """Largest difference of a time of completion between the two, in seconds."""
    policy = follow(case.starts_s, case.workload.period_s, case.thresholds, case.cuts)
    model = poisson_model(case.workload, case.server)
    trace = cpu.run_traced(model, cpu.Job(policy, 0, seed), requests)
    slow = [
        Request(
            k,
            float(at),
            int(kind),
            case.workload.classes[kind].prefill_tokens,
            0,
            case.workload.classes[kind].decode_tokens,
        )
        for k, (at, kind) in enumerate(zip(trace.arrived_at_s, trace.class_index, strict=True))
    ]
    rule = scheduled(case.starts_s, case.workload.period_s, case.thresholds)
    simulate_slowly(slow, case.server, rule, {}, steps=len(trace.series), cuts=case.cuts)
    found = np.array([one.completed_at_s for one in slow])
    if (np.isnan(found) != np.isnan(trace.completed_at_s)).any():
        return float("inf")
    return float(np.nanmax(np.abs(found - trace.completed_at_s), initial=0.0))
