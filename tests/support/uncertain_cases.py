"""Thresholds at uncertain rates against every corner and every whole vector of small instances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import class_stages
from fluid.steady.stability import largest_scale
from fluid.workload import Workload
from tests.support.builders import server as server_of
from tests.support.builders import workload
from thresholds.solve import solve
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import chain_holds, log_term, nested_memory
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.solver import Wait
from thresholds.table import ThresholdTable
from thresholds.uncertain.rates import RateBox, RateMix, RatePosterior
from thresholds.uncertain.worst import at_rates

Floats = NDArray[np.float64]

_STRICT = 1e-9
_MOST = 60_000


@dataclass(frozen=True)
class Case:
    """A load of two or three classes, a server, and how its rates are uncertain."""

    load: Workload
    server: Server
    box: RateBox | RateMix

    def of_unknown_mix(self) -> Case:
        """The same load with the total rate known and as large a share of the mix not."""
        return replace(self, box=RateMix(self.box.share))

    def without_budget(self) -> Case:
        """The same, all classes deviating at once."""
        boxed = isinstance(self.box, RateBox)
        return replace(self, box=RateBox(self.box.share)) if boxed else self


def case(seed: int, classes: int | None = None, wide: bool = False) -> Case:
    """Affine servers, both conventions, blocks; loads that some of their boxes can overload.

    Wide: also one class, four where `classes` is not given, equal outputs, prompts that differ
    (where it is not given), rates that differ a thousandfold, and f with steps.
    """
    rng = np.random.default_rng(seed)
    m = classes or int(rng.integers(1, 5) if wide else rng.integers(2, 4))
    outputs = np.sort(rng.choice(np.arange(1, 5 if wide else 9), m, replace=wide))
    prompt = 1 if wide and rng.random() < 0.3 else int(rng.integers(1, 40))
    prompts = np.full(m, prompt)
    rates = rng.uniform(0.5, 4.0, m)
    if wide:
        rates = 10 ** rng.uniform(-1.5, 1.5, m) if rng.random() < 0.5 else rates
        prompts = rng.integers(1, prompt + 1, m) if classes is None else prompts
    load = workload(
        *((float(a), int(b), int(c)) for a, b, c in zip(rates, prompts, outputs, strict=True))
    )
    tau = IterationTime.affine(
        float(rng.uniform(2e-3, 3e-2)), rng.uniform(1e-6, 3e-4), rng.uniform(1e-8, 1e-5)
    )
    if wide and rng.random() < 0.3:
        knots = np.cumsum(rng.integers(4, 60, 3)).astype(float)
        seconds = tau.overhead_s + np.cumsum(rng.uniform(0, 5e-3, 4))
        tau = IterationTime(
            tokens_knots=(0.0, knots[0], knots[0], *knots[1:]),
            seconds_knots=(tau.overhead_s, *seconds),
            per_kv_token_s=1e-7,
        )
    room = (prompt + int(outputs[-1])) * int(outputs[-1]) * rng.uniform(1.5, 9)
    server = server_of(
        tau, ("prefill", "decode")[int(rng.integers(2))], int(room) + 16, int(rng.choice([1, 4]))
    )
    load = load.scaled(float(largest_scale(load, server) * rng.uniform(0.3, 0.9)))
    budget = float(rng.choice([0.5, 1.0, 1.6])) if rng.random() < 0.4 else None
    return Case(load, server, RateBox(float(rng.uniform(0.02, 0.6)), budget))


def corners(load: Workload, box: RateBox | RateMix) -> Iterator[Floats]:
    """All vertices of the box, of deviations that a budget allows, or of mixes; shape (m,)."""
    rates = load.rates_per_s
    m = len(rates)
    if isinstance(box, RateMix):
        for one in np.eye(m):
            yield (1 - box.share) * rates + box.share * rates.sum() * one
        return
    if box.classes is None or box.classes >= m:
        for signs in itertools.product((-1.0, 1.0), repeat=m):
            yield rates * (1 + box.share * np.array(signs))
        return
    whole, rest = divmod(box.classes, 1.0)
    for order in itertools.permutations(range(m), int(whole) + 1):
        for signs in itertools.product((-1.0, 1.0), repeat=len(order)):
            moved = np.zeros(m)
            moved[list(order)] = signs
            moved[order[-1]] *= rest
            yield rates * (1 + box.share * moved)


def wait_least_memory(one: Case) -> float:
    """Least KV of whole thresholds that keep drift at every corner; infinite where none fits."""
    stages = [class_stages(each, one.server) for each in one.load.classes]
    sums = np.array([each.held_kv_tokens.sum() for each in stages])
    capacity = one.server.usable_kv_tokens
    most = [range(1, int(capacity // each) + 1) for each in sums]
    if math.prod(map(len, most)) > _MOST:
        raise OverflowError
    n = np.array(list(itertools.product(*most)), dtype=float).reshape(-1, len(sums))
    n = n[n @ sums <= capacity]
    decodes = np.array([each.decodes.sum() for each in stages])
    prompts = np.array([each.prefill_tokens for each in stages])
    read = np.array([each.kv_tokens[each.decodes].sum() for each in stages])
    time_s = one.server.iteration_time(
        n @ (prompts + decodes),
        kv_tokens=n @ read,
        prefill_tokens=n @ prompts,
        decode_requests=n @ decodes,
        prefill_tokens_sq=n @ prompts**2,
    )
    holds = np.ones(len(n), dtype=bool)
    for rates in corners(one.load, one.box):
        holds &= (rates * time_s[:, None] <= n * (1 - _STRICT)).all(axis=1)
    return float((n[holds] @ sums).min(initial=math.inf))


def nested_least_memory(one: Case, solver: NestedWait) -> float:
    """The same for Nested WAIT: KV with buffers, at the corner that asks for most of it."""
    capacity = one.server.usable_kv_tokens
    best = math.inf
    last = len(one.load.classes) - 1
    for count in range(1, last + 2):
        overhead_s = one.server.iteration_time.overhead_s
        log = log_term(count, solver.horizon_s, overhead_s, solver.overflow_probability)
        for inner in itertools.combinations(range(last), count - 1):
            n, needed = _designs(one, [*inner, last], capacity), 0.0
            for rates in corners(one.load, one.box):
                lengths = distinct_lengths(at_rates(one.load, rates), one.server, solver.prompts)
                segments = lengths.segments([*inner, last])
                total = nested_memory(n, segments, log).total
                allowed = (segments.load(n) <= 1 - _STRICT) & chain_holds(n, segments)
                needed = np.maximum(needed, np.where(allowed, total, math.inf))
            best = min(best, float(np.min(needed, initial=math.inf)))
    return best if best <= capacity else math.inf


def _designs(one: Case, ends: list[int], capacity: int) -> Floats:
    """Decreasing whole thresholds whose full batch fits, shape (k, L)."""
    segments = distinct_lengths(one.load, one.server).segments(ends)
    largest = int(capacity // segments.memory_tokens[0])
    if math.comb(largest + 1, segments.count) > _MOST:
        raise OverflowError
    falling = list(itertools.combinations(range(largest, 0, -1), segments.count))
    n = np.array(falling, dtype=float).reshape(-1, segments.count)
    return n[n @ segments.memory_tokens <= capacity]


def disagreement(one: Case, solver: Solver, expected: float) -> str | None:
    """What is wrong with least KV at uncertain rates, or a refusal; None where it is right."""
    try:
        report = solve(one.load, one.server, solver, uncertainty=one.box).solver
    except InfeasibleError as error:
        return (
            f"refused ({error}), but {expected:g} is possible" if math.isfinite(expected) else None
        )
    assert report.objective is not None
    if math.isclose(report.objective, expected, rel_tol=1e-9):
        return None
    return f"{report.objective:g} instead of {expected:g}"


def wait_disagreement(one: Case) -> str | None:
    """Literal WAIT against every corner and all whole thresholds."""
    return disagreement(one, Wait(objective="memory"), wait_least_memory(one))


def nested_disagreement(one: Case) -> str | None:
    """Nested WAIT alike; exact for two output lengths."""
    box = one.without_budget()
    solver = NestedWait(objective="memory")
    return disagreement(box, solver, nested_least_memory(box, solver))


def paced_disagreement(one: Case) -> str | None:
    """The practical table: there is one just where every corner is stable, and its pace fits."""
    scales = [
        largest_scale(at_rates(one.load, each), one.server) for each in corners(one.load, one.box)
    ]
    least = min(scales)
    if abs(least - 1) < 1e-9:
        return None
    roomy = one.server
    try:
        table = solve(one.load, roomy, Paced(), uncertainty=one.box)
    except InfeasibleError as error:
        certain = "packing" not in error.cause and "not certain" not in str(error)
        return f"refused at {least:g} ({error})" if least > 1 and certain else None
    if least < 1:
        return f"a table, where a corner has {least:g}"
    if not math.isclose(table.predicted.max_scale, least, rel_tol=1e-9):
        return f"worst corner {table.predicted.max_scale:g} instead of {least:g}"
    return _pace_disagreement(one, table)


def _pace_disagreement(one: Case, table: ThresholdTable) -> str | None:
    pace = table.limits.pace_per_iteration
    if pace is None:
        return None
    sums = np.array(
        [class_stages(each, one.server).held_kv_tokens.sum() for each in one.load.classes]
    )
    boxed = corners(one.load, one.without_budget().box)
    heaviest = max(float(rates @ sums / rates.sum()) for rates in boxed)
    own = table.workload.rates_per_s
    plain = one.server.usable_kv_tokens / float(own @ sums / own.sum())
    expected = min(plain, one.server.usable_kv_tokens / heaviest)
    return None if math.isclose(pace, expected, rel_tol=1e-9) else f"pace {pace} not {expected}"


def missed_share(
    table: ThresholdTable, load: Workload, posterior: RatePosterior, draws: int, seed: int
) -> float:
    """Share of rates drawn from the posterior at which a condition of the table fails."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(posterior.shapes(load), size=(draws, len(load.classes)))
    rates /= posterior.seconds(load)
    n = np.array([float(one.threshold) for one in table.thresholds])
    server = table.server
    if table.policy == "wait":
        from thresholds.solvers.wait.batch import full_batch

        time_s = float(full_batch(load, server).iteration_time_s(n))
        return float((rates * time_s >= n).any(axis=1).mean())
    if table.policy == "paced":
        scales = [largest_scale(at_rates(load, each), server) < 1 for each in rates]
        return float(np.mean(scales))
    cuts = [one.up_to_tokens for one in table.thresholds]
    outputs = [one.decode_tokens for one in load.classes]
    failed = 0
    for each in rates:
        lengths = distinct_lengths(at_rates(load, each), server)
        segments = lengths.segments([outputs.index(cut) for cut in cuts])
        log = log_term(len(n), 3600.0, server.iteration_time.overhead_s, 0.01)
        fits = nested_memory(n, segments, log).total <= server.usable_kv_tokens
        failed += not (segments.load(n) < 1 and chain_holds(n, segments) and fits)
    return failed / draws


def observed(one: Case, requests: float) -> Workload:
    """The load as a recording of about so many requests tells it."""
    seconds = requests / one.load.rate_per_s
    return one.load.model_copy(update={"observed_s": seconds})
