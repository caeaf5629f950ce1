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
from tests.support.wait_cases import PAPER_TAU, TWO, server
from thresholds.json_schemas import generated_schema, shipped_schema
from thresholds.schedule import Schedule
from thresholds.solve import constant, solve
from thresholds.solvers.registry import SOLVERS
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.solver import Wait

MACHINE = server(PAPER_TAU)


def profiled(*pieces: tuple[float, float], period_s: float | None = None) -> Workload:
    profile = tuple(RatePiece(start_s=at, multiplier=times) for at, times in pieces)
    return TWO.model_copy(update={"rate_profile": profile, "period_s": period_s})


def scheduled(load: Workload, solver: Solver | None = None, overload: bool = False) -> Schedule:
    found = solve(load, MACHINE, solver, overload=overload)
    assert isinstance(found, Schedule)
    return found


DAY = profiled((0, 0.2), (100, 1.0), (200, 1.0), (300, 0.5), period_s=400.0)


@pytest.mark.parametrize("policy", ["paced", "wait"])
def test_each_window_has_the_table_of_its_own_rates(policy: str) -> None:
    assert policy in SOLVERS
    found = scheduled(DAY, SOLVERS[policy]())
    spans = [(one.start_s, one.end_s, one.multiplier) for one in found.windows]
    assert spans == [(0, 100, 0.2), (100, 300, 1.0), (300, 400, 0.5)]
    for one in found.windows:
        alone = SOLVERS[policy]().solve(constant(DAY, one.multiplier), MACHINE)
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
        equilibrium(constant(peak, 4.0), MACHINE).max_scale
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
