"""A lane is reused by a thread: nothing of the replication before may show in the next one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_agreement import random_case

from validation.policies import POLICIES
from validation.simulator import cpu
from validation.simulator.metrics import collect
from validation.simulator.model import poisson_model
from validation.simulator.state import Lane, new_lane

REQUESTS = 60


def soiled(lane: Lane) -> Lane:
    """Every byte set, as in memory that somebody else has used; the series stays off."""
    for part in lane:
        part.view(np.uint8).fill(0x3F)
    return lane


@pytest.mark.parametrize("name", POLICIES)
def test_a_used_lane_gives_the_results_of_a_fresh_one(name: str) -> None:
    for number in range(30):
        case = random_case(name, number)
        model = poisson_model(case.workload, case.server)
        results = []
        for lane in (new_lane(model, REQUESTS), soiled(new_lane(model, REQUESTS))):
            cpu._simulate(model, lane, cpu.Job(case.policy, 0, seed=number))
            results.append(collect(lane))
        for field in dataclasses.fields(results[0]):
            one, two = (getattr(result, field.name) for result in results)
            np.testing.assert_array_equal(one, two, err_msg=f"{case.policy.label}: {field.name}")
