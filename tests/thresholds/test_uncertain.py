"""Thresholds for rates that are not known exactly (THEORY 5.7)."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, binom, gamma

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.stability import largest_scale
from fluid.workload import Slo
from tests.support.builders import workload
from tests.support.uncertain_cases import (
    Case,
    case,
    corners,
    missed_share,
    nested_disagreement,
    observed,
    paced_disagreement,
    wait_disagreement,
)
from thresholds.solve import solve
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.wait.solver import Wait
from thresholds.uncertain.any_mix import any_mix_pace
from thresholds.uncertain.gamma_sums import ratio_quantile, sum_below, sum_quantile
from thresholds.uncertain.rates import RateBox, RateMix, RatePosterior
from thresholds.uncertain.solve import miss_probability
from thresholds.uncertain.worst import at_rates, largest_mean

TWO = workload((14.0, 512, 20), (6.0, 512, 50))
PAPER = load_server("paper-long-decode")


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_worst_corner_is_that_of_enumeration(seed: int) -> None:
    """All corners, all whole thresholds; ``python -m tests.benchmarks.uncertain_rates`` has 300."""
    one = case(seed)
    assert wait_disagreement(one) is None
    assert paced_disagreement(one) is None
    assert nested_disagreement(case(seed, 2)) is None


def test_the_cases_are_feasible_and_not() -> None:
    least = [
        min(
            largest_scale(at_rates(one.load, each), one.server)
            for each in corners(one.load, one.box)
        )
        for one in map(case, range(1000, 1012))
    ]
    assert min(least) < 1 < max(least)


@pytest.mark.parametrize(
    ("check", "classes"),
    [(wait_disagreement, None), (paced_disagreement, None), (nested_disagreement, 2)],
)
def test_tables_for_an_unknown_mix_equal_enumeration(
    check: Callable[[Case], str | None], classes: int | None
) -> None:
    found = [check(case(seed, classes).of_unknown_mix()) for seed in (1001, 1003, 1004, 1006)]
    assert found == [None] * 4


def test_any_mix_at_all() -> None:
    """Only one segment holds where all may be long; f with steps has no known worst mix."""
    table = solve(TWO, PAPER, NestedWait(objective="memory"), uncertainty=RateMix())
    assert len(table.thresholds) == 1
    with pytest.raises(InfeasibleError, match=r"a share of at most 0\.\d+ is unknown has one"):
        solve(TWO, PAPER, NestedWait(segments=2), uncertainty=RateMix())
    steps = IterationTime(tokens_knots=(0.0, 8.0, 8.0, 20.0), seconds_knots=(0.1, 0.2, 0.3, 0.5))
    stairs = PAPER.model_copy(update={"iteration_time": steps})
    with pytest.raises(InputError, match="affine"):
        solve(TWO, stairs, uncertainty=RateMix())
    with pytest.raises(InputError, match="share"):
        RateMix(1.5)


def test_nested_thresholds_of_three_lengths_hold_at_every_corner() -> None:
    box = RateBox(0.2)
    load, server = workload((4.0, 64, 5), (3.0, 64, 20), (2.0, 64, 60)), load_server("paper-lmsys")
    table = solve(load, server, NestedWait(objective="memory", segments=3), uncertainty=box)
    n = np.array([one.threshold for one in table.thresholds], dtype=float)
    assert len(n) == 3
    for rates in corners(load, box):
        entering = np.cumsum(rates[::-1])[::-1]
        assert (entering[1:] / entering[:-1] < n[1:] / n[:-1]).all()


@pytest.mark.parametrize("limit", [3.0, 8.0, 20.0])
def test_sums_of_gamma_variables(limit: float) -> None:
    one = sum_below(np.array([2.0]), np.array([5.0]), limit)
    assert one == pytest.approx(gamma.cdf(limit / 2, 5.0), abs=1e-9)
    drawn = np.random.default_rng(0).gamma([2.0, 4.5], size=(200_000, 2)) @ [3.0, 0.5]
    share = float((drawn <= limit).mean())
    found = sum_below(np.array([3.0, 0.5]), np.array([2.0, 4.5]), limit)
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(drawn)) + 1e-9


def test_far_from_the_mean_a_sum_is_certain() -> None:
    weights, shapes = np.array([0.008, 0.015]), np.array([1200.0, 4000.0])
    mean = float(weights @ shapes)
    assert [sum_below(weights, shapes, x * mean) for x in (0.0, 0.3, 3.0)] == [0.0, 0.0, 1.0]


def test_quantiles_undo_probabilities() -> None:
    weights, shapes = np.array([1.0, 2.0, 0.1]), np.array([20.5, 3.5, 100.5])
    most = sum_quantile(weights, shapes, 0.975)
    assert sum_below(weights, shapes, most) == pytest.approx(0.975)
    # The share of the first of two classes is a beta variable.
    mean = ratio_quantile(np.array([10.0, 4.0]), np.array([30.5, 12.5]), 0.95)
    assert (mean - 4) / 6 == pytest.approx(beta.ppf(0.95, 30.5, 12.5))


def test_heaviest_mix_of_a_box() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        values, low = rng.uniform(1, 9, 4), rng.uniform(0.1, 1, 4)
        high = low + rng.uniform(0, 2, 4)
        ends = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(4, -1)
        assert largest_mean(values, low, high) == pytest.approx(
            float((values @ ends / ends.sum(axis=0)).max())
        )


def test_wait_misses_as_often_as_it_says() -> None:
    posterior, tables = RatePosterior(0.1), 0
    for seed in range(7):
        one = case(seed)
        load = observed(one, (40, 400, 4000)[seed % 3])
        try:
            table = solve(load, one.server, Wait(objective="memory"), uncertainty=posterior)
        except InfeasibleError:
            continue
        tables += 1
        missed = miss_probability(table, load, posterior)
        share = missed_share(table, load, posterior, 4000, seed)
        low, high = binom.ppf([5e-4, 1 - 5e-4], 4000, missed) / 4000
        assert missed <= 0.1
        assert low <= share <= high
    assert tables > 2


def test_a_longer_recording_costs_less() -> None:
    asked = [
        solve(
            TWO.model_copy(update={"observed_s": seconds}),
            PAPER,
            uncertainty=RatePosterior(0.05),
        ).workload.rate_per_s
        for seconds in (60.0, 600.0, 6000.0)
    ]
    assert asked[0] > asked[1] > asked[2] > TWO.rate_per_s
    assert asked[2] == pytest.approx(TWO.rate_per_s, rel=0.02)


def test_the_practical_table_misses_less_than_allowed() -> None:
    load = TWO.model_copy(update={"observed_s": 100.0})
    posterior = RatePosterior(0.1)
    asked = solve(load, PAPER, uncertainty=posterior).workload
    # On this edge of stability half of what is allowed is missed; the pace has the other half.
    edge = load.scaled(largest_scale(asked, PAPER) * asked.rate_per_s / load.rate_per_s)
    edge = edge.scaled(load.rate_per_s / asked.rate_per_s)
    share = missed_share(
        solve(edge.scaled(0.999), PAPER, uncertainty=posterior), edge, posterior, 1500, 0
    )
    assert binom.ppf(5e-4, 1500, 0.04) / 1500 <= share <= binom.ppf(1 - 5e-4, 1500, 0.06) / 1500


def test_infeasible_says_how_much_is_feasible() -> None:
    with pytest.raises(InfeasibleError) as caught:
        solve(TWO.scaled(1.2), PAPER, uncertainty=RateBox(0.9))
    assert "no table of policy paced holds for all rates within 90 %" in str(caught.value)
    (most,) = re.findall(r"a rate uncertainty of at most (\S+) has one", str(caught.value))
    solve(TWO.scaled(1.2), PAPER, uncertainty=RateBox(float(most)))
    with pytest.raises(InfeasibleError):
        solve(TWO.scaled(1.2), PAPER, uncertainty=RateBox(float(most) + 0.01))
    unstable = TWO.scaled(20.0)
    with pytest.raises(InfeasibleError, match="is unstable"):
        solve(unstable, PAPER, uncertainty=RateBox(0.1))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "0.2"])
def test_shares_that_make_no_sense(share: float) -> None:
    with pytest.raises(InputError, match="share"):
        RateBox(share)


def test_what_is_not_known_at_uncertain_rates_is_refused() -> None:
    slow = TWO.classes[0].model_copy(update={"slo": Slo(ttft_s=9.0, quantile="mean")})
    limited = TWO.model_copy(update={"classes": (slow, TWO.classes[1])})
    mixed = workload((4.0, 64, 20), (1.0, 32, 60))
    box = RateBox(0.1)
    for load, solver, uncertainty, words in (
        (limited, Wait(), box, "limits on means"),
        (mixed, NestedWait(), box, "prompts that differ"),
        (TWO, NestedWait(), RateBox(0.1, 1), "a box"),
        (TWO, Paced(budget_s=1.0), box, "a simulation shows one load"),
        (TWO, Wait(), RatePosterior(), "observed_s"),
        (TWO.model_copy(update={"observed_s": 0.1}), Wait(), RatePosterior(), "10 requests"),
    ):
        with pytest.raises(InputError, match=words):
            solve(load, PAPER, solver, uncertainty=uncertainty)
    with pytest.raises(InputError, match="overload"):
        solve(TWO, PAPER, overload=True, uncertainty=box)
    with pytest.raises(InputError, match="classes"):
        RateBox(0.1, 0)
    with pytest.raises(InputError, match="miss_probability"):
        RatePosterior(0.0)


def test_pace_for_any_mix_is_the_minimax_over_the_simplex() -> None:
    load = workload((1.0, 64, 200), (1.0, 512, 1000), (1.0, 2048, 30))
    found = any_mix_pace(load, PAPER)
    tau, stages = PAPER.iteration_time, [class_stages(one, PAPER) for one in load.classes]
    sums = np.array([one.held_kv_tokens.sum() for one in stages])
    work_s = np.array([linear_stage_seconds(one, PAPER, tau.last_slope_s).sum() for one in stages])
    steps = np.linspace(0, 1, 41)
    mixes = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1 + 1e-12])

    def rates(pace: float) -> np.ndarray:
        """At a backlog of each mix; nothing is promised where memory overflows."""
        fits = pace * (mixes @ sums) <= PAPER.usable_kv_tokens * (1 + 1e-12)
        return np.where(fits, pace / (tau.overhead_s + pace * (mixes @ work_s)), 0.0)

    best = max(rates(pace).min() for pace in found.pace_per_iteration * np.linspace(0.5, 1.5, 201))
    assert found.least_rate_per_s == pytest.approx(best)
    assert found.least_rate_per_s == pytest.approx(rates(found.pace_per_iteration).min())
    limits = 1 / (mixes @ (work_s + tau.overhead_s * sums / PAPER.usable_kv_tokens))
    share = (rates(found.pace_per_iteration) / limits).min()
    assert found.least_share == pytest.approx(share)
