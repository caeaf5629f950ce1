"""The paper's caps per segment (THEORY 5.3)."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InfeasibleError
from fluid.server import load_server
from fluid.steady.packing import packing
from tests.support.builders import workload
from tests.support.nested_cases import random_instance
from tests.support.packing_cases import random_packing
from thresholds.solvers.nested.nested_cap import ETA, NestedCap, largest_caps, segment_caps
from thresholds.solvers.nested.segments import distinct_lengths

SERVER = load_server("paper-long-decode")


def test_the_two_class_run_of_the_paper() -> None:
    """η = 0, n_2/n_1 = 0.3 and tl = 30 give caps 21 and 9."""
    load = workload((14.0, 512, 20), (6.0, 512, 50))
    segments = distinct_lengths(load, SERVER).segments([0, 1])
    assert segment_caps(segments, 30, eta=0.0).tolist() == [21, 9]


@pytest.mark.parametrize("seed", range(10))
def test_one_more_request_would_not_fit(seed: int) -> None:
    load, server = random_instance(seed, 4)
    segments = distinct_lengths(load, server).segments([0, 1, 2, 3])
    caps = largest_caps(segments)
    per_request = segments.memory_tokens / segments.widths
    assert caps @ per_request <= server.usable_kv_tokens
    # Rounding can cost up to half a request of each segment on top of the next tl.
    assert (caps + 1) @ per_request + per_request.max() > server.usable_kv_tokens
    ratios = (caps / segments.widths)[1:] / (caps / segments.widths)[:-1]
    q = np.minimum(segments.survivals + ETA, 0.99)
    assert ratios == pytest.approx(q, rel=2 / caps.min())


def test_its_table_says_what_it_is() -> None:
    load = workload((7.0, 512, 20), (3.0, 512, 50))
    table = NestedCap(segments=2).solve(load, SERVER)
    caps = [one.threshold for one in table.thresholds]
    assert sum(caps) == table.engine_flags.sglang["max-running-requests"]
    assert table.memory.required_tokens <= table.memory.capacity_tokens
    assert table.memory.overflow_probability is None
    assert [one.up_to_tokens for one in table.thresholds] == [20, 50]


def test_survivals_above_the_largest_ratio_do_not_pass_silently() -> None:
    load = workload((0.01, 100, 10), (8.0, 100, 30))
    with pytest.raises(InfeasibleError) as caught:
        NestedCap(segments=2).solve(load, SERVER)
    assert caught.value.cause.startswith("boundary 2")
    assert "fewer segments" in caught.value.nearest
    assert NestedCap(segments=1).solve(load, SERVER)


def test_coarse_segments_break_drift() -> None:
    load = workload((28.0, 512, 20), (6.0, 512, 50))
    with pytest.raises(InfeasibleError) as caught:
        NestedCap(segments=1).solve(load, SERVER)
    assert caught.value.cause.startswith("drift")
    scale = caught.value.max_scale
    assert scale is not None
    assert NestedCap(segments=1).solve(load.scaled(scale), SERVER)


def test_caps_that_round_to_nothing_are_refused() -> None:
    small = SERVER.model_copy(update={"kv_capacity_tokens": 700})
    load = workload((0.5, 512, 20), (0.001, 512, 22))
    with pytest.raises(InfeasibleError, match="rounds to 0"):
        NestedCap(segments=2).solve(load, small)


def test_caps_beyond_what_whole_requests_are_known_to_fill_are_refused() -> None:
    """1/23 in 95 tokens: drift holds up to 1.095 times the inner bound."""
    case = random_packing(30)
    packed = packing(case.workload, case.server)
    solver = NestedCap(segments=1)
    certain = case.workload.scaled(packed.inner_scale)
    table = solver.solve(certain.scaled(0.98), case.server)
    assert table.valid_for.max_rate_per_s == pytest.approx(certain.rate_per_s)
    assert table.certificate[-1].condition == "whole requests: 1/(inner bound) ≤ 1"
    with pytest.raises(InfeasibleError, match="is not certain") as caught:
        solver.solve(certain.scaled(1.05), case.server)
    assert caught.value.max_scale == pytest.approx(1 / 1.05)
