"""The compiled engine against the slow reference, request by request, on random workloads."""

from __future__ import annotations

import pytest

from tests.benchmarks.loads import model_with
from tests.support.agreement import compare
from tests.support.random_cases import crowded_case, random_case
from validation.policies import POLICIES
from validation.simulator import cpu

WORKLOADS = 100
"""More of them: ``python -m tests.benchmarks.agreement``."""

CROWDS = 30

AGGREGATED = [name for name, one in POLICIES.items() if one.form_aggregated is not None]


@pytest.mark.parametrize("name", POLICIES)
def test_engine_agrees_with_reference(name: str) -> None:
    evictions = [compare(random_case(name, number)) for number in range(WORKLOADS)]
    if POLICIES[name].never_evicts:
        assert sum(evictions) == 0
    else:
        assert sum(count > 0 for count in evictions) >= WORKLOADS / 3


@pytest.mark.parametrize("name", AGGREGATED)
def test_a_crowd_that_is_not_touched_agrees_with_reference(name: str) -> None:
    """More of them: ``python -m tests.benchmarks.aggregation``."""
    for number in range(CROWDS):
        compare(crowded_case(name, number))


@pytest.mark.parametrize("name", AGGREGATED)
def test_ordinary_iterations_touch_no_decoder(name: str) -> None:
    """With ample memory every iteration is ordinary, but for those that pause the decoders."""
    thresholds = (5,) if POLICIES[name].per_class else ()
    job = cpu.Job(POLICIES[name].configure(thresholds=thresholds), 0)
    (scalars,) = cpu.run_reading(model_with(20), [job], 200, lambda lane: lane.scalars[0].copy())
    assert scalars["aggregated_since"] == 0
    assert scalars["step"] > 0.7 * scalars["iterations"]
