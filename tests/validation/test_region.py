"""The region of a pair of classes: what it holds, and the boundary of a policy in simulation."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.region import StabilityRegion
from fluid.workload import RequestClass, Workload
from validation.experiments.region import region
from validation.simulator.runs import Runs

SERVER = load_server("paper-long-decode")
CLASSES = tuple(
    RequestClass(name=f"c{k}", rate_per_s=1.0, prefill_tokens=512, decode_tokens=output)
    for k, output in enumerate((600, 300))
)
PAIR = Workload(name="pair", classes=CLASSES)


def test_the_paced_table_reaches_the_fluid_boundary() -> None:
    """Two of the mixes of `tests/benchmarks/region_boundary.py`, on a third pair of lengths."""
    done = []
    found = region(PAIR, SERVER, "paced", 2, Runs(12, 20_000), on_done=lambda: done.append(1))
    points = found.simulated["paced"]
    assert len(points) == len(done) == 2
    for one in points:
        assert 0.95 < one.share < 1.01
        assert one.stable_per_s == pytest.approx([one.share * x for x in one.fluid_per_s])


def test_a_throttled_policy_has_a_smaller_region() -> None:
    found = region(PAIR, SERVER, ["greedy:pace=0.1"], 2, Runs(5, 2000))
    (first, _) = found.simulated["greedy:pace=0.1"]
    assert 0 < first.share < 0.8
    assert first.policy == "greedy:pace=0.1"
    axes = found.plot(Figure().subplots())
    labels = [one.get_text() for one in axes.get_legend().get_texts()]
    rules = list(found.guaranteed_per_s)
    assert labels == ["fluid boundary", "this workload", *rules, "simulated: greedy:pace=0.1"]


def test_a_policy_is_checked_before_any_work() -> None:
    with pytest.raises(InputError, match="one of greedy"):
        region(PAIR, SERVER, ["paced", "fifo"], on_done=lambda: pytest.fail("simulated"))
    single = Workload(name="one", classes=CLASSES[:1])
    with pytest.raises(InputError, match="classes: got 1; allowed: two classes for simulated"):
        region(single, SERVER, ["greedy"], on_done=lambda: pytest.fail("simulated"))


def test_a_region_is_the_fluid_one_with_what_lies_inside() -> None:
    found = region(PAIR, SERVER)
    assert found.simulated == {}
    assert found.boundary() == pytest.approx(StabilityRegion(PAIR, SERVER).boundary())
    assert found.margin == pytest.approx(1 - 1 / found.reach([1.0, 1.0]))
    rules = found.guaranteed_per_s
    assert len(rules) == 2
    assert rules is found.guaranteed_per_s
    for points in rules.values():
        assert (found.loads(points) < 1 + 1e-9).all()


def test_a_region_of_one_class_has_no_picture() -> None:
    found = region(Workload(name="one", classes=CLASSES[:1]), SERVER)
    assert "Exact half-space" in str(found)
    assert found.document()["boundary_per_s"] is None
    with pytest.raises(InputError, match="classes: got 1; allowed: two classes for a picture"):
        found.plot()
