"""The boundary of a policy in simulation, along a few mixes."""

from __future__ import annotations

import pytest
from validation.experiments.simulated_region import check_policy, simulated_boundary

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.region import StabilityRegion
from fluid.workload import RequestClass, Workload


@pytest.fixture(scope="module")
def region() -> StabilityRegion:
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=1.0, prefill_tokens=512, decode_tokens=output)
        for k, output in enumerate((600, 300))
    )
    return StabilityRegion(Workload(name="pair", classes=classes), load_server("paper-long-decode"))


def test_the_paced_table_reaches_the_fluid_boundary(region: StabilityRegion) -> None:
    """Two of the mixes of `tests/benchmarks/region_boundary.py`, on a third pair of lengths."""
    done = []
    points = simulated_boundary(
        region, "paced", 2, replications=12, requests=20_000, on_done=lambda: done.append(1)
    )
    assert len(points) == len(done) == 2
    for one in points:
        assert 0.95 < one.share < 1.01
        assert one.stable_per_s == pytest.approx([one.share * x for x in one.fluid_per_s])


def test_a_throttled_policy_has_a_smaller_region(region: StabilityRegion) -> None:
    (first, _) = simulated_boundary(region, "greedy:pace=0.1", 2, replications=5, requests=2000)
    assert 0 < first.share < 0.8
    assert first.policy == "greedy:pace=0.1"


def test_a_policy_is_checked_before_any_work() -> None:
    check_policy("paced")
    with pytest.raises(InputError, match="one of greedy"):
        check_policy("fifo")
