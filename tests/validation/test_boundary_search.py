"""The search for a boundary against servers of a known one, without simulating any."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from validation.experiments.boundary_search import (
    MOST_REQUESTS,
    TOLERANCE,
    Bracket,
    Budget,
    Question,
    search,
)

Server = Callable[[Question], tuple[str, float]]
"""Verdict and completions per second of a run."""


def searched(
    server: Server, start_per_s: float, rate_factor: float = 1.0, **budget: Any
) -> tuple[Bracket, list[Question]]:
    found = search(start_per_s, TOLERANCE, Budget(**{"requests": 500, **budget}), rate_factor)
    asked = [next(found)]
    while True:
        word, rate_per_s = server(asked[-1])
        result = SimpleNamespace(verdict=word, completed_each_per_s=(rate_per_s,) * 4)
        try:
            asked.append(found.send(result))  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, asked


def plain(boundary_per_s: float, transient: float = 0.0) -> Server:
    """Completes what it can; short runs look worse by `transient` ÷ requests."""

    def run(question: Question) -> tuple[str, float]:
        carried = boundary_per_s * (1 - transient / question.requests)
        word = "stable" if question.rate_per_s < boundary_per_s else "unstable"
        return word, min(carried, question.rate_per_s)

    return run


@pytest.mark.parametrize("start_per_s", [0.01, 5.0, 19.5, 1000.0])
@pytest.mark.parametrize("requests", [1, 500, 20_000])
def test_the_bracket_depends_on_neither_start_nor_length(start_per_s: float, requests: int) -> None:
    found, asked = searched(plain(19.5, transient=300.0), start_per_s, requests=requests)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 19.5 < found.high_per_s
    assert found.high_per_s / found.low_per_s <= 1 + 2.1 * TOLERANCE
    assert all(one.requests <= MOST_REQUESTS for one in asked)


def test_a_policy_that_can_collapse_is_bracketed_by_verdicts() -> None:
    """Carries 2.4 from empty, 1.8 under a backlog."""

    def run(question: Question) -> tuple[str, float]:
        stable = question.rate_per_s < 2.4
        return ("stable", question.rate_per_s) if stable else ("unstable", 1.8)

    found, _ = searched(run, 3.0)
    assert found.saturated_per_s == pytest.approx(1.8)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 2.4 <= found.high_per_s
    assert "collapse" in found.reason


def test_a_policy_that_collapses_late_is_watched_for_long() -> None:
    """From empty it carries 2.4 for 50,000 requests, 2.0 for ever, and 1.8 under a backlog."""

    def run(question: Question) -> tuple[str, float]:
        carried = 2.4 if question.requests <= 50_000 else 2.0
        stable = question.rate_per_s < carried
        return ("stable", question.rate_per_s) if stable else ("unstable", 1.8)

    found, asked = searched(run, 3.0)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 2.0 <= found.high_per_s
    assert f"stable for runs of {MOST_REQUESTS:,} requests" in found.reason
    ticks = iter(range(10**6))
    ended, short = searched(run, 3.0, seconds=1.5, clock=lambda: float(next(ticks)))
    assert "stable for runs of 10,000 requests" in ended.reason
    assert max(one.requests for one in asked) > max(one.requests for one in short)


def test_undecided_is_never_a_side_of_the_bracket() -> None:
    """No throughput settles, and verdicts are open between 0.9 and 1.1."""

    def run(question: Question) -> tuple[str, float]:
        if question.rate_per_s < 0.9:
            return "stable", 0.0
        return ("unstable" if question.rate_per_s > 1.1 else "undecided"), 0.0

    found, _ = searched(run, 1.0)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 0.9
    assert found.high_per_s > 1.1
    assert "undecided" in found.reason


def test_a_spent_budget_ends_the_search() -> None:
    ticks = iter(range(10**6))
    budget = {"seconds": 1.0, "clock": lambda: float(next(ticks))}
    found, asked = searched(plain(19.5, transient=600.0), 19.5, **budget)
    assert max(one.requests for one in asked) < MOST_REQUESTS
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 19.5
    assert found.high_per_s / found.low_per_s > 1 + 3 * TOLERANCE


def test_a_counted_budget_ends_it_at_the_same_place_on_every_machine() -> None:
    slow = iter(range(0, 10**9, 1000))
    server = plain(19.5, transient=600.0)
    found, asked = searched(server, 19.5, most_requests=50_000)
    assert (found, asked) == searched(
        server, 19.5, most_requests=50_000, clock=lambda: float(next(slow))
    )
    assert [one.requests for one in asked] == [10_000, 20_000, 10_000]
    assert len(searched(server, 19.5)[1]) > len(asked)


def test_a_tape_has_one_length() -> None:
    _, asked = searched(plain(19.5, transient=3.0), 19.5, requests=77, fixed=True)
    assert {one.requests for one in asked} == {77}


def test_a_bracket_is_of_offered_rates() -> None:
    """Where 5 % more arrive than is offered, throughput is above the boundary of offered rates."""

    def run(question: Question) -> tuple[str, float]:
        return plain(19.5)(Question(1.05 * question.rate_per_s, question.requests))

    found, _ = searched(run, 10.0, rate_factor=1.05)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < 19.5 / 1.05 < found.high_per_s
    assert found.saturated_per_s == 19.5
