"""The theorem bench: it stands, and a policy broken on purpose makes the matching verdict fail."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fluid.errors import InputError
from validation.policies import POLICIES
from validation.policies.greedy import GREEDY
from validation.policies.nested import NESTED_WAIT, advance_segments, running_segments
from validation.policies.wait import WAIT, advance_eligible, fits
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, advance
from validation.simulator.policy import Policy
from validation.theorems import STATEMENTS
from validation.theorems.bench import theorem_report
from validation.theorems.estimates import exact, mean, share, slope, slope_is, would_see
from validation.theorems.statement import LEVEL, Estimate

EXACT = ("greedy-by-hand", "exponent", "segments")
"""Pictures of figures that no randomness enters."""


@pytest.mark.slow
@pytest.mark.parametrize("key", STATEMENTS)
def test_every_statement_holds_and_shows_what_was_measured(key: str) -> None:
    (outcome,) = theorem_report("quick", [key]).outcomes
    refuted = [one for one in outcome.finding.measures if not one.holds]
    assert outcome.finding.measures
    assert not refuted
    assert outcome.verdict == "holds"
    lines = outcome.finding.plot.lines
    assert any(one.low is not None for one in lines) or key in EXACT
    for one in lines:
        assert one.x.shape == one.y.shape
        assert np.isfinite(one.y).all()
        if one.low is not None and one.high is not None:
            assert (one.low <= one.y).all()
            assert (one.y <= one.high).all()


def test_an_unknown_statement_is_refused() -> None:
    with pytest.raises(InputError, match=r"one of .*exponent"):
        theorem_report("quick", ["everything"])


def test_statements_cover_the_theory() -> None:
    """Sections 2–5 and 11 but those that only define something (docs/theorems.md)."""
    tried = {number for one in STATEMENTS.values() for number in one.theory.split(", ")}
    assert tried == {
        *("2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7"),
        *("3.2", "3.3", "3.4", "3.5", "3.6", "3.7"),
        *("4.3", "4.5", "4.6", "4.7"),
        *("5.1", "5.2"),
        *("11.2", "11.4", "11.5"),
    }
    assert all(re.fullmatch(r"[a-z-]+", key) for key in STATEMENTS)


# Policies broken on purpose.


@kernel
def wait_without_caps(model, lane, params, thresholds):  # type: ignore[no-untyped-def]
    """Admits everybody who waits, not n_j."""
    for index in range(thresholds.size):
        lane.queues[index].eligible = lane.queues[index].length >= thresholds[index]
    need = advance_eligible(model, lane, params, thresholds)
    for index in range(thresholds.size):
        queue = lane.queues[index]
        while queue.eligible and queue.length > 0 and fits(model, lane, need, index):
            need += admit(model, lane, index)


@kernel
def wait_for_too_few(model, lane, params, thresholds):  # type: ignore[no-untyped-def]
    """Admits one request less per batch than the threshold, but at least one."""
    for index in range(thresholds.size):
        lane.queues[index].eligible = lane.queues[index].length >= thresholds[index]
    need = advance_eligible(model, lane, params, thresholds)
    for index in range(thresholds.size):
        if lane.queues[index].eligible:
            for _ in range(max(int(thresholds[index]) - 1, 1)):
                need += admit(model, lane, index)


@kernel
def greedy_without_memory(model, lane, params, thresholds):  # type: ignore[no-untyped-def]
    """Admits everybody for whom there is a record, whatever KV they hold."""
    scalars = lane.scalars[0]
    for slot in range(scalars.residents):
        advance(model, lane.residents[slot])
    while scalars.waiting > 0 and scalars.residents < lane.residents.size:
        admit(model, lane, 0)


@kernel
def greedy_that_stops_early(model, lane, params, thresholds):  # type: ignore[no-untyped-def]
    """Completes every request after its first token."""
    scalars = lane.scalars[0]
    need = 0
    while scalars.waiting > 0:
        if scalars.residents > 0 and not fits(model, lane, need, 0):
            break
        need += admit(model, lane, 0)
        lane.residents[scalars.slots - 1].left = 1


@kernel
def nested_with_late_release(model, lane, params, table):  # type: ignore[no-untyped-def]
    """Runs the first segment alone until a hundred requests hold KV."""
    running = running_segments(model, lane, math.inf, table)
    if lane.scalars[0].residents < 100:
        running = min(running, 1)
    need = advance_segments(model, lane, params, table, running)
    if running > 0:
        for _ in range(min(int(table[0]), lane.queues[0].length)):
            need += admit(model, lane, 0)


MUTANTS: dict[str, tuple[str, Policy, Any]] = {
    "wait ignores its caps": ("memory-paths", WAIT, wait_without_caps),
    "wait admits too few": ("wait-slack", WAIT, wait_for_too_few),
    "greedy ignores memory": ("region", GREEDY, greedy_without_memory),
    "greedy never loses": ("greedy-loses", GREEDY, greedy_without_memory),
    "greedy completes early": ("balance", GREEDY, greedy_that_stops_early),
    "nested-wait releases late": ("overflow", NESTED_WAIT, nested_with_late_release),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_policy_fails_the_matching_statement(name: str) -> None:
    key, policy, form_batch = MUTANTS[name]
    broken = {**POLICIES, policy.name: replace(policy, form_batch=form_batch, form_aggregated=None)}
    found = theorem_report("quick", [key], policies=broken)
    assert not found.holds
    assert found.conclusion == f"1 of 1 statements fail: {key}."
    assert found.document()["statements"][0]["verdict"] == "fails"


# Estimates.


def test_slopes_are_those_of_the_samples() -> None:
    """About as many intervals miss the truth as their level says, and they shrink with the runs."""
    rng = np.random.default_rng(5)
    x = (10.0, 100.0, 1000.0)
    misses, widths = 0, []
    for _ in range(400):
        found = slope(x, [one**-0.5 * rng.gamma(4.0, size=100) for one in x])
        misses += not found.low <= -0.5 <= found.high
        widths.append(found.half_width)
    assert misses <= 2
    wide = slope(x, [one**-0.5 * rng.gamma(4.0, size=25) for one in x])
    assert wide.half_width == pytest.approx(2 * np.mean(widths), rel=0.35)


def test_a_slope_must_be_known_well_to_be_the_expected_one() -> None:
    assert slope_is("", Estimate(0.5, 0.42, 0.58), 0.5, "").holds
    assert not slope_is("", Estimate(0.5, 0.3, 0.7), 0.5, "").holds
    assert not slope_is("", Estimate(0.6, 0.52, 0.68), 0.5, "").holds


def test_no_events_leave_room_for_a_rare_one() -> None:
    """Clopper–Pearson without events: (1 − p)^n = (1 − level)/2 at the upper end."""
    found = share(np.zeros(1500, dtype=bool))
    assert found.value == found.low == 0
    assert found.high == pytest.approx(1 - ((1 - LEVEL) / 2) ** (1 / 1500))


def test_exact_figures_have_no_width() -> None:
    assert exact(2.0).is_exact
    assert not mean([1.0, 2.0]).is_exact
    assert math.isclose(mean([1.0, 2.0]).value, 1.5)


def test_what_an_interval_would_have_seen_fails_as_often_as_stated() -> None:
    """Means of 400 that are off by the stated deviation: about 99 % of their intervals miss it."""
    rng = np.random.default_rng(3)
    found = [mean(rng.normal(0, 1, 400)) for _ in range(1500)]
    deviation = np.mean([would_see(one) for one in found])
    seen = np.mean([not one.low <= deviation <= one.high for one in found])
    assert 0.98 < seen < 0.998
    assert slope_is("", found[0], 0.0, "").would_see == would_see(found[0])
