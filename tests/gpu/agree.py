"""Every policy under every kind of traffic: do CUDA and CPU have the same events?"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np

from tests.benchmarks.measurement import alone
from tests.gpu.compiled import compiled
from tests.gpu.result import FAILED, Aim, Result, Table
from tests.gpu.settings import Settings
from tests.gpu.traffic import TRAFFIC, random_models
from validation.policies import POLICIES, ConfiguredPolicy
from validation.simulator import cpu
from validation.simulator.cpu import Job
from validation.simulator.metrics import Replication
from validation.simulator.model import Model

COUNTS = (
    *("arrived", "completed", "unfinished", "iterations", "evictions"),
    *("tokens_decoded", "tokens_lost", "tokens_computed", "tokens_recomputed", "gap_count"),
    *("kv_max_tokens", "refused", "gave_up", "tokens_given_up"),
)
FIGURES = (
    *("window_s", "busy_share", "kv_mean_tokens", "residents_mean", "count", "mean_s", "sd_s"),
    *("gap_mean_s", "system_mean", "sojourns_s"),
)

RELATIVE = 1e-9
"""Logarithms differ in their last bit, and CUDA contracts products with sums."""


@dataclass(frozen=True)
class Trial:
    """Replications of one policy on one model, in a form that can be sent to another process."""

    model: Model
    policy: str
    values: Mapping[str, float | str]
    thresholds: tuple[int, ...]
    cuts: tuple[int, ...]
    seed: int
    replications: int
    requests: int

    def configured(self) -> ConfiguredPolicy:
        """The policy with its parameters."""
        return POLICIES[self.policy].configure(self.values, self.thresholds, self.cuts)

    def jobs(self) -> list[Job]:
        """One for each replication."""
        policy = self.configured()
        return [Job(policy, index, self.seed) for index in range(self.replications)]


Runner = Callable[[Trial], list[Replication]]


def on_cpu(trial: Trial) -> list[Replication]:
    """On one core: every policy has a process of its own."""
    return cpu.run(trial.model, trial.jobs(), trial.requests, threads=1)


def on_device(trial: Trial) -> list[Replication]:
    """On the GPU, or in numba's simulator of one."""
    from validation.simulator import cuda

    return cuda.run(trial.model, trial.jobs(), trial.requests)


@dataclass(frozen=True)
class Sizes:
    """Random servers of each policy, replications and requests on each; processes that compile."""

    servers: int
    replications: int
    requests: int
    processes: int


REAL = Sizes(4, 64, 300, min(8, os.cpu_count() or 1))
TOY = Sizes(1, 1, 10, 1)


@dataclass(frozen=True)
class Agreement:
    """Of one policy; `different` names the first few replications that are not the same."""

    policy: str
    cases: int
    replications: int
    disagreeing: int
    evictions: int
    different: tuple[str, ...]
    seconds: float


def measure(settings: Settings) -> Iterator[Result]:
    """A row for each policy as soon as all its traffic has run."""
    sizes = TOY if settings.toy else REAL
    result = Result("agree")
    found: list[Agreement] = []
    for one in _agreements(settings, sizes):
        found.append(one)
        result = summary(found)
        yield result
    planned = len(POLICIES) * sizes.servers * len(TRAFFIC)
    if result.status != FAILED:
        yield result.ended(sum(one.cases for one in found), planned, "random servers")


def summary(found: Sequence[Agreement]) -> Result:
    """What is known after some policies."""
    disagreeing = sum(one.disagreeing for one in found)
    runs = sum(one.replications for one in found)
    aim = Aim(
        "replications with the same events on GPU and CPU",
        "all, under every policy",
        f"{runs - disagreeing:,} of {runs:,}, {len(found)} of {len(POLICIES)} policies",
        disagreeing == 0,
    )
    result = Result(
        "agree",
        figures={"policies": len(found), "replications": runs, "disagreeing": disagreeing},
        tables=(Table("Policies", tuple(_row(one) for one in found)),),
        aims=(aim,),
        notes=tuple(text for one in found for text in one.different),
    )
    if not disagreeing:
        return result
    return replace(result, status=FAILED, why=f"{disagreeing} replications differ or failed")


def agreement(
    name: str, sizes: Sizes, stop_at_s: float = math.inf, there: Runner = on_device
) -> Agreement:
    """Run one policy under all traffic on random servers, on the CPU and there."""
    begin = time.perf_counter()
    cases = evictions = 0
    different: list[str] = []
    for traffic, trial in trials(name, sizes):
        if time.time() > stop_at_s:
            break
        cases += 1
        pairs = zip(compiled(on_cpu, trial), there(trial), strict=True)
        for index, (one, two) in enumerate(pairs):
            evictions += one.evictions
            if names := differences(one, two):
                where = f"{trial.configured().label}, {traffic}, server {trial.seed}"
                different.append(f"{where}, replication {index}: {', '.join(names)} differ")
    seconds = time.perf_counter() - begin
    runs = cases * sizes.replications
    return Agreement(name, cases, runs, len(different), evictions, tuple(different[:3]), seconds)


def trials(name: str, sizes: Sizes) -> Iterator[tuple[str, Trial]]:
    """Every kind of traffic on random servers, with its name."""
    for number in range(sizes.servers):
        for traffic, model, policy in random_models(name, number, sizes.requests):
            yield (
                traffic,
                Trial(
                    model=model,
                    policy=name,
                    values=policy.values,
                    thresholds=policy.thresholds,
                    cuts=policy.cuts,
                    seed=number,
                    replications=sizes.replications,
                    requests=sizes.requests,
                ),
            )


def differences(one: Replication, two: Replication) -> list[str]:
    """Names of the figures that are not the same."""
    counts = [name for name in COUNTS if getattr(one, name) != getattr(two, name)]
    figures = [
        name
        for name in FIGURES
        if not np.allclose(getattr(one, name), getattr(two, name), rtol=RELATIVE, equal_nan=True)
    ]
    return counts + figures


def _agreements(settings: Settings, sizes: Sizes) -> Iterator[Agreement]:
    """In processes of their own: compiling takes longest, and a fault of one spares the others."""
    if sizes.processes == 1:
        yield from (agreement(name, sizes, settings.stop_at_s) for name in POLICIES)
        return
    with ThreadPoolExecutor(sizes.processes) as pool:
        asked = {
            pool.submit(alone, agreement, name, sizes, settings.stop_at_s): name
            for name in POLICIES
        }
        for done in as_completed(asked):
            error = done.exception()
            yield _failure(asked[done], error) if error else done.result()[0]


def _failure(name: str, error: BaseException) -> Agreement:
    """A policy that cannot be run counts as a replication that differs."""
    line = " ".join(f"{name}: {type(error).__name__}: {error}".split())[:300]
    return Agreement(name, 0, 1, 1, 0, (line,), 0.0)


def _row(one: Agreement) -> dict[str, str | int | float]:
    return {
        "policy": one.policy,
        "servers × traffic": one.cases,
        "replications": one.replications,
        "disagreeing": one.disagreeing,
        "evictions": one.evictions,
        "seconds": one.seconds,
    }
