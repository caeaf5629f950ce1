"""The realisable region of whole literal-WAIT thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fluid.server import load_server
from fluid.steady.region import StabilityRegion, mixed
from fluid.workload import RequestClass, Workload
from thresholds.guaranteed import wait_boundary, wait_reach
from thresholds.solvers.wait.batch import full_batch


def region_of(capacity: int, *lengths: tuple[int, int]) -> StabilityRegion:
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=1.0, prefill_tokens=prompt, decode_tokens=output)
        for k, (prompt, output) in enumerate(lengths)
    )
    server = load_server("paper-long-decode").model_copy(update={"kv_capacity_tokens": capacity})
    return StabilityRegion(Workload(name="w", classes=classes), server)


@pytest.mark.parametrize("capacity", [3_000, 20_000])
@pytest.mark.parametrize("mix", [(1.0, 1.0), (5.0, 1.0), (1.0, 20.0)])
def test_the_end_is_that_of_a_search_over_all_thresholds(capacity, mix):
    region = region_of(capacity, (64, 4), (32, 12))
    edge = region.reach(mix) * np.array(mix)
    batch = full_batch(mixed(region.workload, edge), region.server)
    most = np.floor(capacity / batch.memory_tokens).astype(int)
    best = 0.0
    for n in itertools.product(*(range(1, one + 1) for one in most)):
        if batch.memory(n) <= capacity:
            best = max(best, 1 / float(batch.loads(n).max()))
    reach = wait_reach(region, edge)
    assert reach == pytest.approx(best, rel=1e-5)
    assert 0 < reach <= 1


def test_the_boundary_lies_inside_the_fluid_one():
    region = region_of(137_000, (512, 1000), (512, 400))
    points = wait_boundary(region, 9)
    assert points.shape == (7, 2)
    assert region.contains(points).all()
    # Little is lost only with several requests at each stage: here n* is well below 1.
    assert region.loads(points).max() < 1
    assert wait_reach(region_of(520, (512, 4)), np.array([1.0])) == 0.0
