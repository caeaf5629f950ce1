"""Contract of all solvers: frozen options of their own, checked when made; one way to a table."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from fluid.errors import InputError
from fluid.server import load_server
from tests.support.results_thresholds import LOAD
from thresholds.rules import RULES, rule_of
from thresholds.solve import solve
from thresholds.solvers.nested.nested_cap import NestedCap
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.registry import SOLVERS, solver_named
from thresholds.solvers.wait.solver import Wait

SERVER = load_server("paper-lmsys")

VALUES: dict[str, Any] = {
    "budget_s": 2.0,
    "scheduler": "vllm-v1",
    "objective": "memory",
    "segments": 2,
    "overflow_probability": 0.05,
    "horizon_s": 600.0,
    "prompts": "weighted",
    "certificate": "law",
    "time_limit_s": 100.0,
}
"""A value of every option that is not its default."""


@pytest.mark.parametrize("policy", SOLVERS)
def test_solver_solve_equals_solve(policy: str) -> None:
    solver = SOLVERS[policy]()
    table = solver.solve(LOAD, SERVER)
    assert solve(LOAD, SERVER, solver) == table
    assert table.policy == policy == solver.policy == solver.rule.policy
    assert table.engine_flags.vllm or not solver.rule.followed


def test_the_practical_form_is_taken_unless_told() -> None:
    assert solve(LOAD, SERVER) == Paced().solve(LOAD, SERVER)


@pytest.mark.parametrize("policy", SOLVERS)
def test_a_solver_is_a_frozen_value(policy: str) -> None:
    kind = SOLVERS[policy]
    solver = kind()
    assert solver == kind()
    assert hash(solver) == hash(kind())
    assert repr(solver).startswith(f"{kind.__name__}(")
    name = kind.options()[0]
    other = kind(**{name: VALUES[name]})
    assert other != solver
    assert dataclasses.replace(solver, **{name: VALUES[name]}) == other
    assert eval(repr(other), vars(inspect.getmodule(kind))) == other
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(solver, name, VALUES[name])
    assert kind.__doc__
    assert ">>>" in kind.__doc__


def test_solvers_and_rules_are_of_the_same_policies() -> None:
    assert list(SOLVERS) == list(RULES)
    assert all(RULES[name].policy == name for name in RULES)
    assert not rule_of("greedy").followed
    assert rule_of("greedy").meaning == ""


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("policy", SOLVERS)
def test_options_of_other_solvers_are_refused(policy: str, option: str) -> None:
    options = SOLVERS[policy].options()
    if option in options:
        assert getattr(solver_named(policy, **{option: VALUES[option]}), option) == VALUES[option]
        return
    with pytest.raises(InputError) as caught:
        solver_named(policy, **{option: VALUES[option]})
    assert caught.value.field == option
    assert policy in caught.value.allowed
    assert all(one in caught.value.allowed for one in options)


def test_every_option_has_a_value_to_try() -> None:
    assert {one for kind in SOLVERS.values() for one in kind.options()} == set(VALUES)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Paced, "budget_s", "ten"),
        (Paced, "budget_s", True),
        (Paced, "scheduler", "fifo"),
        (Wait, "objective", "profit"),
        (NestedWait, "objective", "sharp-latency"),
        (NestedWait, "time_limit_s", 0),
        (NestedWait, "segments", 1.5),
        (NestedWait, "overflow_probability", None),
        (NestedWait, "horizon_s", float("inf")),
        (NestedWait, "prompts", "mean"),
        (NestedCap, "segments", 0),
        (NestedCap, "prompts", None),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_solver_is_made(
    kind: Any, field: str, value: Any
) -> None:
    with pytest.raises(InputError) as caught:
        kind(**{field: value})
    assert (caught.value.field, caught.value.value) == (field, value)
    assert "--" not in str(caught.value)
