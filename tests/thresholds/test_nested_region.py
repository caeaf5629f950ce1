"""The realisable region of Nested WAIT with its buffer."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.region import StabilityRegion, mixed
from tests.support.builders import workload
from tests.support.nested_cases import decreasing
from thresholds.guaranteed import nested_boundary, nested_reach
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import STRICT, log_term
from thresholds.solvers.nested.search import aim_of
from thresholds.solvers.nested.segments import distinct_lengths


def region_of(capacity: int, *lengths: tuple[int, int]) -> StabilityRegion:
    server = load_server("paper-long-decode").model_copy(update={"kv_capacity_tokens": capacity})
    return StabilityRegion(workload(*((1.0, *one) for one in lengths)), server)


@pytest.mark.parametrize("capacity", [4_000, 40_000])
@pytest.mark.parametrize("mix", [(1.0, 1.0), (5.0, 1.0), (1.0, 20.0)])
def test_the_end_is_that_of_a_search_over_all_thresholds(
    capacity: int, mix: tuple[float, float]
) -> None:
    region = region_of(capacity, (64, 4), (32, 12))
    edge = region.reach(mix) * np.array(mix)
    lengths = distinct_lengths(mixed(region.workload, edge), region.server)
    best = 0.0
    for ends, largest in (([1], 200), ([0, 1], 250)):
        segments = lengths.segments(ends)
        log = log_term(len(ends), 3600.0, region.server.iteration_time.overhead_s, 0.01)
        loads = aim_of("slack", segments, log)(decreasing(len(ends), largest))
        best = max(best, (1 - STRICT) / float(loads.min()))
    assert nested_reach(region, edge) == pytest.approx(best, rel=1e-3)


def test_the_end_is_where_tables_end() -> None:
    region = region_of(137_000, (512, 20), (512, 50))
    edge = region.reach((2.0, 1.0)) * np.array([2.0, 1.0])
    reach = nested_reach(region, edge)
    assert reach < 1
    load = mixed(region.workload, edge)
    table = NestedWait(objective="slack").solve(load.scaled(0.999 * reach), region.server)
    assert table.valid_for.max_rate_per_s == pytest.approx(reach * load.rate_per_s)


def test_a_surer_or_longer_promise_carries_less() -> None:
    region = region_of(1_000_000, (512, 20), (512, 200))
    edge = region.reach((5.0, 1.0)) * np.array([5.0, 1.0])
    reach = nested_reach(region, edge)
    assert nested_reach(region, edge, overflow_probability=1e-9) < reach
    assert nested_reach(region, edge, horizon_s=1e9) < reach


def test_the_boundary_lies_inside_the_fluid_one() -> None:
    region = region_of(137_000, (512, 20), (512, 50))
    points = nested_boundary(region, 9)
    assert points.shape == (7, 2)
    assert region.contains(points).all()


def test_too_many_lengths_are_refused() -> None:
    region = region_of(137_000, *((64, 4 + k) for k in range(9)))
    with pytest.raises(InputError, match="at most 8 distinct output lengths"):
        nested_reach(region, region.intercepts_per_s / 9)
