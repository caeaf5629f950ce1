"""A lane is reused by a thread: nothing of the replication before may show in the next one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.random_cases import random_case
from validation.policies import POLICIES
from validation.simulator import cpu
from validation.simulator.metrics import collect
from validation.simulator.model import poisson_model
from validation.simulator.state import Lane, new_lane

REQUESTS = 60


SOILS = (0x01, 0x3F, 0xFF)
"""Bytes to fill memory with: small numbers, about 5e-4 and 4e18, NaN and -1."""


def soiled(lane: Lane, soil: int) -> Lane:
    """Every byte set, as in memory that somebody else has used."""
    for part in lane:
        part.view(np.uint8).fill(soil)
    return lane


@pytest.mark.parametrize("name", POLICIES)
def test_a_used_lane_gives_the_results_of_a_fresh_one(name: str) -> None:
    for number in range(30):
        case = random_case(name, number)
        model = poisson_model(case.workload, case.server)
        results = []
        fresh = [new_lane(model, REQUESTS) for _ in range(1 + len(SOILS))]
        for lane in (fresh[0], *map(soiled, fresh[1:], SOILS)):
            cpu._simulate(model, lane, cpu.Job(case.policy, 0, seed=number))
            results.append(collect(lane))
        for field in dataclasses.fields(results[0]):
            first, *others = (getattr(result, field.name) for result in results)
            for other in others:
                message = f"{case.policy.label}: {field.name}"
                np.testing.assert_array_equal(first, other, err_msg=message)
