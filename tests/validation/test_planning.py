"""Plans: what is raced, who is kept, and what a recommendation has to show.

Against an exhaustive grid: ``python -m tests.benchmarks.plans``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.workload import RequestClass, Slo, Workload
from thresholds.table import ThresholdTable
from validation.experiments.boundary_search import Budget
from validation.experiments.planning.advice import Worth
from validation.experiments.planning.plan import plan
from validation.experiments.planning.race import Course, Tried, _left, race, tried
from validation.experiments.planning.result import Plan
from validation.experiments.planning.space import ENGINES, Setting, defaults, settings_of
from validation.experiments.planning.words import engine_config
from validation.simulator.metrics import Interval
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

SERVER = Server(
    name="small",
    source="test",
    kv_capacity_tokens=4096,
    block_tokens=16,
    iteration_time=IterationTime(
        tokens_knots=(0.0, 1000.0), seconds_knots=(0.01, 0.11), per_kv_token_s=1e-6
    ),
)
SLOW = SERVER.model_copy(
    update={
        "name": "slow",
        "iteration_time": IterationTime(tokens_knots=(0.0, 1000.0), seconds_knots=(0.5, 0.6)),
    }
)
LOAD = Workload(
    name="long",
    classes=(RequestClass(name="a", rate_per_s=1.0, prefill_tokens=64, decode_tokens=200),),
)
QUICK = Runs(2, 120)


def a_try(number: int, goodput: Sequence[float], ttft_s: float = 1.0) -> Tried:
    each = np.array(goodput, float)
    times = np.full(len(each), ttft_s)
    return Tried(Setting("vllm-v1", (("cap", number),)), 10.0, each, times, times, 0.0)


class Counted(Course):
    """A course on which setting number i attains share i/100 of what is offered, with noise."""

    def run(self, settings: Sequence[Setting], runs: Runs, rate_per_s: float) -> list[Tried]:
        shared = np.random.default_rng(runs.seed).normal(0.0, 0.05, runs.replications)
        found = []
        for one in settings:
            number = int(dict(one.values).get("cap", 1))
            own = np.random.default_rng(number).normal(0.0, 0.002, runs.replications)
            found.append(a_try(number, rate_per_s * (number / 100 + shared + own)))
        return sorted(found, key=lambda one: -one.goodput_per_s)


def test_a_race_ends_with_the_best_whatever_they_all_share() -> None:
    settings = [Setting("vllm-v1", (("cap", number),)) for number in range(1, 91)]
    course = Counted(model_of(LOAD, SERVER), "goodput", None, 10.0)
    rounds: list[None] = []
    found = race(course, settings, 5.0, QUICK, Budget(100), lambda: rounds.append(None))
    assert dict(found.best[0].setting.values) == {"cap": 90}
    assert found.finished
    assert len(found.field) == 90
    assert found.simulations < 2 * 90
    assert 1 < len(rounds) < 8


def test_a_race_without_time_stops_after_its_first_round() -> None:
    settings = [Setting("vllm-v1", (("cap", number),)) for number in range(1, 10)]
    course = Counted(model_of(LOAD, SERVER), "goodput", None, 10.0)
    budget = Budget(100, seconds=1.0, clock=iter([0.0, 2.0]).__next__)
    found = race(course, settings, 5.0, QUICK, budget, lambda: None)
    assert (found.finished, found.simulations) == (False, 9)


def test_who_cannot_be_told_from_the_best_is_kept_up_to_half() -> None:
    alike = [a_try(number, [5.0, 5.0 - 0.01 * number, 5.0 + 0.01 * number]) for number in range(12)]
    assert len(_left(alike, "goodput")) == 6
    apart = [a_try(number, [5.0 - number, 5.01 - number, 4.99 - number]) for number in range(12)]
    assert [dict(one.values)["cap"] for one in _left(apart, "goodput")] == [0, 1, 2, 3]


def test_a_round_in_which_few_do_the_same_decides_nothing() -> None:
    same = [a_try(number, [5.0, 5.0]) for number in range(10)]
    assert len(_left([*same, a_try(10, [4.0, 4.0])], "goodput")) == 10
    assert len(_left(same, "goodput", last=True)) == 5
    assert len(_left([a_try(number, [5.0, 5.0]) for number in range(600)], "goodput")) == 300


def test_who_attains_as_much_with_more_room_is_better() -> None:
    load = LOAD.model_copy(update={"slo": Slo(ttft_s=5.0, tpot_s=20.0, quantile=0.9)})
    course = Course(model_of(load, SERVER), "goodput", 0.9, 100.0)
    assert course.nearness(a_try(1, [5.0], ttft_s=4.0)) == pytest.approx(4.0 / 5.0)
    free = Course(model_of(LOAD, SERVER), "goodput", None, 100.0)
    assert free.nearness(a_try(1, [5.0])) == 0.0


def test_less_ttft_is_better_and_more_goodput_is() -> None:
    one, other = a_try(1, [4.0, 4.2], ttft_s=0.5), a_try(2, [3.0, 3.2], ttft_s=1.0)
    assert one.better_by(other, "ttft").mean == pytest.approx(0.5)
    assert one.better_by(other, "goodput").mean == pytest.approx(1.0 / 3.1)


def test_the_rate_moves_towards_what_the_best_just_keeps() -> None:
    course = Course(model_of(LOAD, SERVER), "goodput", 0.99, 100.0)
    runs = Runs(4, 1000)
    for share, up in ((1.0, True), (0.98, False), (0.5, False)):
        assert (course.next_rate(a_try(1, [10.0 * share]), runs) > 10.0) is up
    assert course.next_rate(a_try(1, [9.9]), runs) == pytest.approx(10.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_grid_holds_the_defaults_first_and_nothing_twice(engine: str) -> None:
    model = model_of(LOAD, SERVER)
    space = ENGINES[engine]
    found = settings_of(space, LOAD, SERVER, model)
    assert found[0] == space.default
    assert len(set(found)) == len(found) > 10
    usual = defaults(space.default, model)
    assert all(value != usual[name] for one in found for name, value in one.values)
    assert {one.policy for one in found} == set(space.policies)


def test_flags_of_trtllm_name_the_capacity_policy_with_what_it_is_worth() -> None:
    worth = Worth(
        "policy", "trtllm-max-utilization", "trtllm-no-evict", Interval(mean=0.12, half_width=0.01)
    )
    config = engine_config("trtllm", [worth], "more goodput")
    written = yaml.safe_load(config.text)
    assert written == {"scheduler_config": {"capacity_scheduler_policy": "MAX_UTILIZATION"}}
    assert "12.00 % ± 1 more goodput than at the engine's own (GUARANTEED_NO_EVICT)" in config.text


@cache
def a_plan() -> Plan:
    return plan(LOAD, SERVER, budget_s=30.0, runs=QUICK)


def test_a_plan_is_not_worse_than_the_engine_and_says_by_how_much() -> None:
    best = a_plan().best
    assert best.gain.high >= 0
    assert len(best.best.goodput_each_per_s) == len(best.default.goodput_each_per_s) == 20
    difference = best.best.goodput_each_per_s - best.default.goodput_each_per_s
    assert best.gain.mean * best.default.goodput_per_s == pytest.approx(difference.mean())
    assert {one.name for one in best.worth} == {name for name, _ in best.setting.values}
    assert all(one.gain.low > 0 or one.gain.mean > 0.002 for one in best.worth)
    assert best.setting in {one.setting for one in best.raced.field}


@pytest.mark.parametrize(
    ("slo", "objective", "reason"),
    [
        (Slo(tpot_s=0.2, quantile=0.9), "goodput", "TPOT of a within 0.2 s on slow"),
        (Slo(tpot_s=0.2, quantile=0.9), "cost", "the least possible is 0.5"),
        (None, "ttft", "on one slow, which carries"),
    ],
)
def test_a_server_that_cannot_is_left_out_with_the_reason(
    slo: Slo | None, objective: Any, reason: str
) -> None:
    load = LOAD.model_copy(update={"slo": slo})
    found = plan(load, [SLOW, SERVER], objective=objective, budget_s=4.0, runs=QUICK)
    assert [one.server.name for one in found.options] == ["small"]
    assert reason in found.left_out["slow"]
    assert f"slow is left out: {found.left_out['slow']}" in str(found)
    assert found.document()["left_out"] == dict(found.left_out)
    with pytest.raises(InfeasibleError, match=reason):
        plan(load, SLOW, objective=objective, budget_s=4.0, runs=QUICK)


def test_least_ttft_is_told_at_the_rate_of_the_load() -> None:
    found = plan(LOAD, SERVER, objective="ttft", budget_s=1.0, runs=QUICK)
    assert (found.best.replicas, found.best.carried_per_s) == (1, 1.0)
    assert "; p99 TTFT 0." in found.sentence
    assert found.sentence.endswith(" s at 1 requests/s.")
    assert found.best.best.ttft_p99_s > SERVER.iteration_time(64.0)


def test_its_table_can_be_written_read_and_exported(tmp_path: Path) -> None:
    table = a_plan().best.table
    assert table is not None
    table.write(tmp_path / "t.json")
    again = ThresholdTable.read(tmp_path / "t.json")
    assert again.params == table.params
    values = dict(a_plan().best.setting.values)
    assert again.limits.watermark_fraction == values.get("watermark", 0.0)
    assert again.limits.cap_requests == values.get("max_num_seqs")


def test_watermarks_of_a_public_case_are_ordered_as_they_were_measured() -> None:
    """Preemptions fall (there 1065, 400, 187, 168), and none at all completes least."""
    cases = Path(__file__).parents[1] / "data" / "cases"
    load, server = (
        Workload.read(cases / "long-outputs.yaml"),
        load_server(cases / "long-outputs-server.json"),
    )
    settings = [Setting("vllm-v1", (("watermark", one),)) for one in (0.0, 0.02, 0.05, 0.1)]
    none, *others = tried(model_of(load, server), settings, Runs(8, 800), 3.1, False)
    evictions = [one.evictions_per_request for one in (none, *others)]
    assert evictions == sorted(evictions, reverse=True)
    assert all(one.better_by(none, "goodput").low > 0 for one in others)


def slo_load(quantile: Any) -> Workload:
    return LOAD.model_copy(update={"slo": Slo(ttft_s=5.0, quantile=quantile)})


@pytest.mark.parametrize(
    ("load", "servers", "given", "told"),
    [
        (LOAD, [], {}, "servers"),
        (LOAD, [], {"costs": {"small": 1.0}}, "servers"),
        (LOAD, [SERVER], {"costs": {"large": 1.0}}, "a name among small"),
        (LOAD, [SERVER], {"costs": {"small": 0.0}}, "a cost per hour"),
        (LOAD, [SERVER, SERVER], {}, "different names"),
        (LOAD, [SERVER], {"budget_s": 0.0}, "seconds > 0"),
        (LOAD, [SERVER], {"budget_s": float("nan")}, "seconds > 0"),
        (LOAD, [SERVER], {"objective": "joy"}, "one of goodput, cost, ttft"),
        (LOAD, [SERVER], {"objective": "cost"}, "without service levels"),
        (slo_load("mean"), [SERVER], {}, "a share of the requests"),
        (
            LOAD,
            [SERVER.model_copy(update={"kv_capacity_tokens": 256})],
            {},
            "264|263|fit|at most",
        ),
    ],
)
def test_bad_plans(load: Workload, servers: list[Server], given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan(load, servers, **given)
