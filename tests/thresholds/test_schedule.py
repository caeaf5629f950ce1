"""Schedules: one table per window, in force by the clock alone; files; hand-overs; lulls."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluid.errors import InfeasibleError, InputError
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RatePiece, Workload
from tests.support.schedules import random_case
from tests.support.wait_cases import PAPER_TAU, TWO, server
from thresholds.json_schemas import generated_schema, shipped_schema
from thresholds.schedule import Schedule
from thresholds.solve import constant, solve
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import boundary_exponent, log_term
from thresholds.solvers.registry import SOLVERS
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.batch import full_batch
from thresholds.solvers.wait.solver import Wait
from validation.reference import Request, simulate_slowly
from validation.reference.core import Queueing
from validation.reference.scheduled import scheduled as slow_schedule
from validation.theorems.cases import load, paper_server

MACHINE = server(PAPER_TAU)


def profiled(*pieces: tuple[float, float], period_s: float | None = None) -> Workload:
    profile = tuple(RatePiece(start_s=at, multiplier=times) for at, times in pieces)
    return TWO.model_copy(update={"rate_profile": profile, "period_s": period_s})


def scheduled(load: Workload, solver: Solver | None = None, overload: bool = False) -> Schedule:
    found = solve(load, MACHINE, solver, overload=overload)
    assert isinstance(found, Schedule)
    return found


DAY = profiled((0, 0.2), (100, 1.0), (200, 1.0), (300, 0.5), period_s=400.0)


LENGTHS = load((0.5, 10, 2), (0.3, 10, 4), (0.2, 10, 6))
SLOW = paper_server(8.0, 0.001, 3_000)


def turning(*classes: dict[str, float]) -> Workload:
    """Three output lengths whose mix is another one in each window of 2,000 s."""
    pieces = tuple(
        RatePiece(start_s=2_000.0 * k, multiplier=1.0, class_multipliers=one)
        for k, one in enumerate(classes)
    )
    return LENGTHS.model_copy(update={"rate_profile": pieces, "period_s": 2_000.0 * len(classes)})


def nested(workload: Workload, segments: int | None = None) -> Schedule:
    solver = NestedWait(segments=segments, overflow_probability=0.1, objective="memory")
    found = solve(workload, SLOW, solver)
    assert isinstance(found, Schedule)
    return found


def test_windows_of_nested_wait_are_cut_alike_and_fit_together() -> None:
    """The most of every threshold; at each boundary the largest p and the least θ, by hand."""
    found = nested(turning({"c0": 0.4, "c2": 2.0}, {"c0": 1.6, "c2": 0.3}), segments=3)
    tables = [one.table for one in found.windows]
    n = [[float(one.threshold) for one in table.thresholds] for table in tables]
    survivals = [(0.7 / 0.9, 0.4 / 0.7), (0.36 / 1.16, 0.06 / 0.36)]
    most = [max(pair) for pair in zip(*n, strict=True)]
    # Stages 0–1, 2–3 and 4–5 hold prompts of 10 and so many tokens; 12 and 14 wait at boundaries.
    held = most[0] * (10 + 11) + most[1] * (12 + 13) + most[2] * (14 + 15)
    log = log_term(3, 3_600.0, 8.0, 0.1)
    for k, tokens in ((1, 12), (2, 14)):
        p = max(one[k - 1] for one in survivals)
        theta = min(float(boundary_exponent(one[k] / one[k - 1], p)) for one in n)
        held += tokens * (most[k] + log / theta)
    assert found.hand_over is not None
    assert found.hand_over.slack == pytest.approx(1 - held / 3_000)
    assert found.hand_over.holds
    assert n[0] != n[1]


def test_cuts_that_would_differ_become_those_of_one_window() -> None:
    mixes = ({"c0": 0.01, "c1": 3.0}, {"c0": 1.5, "c1": 0.01})
    own = [
        NestedWait(segments=2, overflow_probability=0.1, objective="memory").solve(
            constant(LENGTHS, RatePiece(start_s=0, multiplier=1.0, class_multipliers=one)), SLOW
        )
        for one in mixes
    ]
    assert len({one.thresholds[0].up_to_tokens for one in own}) == 2
    found = nested(turning(*mixes), segments=2)
    cuts = {tuple(each.up_to_tokens for each in one.table.thresholds) for one in found.windows}
    assert cuts == {
        tuple(
            one.up_to_tokens for one in max(own, key=lambda one: one.workload.rate_per_s).thresholds
        )
    }
    assert found.hand_over is not None
    assert "handed over" in str(found)


@pytest.mark.parametrize("times", [1.05, 4.0])
def test_arrivals_at_hand_overs(times: float) -> None:
    """An iteration of the slow window that ends in the busy one: λ·ΔT(n) against n."""
    found = scheduled(profiled((0, 0.2), (100, 0.2 * times), period_s=200.0), Wait())
    slow, busy = (one.table for one in found.windows)
    n = [float(one.threshold) for one in slow.thresholds]
    worst = max(
        each.rate_per_s * full_batch(busy.workload, MACHINE).iteration_time_s(n) / mine
        for each, mine in zip(busy.workload.classes, n, strict=True)
    )
    own = max(
        float(
            full_batch(one.workload, MACHINE)
            .loads([float(each.threshold) for each in one.thresholds])
            .max()
        )
        for one in (slow, busy)
    )
    assert found.arrivals is not None
    assert found.arrivals.slack == pytest.approx(1 - max(worst, own))
    assert found.arrivals.holds == (max(worst, own) < 1)
    assert ("FAILS" in str(found)) == (not found.arrivals.holds)


@pytest.mark.parametrize("number", range(6))
def test_interior_stages_under_a_schedule_hold_no_more_than_the_largest_threshold(
    number: int,
) -> None:
    """On the slow simulator: what enters a stage entered its segment together."""
    case = random_case(number)
    ample = case.server.model_copy(update={"kv_capacity_tokens": 10_000})
    rule = slow_schedule(case.starts_s, case.workload.period_s, case.thresholds)
    largest = [max(one) for one in zip(*case.thresholds, strict=True)]
    most = [0] * len(case.cuts)

    def watched(state: Queueing) -> list[Request]:
        batch = rule(state)
        for segment, (entry, end) in enumerate(zip((0, *case.cuts[:-1]), case.cuts, strict=True)):
            for outputs in range(entry + 1, end):
                here = sum(one.outputs == outputs for one in state.residents)
                most[segment] = max(most[segment], here)
        return batch

    draw = random.Random(number)
    requests, at = [], 0.0
    for index in range(80):
        at += draw.expovariate(case.workload.rate_per_s)
        one = draw.choice(case.workload.classes)
        requests.append(Request(index, at, 0, one.prefill_tokens, 0, one.decode_tokens))
    simulate_slowly(requests, ample, watched, {}, cuts=case.cuts)
    assert all(here <= limit for here, limit in zip(most, largest, strict=True))
    assert max(most) > 0


@pytest.mark.parametrize("policy", ["paced", "wait"])
def test_each_window_has_the_table_of_its_own_rates(policy: str) -> None:
    assert policy in SOLVERS
    found = scheduled(DAY, SOLVERS[policy]())
    spans = [(one.start_s, one.end_s, one.multiplier) for one in found.windows]
    assert spans == [(0, 100, 0.2), (100, 300, 1.0), (300, 400, 0.5)]
    for one in found.windows:
        alone = SOLVERS[policy]().solve(
            constant(DAY, RatePiece(start_s=0, multiplier=one.multiplier)), MACHINE
        )
        assert one.table == alone
        assert all(each.holds for each in one.table.certificate)
    assert (found.hand_over is None) == (policy == "paced")


def test_the_table_in_force_depends_on_the_clock_alone() -> None:
    found = scheduled(DAY)
    tables = [one.table for one in found.windows]
    for clock_s, expected in ((0, 0), (99.9, 0), (100, 1), (299, 1), (300, 2), (399, 2)):
        assert found.table_at(clock_s) == tables[expected]
        assert found.table_at(clock_s + 4000) == tables[expected]
    once = scheduled(profiled((0, 0.2), (100, 1.0)))
    assert once.windows[-1].end_s is None
    assert once.table_at(1e9) == once.windows[-1].table


def test_an_unstable_window_is_named_or_admitted_in_part() -> None:
    peak = profiled((0, 0.5), (50, 4.0), (60, 0.5), period_s=100.0)
    with pytest.raises(InfeasibleError, match=r"window from 50 s on \(multiplier 4\)") as caught:
        scheduled(peak)
    assert caught.value.max_scale == pytest.approx(
        equilibrium(constant(peak, RatePiece(start_s=50, multiplier=4.0)), MACHINE).max_scale
    )
    found = scheduled(peak, overload=True)
    assert "admit" in found.windows[1].table.notes[0]
    assert equilibrium(found.windows[1].table.workload, MACHINE).stable


@pytest.mark.parametrize(
    ("pieces", "period_s", "kept_from"),
    [
        (((0, 1.0), (10, 0.0), (20, 0.5)), 30.0, 0),
        (((0, 0.0), (10, 1.0), (20, 0.5)), 30.0, 2),
        (((0, 0.0), (10, 1.0), (20, 0.5)), None, 1),
    ],
)
def test_a_window_without_arrivals_keeps_a_table(
    pieces: tuple[tuple[float, float], ...], period_s: float | None, kept_from: int
) -> None:
    found = scheduled(profiled(*pieces, period_s=period_s), Wait())
    (lull,) = [one for one in found.windows if one.multiplier == 0]
    assert lull.table == found.windows[kept_from].table
    assert "stands still" in lull.notes[0]


def test_a_lull_too_short_to_collect_is_said() -> None:
    found = scheduled(profiled((0, 1.0), (10, 0.001), (20, 0.5)), Wait())
    assert any("longer than this window" in one for one in found.windows[1].notes)
    assert not any("longer than this window" in one for one in found.windows[0].notes)


def test_residents_of_a_stage_never_exceed_the_largest_threshold_in_force() -> None:
    """The bound behind `hand_over`, on random gates and random hand-overs of one class."""
    draw = random.Random(5)
    surplus = 0
    for _ in range(200):
        stages, threshold, largest = [0] * draw.randint(2, 8), 0, 0
        for step in range(300):
            if step % draw.choice([7, 40]) == 0:
                threshold = draw.randint(1, 9)
                largest = max(largest, threshold)
            if draw.random() < 0.3:
                continue
            leaving = [min(threshold, one) for one in stages]
            for index, one in enumerate(leaving):
                stages[index] += (leaving[index - 1] if index else threshold) - one
            assert max(stages) <= largest
            surplus += max(stages) > threshold
    assert surplus > 0


def test_hand_over_adds_up_the_largest_thresholds() -> None:
    found = scheduled(DAY, Wait())
    assert found.hand_over is not None
    largest = [
        max(float(one.table.thresholds[index].threshold) for one in found.windows)
        for index in range(2)
    ]
    sums = [sum(512 + s for s in range(output + 1)) for output in (20, 50)]
    held = largest[0] * sums[0] + largest[1] * sums[1]
    assert found.hand_over.slack == pytest.approx(1 - held / MACHINE.usable_kv_tokens)
    assert found.hand_over.holds


def test_schedules_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    found = scheduled(DAY, Wait())
    found.write(path)
    assert Schedule.read(path) == found
    jsonschema.validate(json.loads(path.read_text()), shipped_schema(Schedule))
    assert shipped_schema(Schedule) == generated_schema(Schedule)


def test_a_schedule_speaks() -> None:
    found = scheduled(DAY, Wait())
    assert repr(found) == str(found)
    assert str(found).startswith("wait schedule for ")
    assert "memory over all hand-overs" in str(found)
    assert found == Schedule.from_document(found.document())
    assert found.frame()["start_s"] == [0, 100, 300]


def broken(change: str, document: dict[str, Any]) -> dict[str, Any]:
    if change == "version":
        return document | {"schedule_version": "2.0"}
    if change == "hash":
        return document | {"server_sha256": "0" * 64}
    if change == "table":
        document["windows"][0]["table"]["workload_sha256"] = "0" * 64
        return document
    return {key: value for key, value in document.items() if key != "windows"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("version", "schedule_version"),
        ("hash", "server_sha256"),
        ("table", "workload_sha256"),
        ("missing", "windows"),
    ],
)
def test_broken_schedules_are_refused(change: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    document = scheduled(DAY).document()
    path.write_text(json.dumps(broken(change, document)))
    with pytest.raises(InputError) as caught:
        Schedule.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
