"""What is lost at C = M* without room for randomness (THEORY 3.4, 4.6)."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats

from fluid.server import Server
from fluid.traces.tape import Tape
from validation.policies import ConfiguredPolicy
from validation.simulator.cpu import Job, run_reading
from validation.simulator.model import poisson_model, tape_model
from validation.simulator.state import Lane
from validation.theorems.cases import (
    UNLIMITED_TOKENS,
    load,
    paper_server,
    whole_prompts,
)
from validation.theorems.estimates import (
    at_least,
    at_most,
    between,
    equals,
    exact,
    mean,
    points,
    slope,
)
from validation.theorems.growth import FLAT, rates
from validation.theorems.statement import (
    Effort,
    Finding,
    Floats,
    Line,
    Measure,
    Plot,
    Policies,
    Statement,
)

D1_S = 0.05

INSTANCE = load((1.0, 1, 2), (1.0, 1, 3))
"""Two and three stages, one token of prompt: M* = 9 tokens when an iteration takes 1 s."""

M_STAR_TOKENS = 9

LOST = 0.02
"""A loss above this share at every horizon is a constant share."""

LEAST_LOST = 0.005

VANISHING = -0.35
"""A loss that vanishes like (ζT)^−½ has a steeper slope than this, one that levels off has not."""

OVERFLOW_PROBABILITY = 1 - 4.5 / np.e**2

UNPREDICTIVE = ("greedy", "nested-wait", "nested-cap", "vllm-v1", "vllm-v0", "sarathi", "a-min")
"""Rules that do not look at a request's class or length."""


def by_hand(effort: Effort, policies: Policies) -> Finding:
    """C = 12, four arrivals of two stages per iteration of 1 s, from two starting states."""
    greedy = policies["greedy"].configure()
    iterations = 400
    starts = {"balanced, 4 and 4": (4, 4), "6 waiting, 3 decoding": (3, 6)}
    completed = {
        name: _completions(greedy, first, second, iterations)
        for name, (first, second) in starts.items()
    }
    balanced, unbalanced = (one[iterations // 2 : iterations] for one in completed.values())
    early = completed["6 waiting, 3 decoding"]
    return Finding(
        (
            equals("completed per iteration from balance", float(balanced.mean()), 4.0),
            equals("completed by the first two iterations from (6, 3)", float(early[:2].sum()), 3),
            equals("completed per iteration from (6, 3), long run", float(unbalanced.mean()), 3.0),
        ),
        Plot(
            "iteration",
            "completed requests",
            tuple(
                Line(name, np.arange(1.0, 41), one[:40].cumsum()) for name, one in completed.items()
            ),
        ),
    )


def _completions(greedy: ConfiguredPolicy, first: int, second: int, iterations: int) -> Floats:
    """Requests completed at the end of each iteration, shape (iterations,)."""
    counts = [first, second, *[4] * (2 * iterations)]
    times_s = np.repeat([0.0, *(np.arange(len(counts) - 1) + 0.5)], counts)
    ones = np.ones(len(times_s), dtype=np.int64)
    model = tape_model(Tape(times_s, ones, 2 * ones), paper_server(1.0, 0.0, 12))

    def read(lane: Lane) -> Floats:
        ends_s = lane.requests["completed_at_s"]
        ends = np.round(ends_s[np.isfinite(ends_s)]).astype(int)
        return np.bincount(ends, minlength=iterations + 1)[1 : iterations + 1].astype(float)

    return run_reading(model, [Job(greedy, 0)], 0, read, threads=1)[0]


def block_overflow(effort: Effort, policies: Policies) -> Finding:
    """One iteration with Poisson arrivals, all others at n*: does KV exceed M* later on?

    Each pair of arrivals is played once with unlimited memory and weighted with its probability.
    """
    greedy = policies["greedy"].configure()
    most = 8
    overflows = np.array(
        [[_exceeds(greedy, one, two) for two in range(most + 1)] for one in range(most + 1)]
    )
    weight = stats.poisson.pmf(np.arange(most + 1), 1.0)
    quiet = float((np.outer(weight, weight) * ~overflows).sum())
    arrivals = list(itertools.product(range(4), range(4)))
    names = tuple(f"{one}+{two}" for one, two in arrivals)
    line = points(
        "KV exceeds M* (1: yes)",
        np.arange(len(names)),
        [exact(float(overflows[pair])) for pair in arrivals],
    )
    return Finding(
        (equals("probability that KV exceeds M*", 1 - quiet, OVERFLOW_PROBABILITY),),
        Plot("arrivals of the two classes", "overflow", (line,), names=names),
    )


def _exceeds(greedy: ConfiguredPolicy, one: int, two: int) -> bool:
    """Whether KV exceeds M* after an iteration in which so many of each class arrive."""
    counts = [(1, 1)] * 4 + [(one, two)] + [(1, 1)] * 40
    times_s, outputs = [], []
    for number, (short, long) in enumerate(counts):
        times_s += [max(number - 0.5, 0.0)] * (short + long)
        outputs += [2] * short + [3] * long
    ones = np.ones(len(outputs), dtype=np.int64)
    tape = Tape(np.array(times_s), ones, np.array(outputs, dtype=np.int64))
    model = tape_model(tape, paper_server(1.0, 0.0, UNLIMITED_TOKENS))

    def read(lane: Lane) -> bool:
        return bool(lane.series[:10, 1].max() > M_STAR_TOKENS)

    return run_reading(model, [Job(greedy, 0)], 0, read, series_rows=10, threads=1)[0]


def greedy_loses(effort: Effort, policies: Policies) -> Finding:
    """Greedy's loss at C = M* does not shrink with the horizon; that of WAIT does."""
    model = poisson_model(INSTANCE, _server())
    horizons = effort.choose((1_000, 10_000, 100_000), (3_000, 30_000, 300_000))
    greedy, _ = rates(model, policies["greedy"].configure(), horizons, 30, effort)
    wait, _ = rates(model, policies["wait"].configure(thresholds=(1, 1)), horizons, 120, effort)
    return Finding(
        (
            at_least("greedy: share of tokens lost at the end", mean(greedy[-1]), LOST),
            between("greedy: slope of the loss", slope(horizons, greedy), -FLAT, FLAT),
            at_most("wait: share of tokens lost at the end", mean(wait[-1]), LOST),
            at_most("wait: slope of the loss", slope(horizons, wait), VANISHING),
        ),
        _loss_plot(horizons, {"greedy": greedy, "wait": wait}),
    )


def unknown_lengths(effort: Effort, policies: Policies) -> Finding:
    """Every rule that does not foresee lengths loses a constant share at C = M*."""
    model = poisson_model(INSTANCE, _server())
    horizons = effort.choose((1_000, 10_000, 100_000), (3_000, 30_000, 300_000))
    names = effort.choose(("greedy", "nested-wait", "vllm-v1"), UNPREDICTIVE)
    losses: dict[str, list[Floats]] = {}
    measures: list[Measure] = []
    for name in names:
        thresholds = (7, 2) if name == "nested-cap" else (2, 1)
        policy = whole_prompts(policies[name], thresholds)
        losses[name], _ = rates(model, policy, horizons, 30, effort)
        found = mean(losses[name][-1])
        late = slope(horizons[-2:], losses[name][-2:])
        measures.append(at_least(f"{name}: share of tokens lost", found, LEAST_LOST))
        measures.append(at_least(f"{name}: slope over the last decade", late, VANISHING))
    return Finding(tuple(measures), _loss_plot(horizons, losses))


def _server() -> Server:
    return paper_server(1 - M_STAR_TOKENS * D1_S, D1_S, M_STAR_TOKENS)


def _loss_plot(horizons: tuple[int, ...], losses: dict[str, list[Floats]]) -> Plot:
    lines = [
        points(label, horizons, [mean(one) for one in samples]) for label, samples in losses.items()
    ]
    return Plot("requests, ∝ ζT", "share of tokens lost", tuple(lines), True, True)


STATEMENTS = (
    Statement(
        "greedy-by-hand",
        "3.4",
        "C = 12, four arrivals per iteration: greedy keeps 4 per iteration from balance, but from "
        "six waiting and three decoding it falls into a cycle of evictions at 3 per iteration.",
        "greedy, prompt 1, two stages, 12 tokens of memory, iterations of 1 s",
        by_hand,
    ),
    Statement(
        "block-overflow",
        "3.4",
        "From n* = (1, 1) a block overflows with probability 1 − 9/(2e²) = 0.391.",
        "arrivals of one iteration Poisson, before and after as in n*, all admitted",
        block_overflow,
    ),
    Statement(
        "greedy-loses",
        "3.4",
        "At C = M* greedy loses a constant share of the throughput; WAIT's loss vanishes.",
        "greedy and wait, two and three stages at 1/s each, C = M* = 9 tokens",
        greedy_loses,
    ),
    Statement(
        "unknown-lengths",
        "4.6",
        "At C = M* every policy that does not foresee lengths loses a constant share, if there "
        "are at least two.",
        "such policies of the registry on the same case",
        unknown_lengths,
    ),
)
