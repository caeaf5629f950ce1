"""The search on a simulator, with simulators whose optimum is known."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fluid.errors import InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.evaluator import Evaluation
from thresholds.fields import Interval, PolicyValidation
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import LEAST_WATERMARK, boundary_load
from thresholds.solvers.paced.refine import AS_GOOD, OFFERED, SIZES, SearchSize, refine
from thresholds.solvers.paced.solver import Paced

SERVER = load_server("paper-long-decode")
LONG = Workload(
    name="long",
    classes=(RequestClass(name="one", rate_per_s=2.0, prefill_tokens=512, decode_tokens=1000),),
)
LOAD = boundary_load(LONG, SERVER)


class Known:
    """An evaluator of which the throughput share of every setting is known; counts its calls."""

    def __init__(self, share: Callable[[Limits], float], seconds: float = 0.0) -> None:
        self.share = share
        self.seconds = seconds
        self.seen: list[tuple[Limits, float, int]] = []

    def __call__(
        self,
        workload: Workload,
        server: Any,
        scheduler: Any,
        settings: Sequence[Limits],
        *,
        replications: int,
        requests: int,
        seed: int,
    ) -> list[Evaluation]:
        time.sleep(self.seconds * len(settings))
        self.seen += [(one, workload.rate_per_s, seed) for one in settings]
        return [self._evaluate(one, workload.rate_per_s, replications) for one in settings]

    def _evaluate(self, limits: Limits, rate_per_s: float, replications: int) -> Evaluation:
        completed_per_s = min(rate_per_s, self.share(limits) * LOAD.rate_per_s)
        row = PolicyValidation(
            policy="greedy",
            params=limits.params,
            rate_per_s=rate_per_s,
            verdict="stable",
            latency_s=Interval(mean=1.0, half_width=0.1),
            completed_share=Interval(mean=completed_per_s / rate_per_s, half_width=0.0),
            evictions_per_request=0.0,
            collapsed_share=0.0,
            latency_difference_s=Interval(mean=-0.2, half_width=0.1),
        )
        return Evaluation(limits, (completed_per_s,) * replications, row)


class Clock:
    """Time that passes while requests are simulated, and at no other time."""

    def __init__(self, per_request_s: float) -> None:
        self.per_request_s = per_request_s
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def timed(self, evaluator: Known) -> Any:
        def evaluate(*place: Any, replications: int, requests: int, seed: int) -> Any:
            self.now_s += len(place[3]) * replications * requests * self.per_request_s
            runs = {"replications": replications, "requests": requests, "seed": seed}
            return evaluator(*place, **runs)

        return evaluate


def hill(watermark: float, pace: float | None) -> Callable[[Limits], float]:
    """Best at one watermark, and 10 % better at the right multiple of the fluid pace, if any."""

    def share(limits: Limits) -> float:
        value = 0.85 - 4 * (limits.watermark_fraction - watermark) ** 2
        if pace is not None and limits.pace_per_iteration is not None:
            multiple = limits.pace_per_iteration / LOAD.pace_per_iteration
            value += 0.1 - (multiple - pace) ** 2
        return value

    return share


def refined(evaluator: Known, budget_s: float = 20.0) -> Any:
    return refine(LONG, SERVER, "greedy", LOAD, evaluator, budget_s)


@pytest.mark.parametrize(("watermark", "pace"), [(0.037, 1.03), (0.12, 1.22), (0.01, 0.93)])
def test_it_finds_the_top_of_a_hill(watermark: float, pace: float) -> None:
    share = hill(watermark, pace)
    found = refined(Known(share))
    assert found.chosen.family == "pace and watermark"
    top = share(Limits(pace * LOAD.pace_per_iteration, watermark_fraction=watermark))
    grid = max(
        share(Limits(m * LOAD.pace_per_iteration, watermark_fraction=w))
        for m, w in itertools.product((1.0, 1.1, 1.3), (0.01, 0.05))
    )
    assert top - found.chosen.mean <= max(1e-3, 0.2 * (top - grid))


def test_where_restraint_does_not_help_a_watermark_is_exported_alone() -> None:
    found = refined(Known(hill(0.04, None)))
    assert found.chosen.family == "watermark alone"
    assert found.chosen.limits.pace_per_iteration is None
    assert found.chosen.limits.cap_requests is None
    assert found.chosen.limits.watermark_fraction == pytest.approx(0.04, abs=0.01)


@pytest.mark.parametrize(
    ("gain", "family"), [(0.5, "watermark alone"), (2.0, "pace and watermark")]
)
def test_a_restraint_must_be_worth_more_than_the_tolerance(gain: float, family: str) -> None:
    def share(limits: Limits) -> float:
        return 0.9 + gain * AS_GOOD * (limits.pace_per_iteration is not None)

    assert refined(Known(share)).chosen.family == family


def test_no_baseline_of_the_grid_is_better_than_the_table() -> None:
    """A rugged landscape in which a search could lose its way."""

    def share(limits: Limits) -> float:
        return 0.8 + 0.1 * (hash(limits) % 1000) / 1000

    evaluator = Known(share)
    found = refined(evaluator)
    grid = [share(Limits(watermark_fraction=w)) for w in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)] + [
        share(Limits(cap_requests=round(one * LOAD.population)))
        for one in (0.8, 0.9, 0.95, 1.0, 1.1, 1.2)
    ]
    assert found.chosen.mean >= max(grid) - AS_GOOD
    searched = [one for one, rate_per_s, seed in evaluator.seen if seed == 0]
    assert len(searched) == len(set(searched))


def test_all_are_judged_again_on_fresh_arrivals_and_at_the_design_rate() -> None:
    evaluator = Known(hill(0.05, 1.0))
    found = refined(evaluator)
    fresh = [(one, rate) for one, rate, seed in evaluator.seen if seed == found.seed]
    rates = [rate for _, rate in fresh]
    assert rates == [pytest.approx(OFFERED * LOAD.rate_per_s)] * 3 + [LONG.rate_per_s] * 2
    assert [one for one, _ in fresh[3:]] == [found.chosen.limits, Limits()]


@pytest.mark.parametrize(
    ("per_request_s", "size"),
    [(1e-9, SIZES[0]), (7e-5, SIZES[1]), (1.2e-4, SIZES[2]), (1.0, SIZES[-1])],
)
def test_the_budget_sizes_the_runs(
    per_request_s: float, size: SearchSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only simulated requests move: the least size alone exceeds its budget."""
    clock = Clock(per_request_s)
    monkeypatch.setattr("thresholds.solvers.paced.refine.time", clock)
    found = refined(clock.timed(Known(hill(0.037, 1.03))), budget_s=100.0)
    assert found.replications == size.fresh_replications
    assert found.requests == size.requests(LOAD.population)
    assert (clock.monotonic() <= 100.0) == (size != SIZES[-1])


def test_the_budget_ends_the_local_searches() -> None:
    quick, full = Known(hill(0.037, 1.03), seconds=0.01), Known(hill(0.037, 1.03), seconds=0.01)
    refined(quick, budget_s=1e-9)
    refined(full, budget_s=60.0)
    assert len(quick.seen) < len(full.seen)
    assert max(one.watermark_fraction for one, _, _ in quick.seen) == 0.2


def test_the_table_carries_the_evidence() -> None:
    table = Paced(budget_s=5.0).solve(LONG, SERVER, Known(hill(0.05, 1.0)))
    assert table.solver.status == "refined"
    assert table.validated is not None
    assert [one.rate_per_s for one in table.validated.policies[:2]] == [LONG.rate_per_s] * 2
    differences = [one.latency_difference_s for one in table.validated.policies]
    # Kept beside the table's own policy only: at saturation the first setting is another one.
    assert differences == [None, Interval(mean=-0.2, half_width=0.1), None, None, None]
    assert table.validated.side_by_side == table.validated.policies[:2]
    assert table.params["watermark_fraction"] >= LEAST_WATERMARK
    assert table.valid_for.max_rate_per_s == pytest.approx(0.95 * LOAD.rate_per_s, rel=2e-3)
    assert "pace and watermark is worth its restraint" in table.notes[0]
    assert all(one.holds for one in table.certificate)


def test_both_closed_forms_are_among_those_tried() -> None:
    evaluator = Known(hill(0.05, 1.0))
    refined(evaluator, budget_s=1e-9)
    tried = [one for one, _, seed in evaluator.seen if seed == 0]
    assert LOAD.closed_form() in tried
    assert Limits(watermark_fraction=LOAD.watermark_fraction) in tried


def test_a_design_rate_that_no_setting_sustains_is_said() -> None:
    near = LONG.at_rate(0.99 * LOAD.rate_per_s)
    table = Paced(budget_s=1.0).solve(near, SERVER, Known(hill(0.05, None)))
    failing = [one for one in table.certificate if not one.holds]
    assert [one.condition for one in failing] == [
        "simulated throughput at saturation: above the design rate"
    ]


@pytest.mark.parametrize("budget_s", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_of_seconds(budget_s: float) -> None:
    with pytest.raises(InputError, match="budget_s"):
        Paced(budget_s=budget_s)


def test_a_budget_needs_an_evaluator() -> None:
    with pytest.raises(InputError, match="evaluator"):
        Paced(budget_s=1.0).solve(LONG, SERVER)


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(InputError, match="one of greedy, vllm-v1"):
        Paced(scheduler="fifo")  # type: ignore[arg-type]
