"""Limits of other models: their published figures, and the identity of THEORY 7."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from fluid.stages import class_stages
from fluid.steady.bounds import bounds, dai_rate_per_s, dong_cao_per_slot, nie_rate_per_s
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import affine_times, roomy, servers, workloads


def test_dai_oracle():
    """THEORY 6.6: t_b = c + a⌈b/128⌉, c = 11.28 ms, a = 35.47 ms, b_max = 512, 100 + 100 tokens."""
    tokens = np.repeat([128.0 * tile for tile in range(5)], 2).tolist()
    seconds = [0.01128 + 0.03547 * tile for tile in range(6) for _ in range(2)][1:-1]
    tau = IterationTime(
        tokens_knots=(*tokens, 640.0), seconds_knots=(*seconds, 0.01128 + 0.03547 * 5)
    )
    assert dai_rate_per_s(one_class(1.0, 100, 100), server_of(tau), 512) == pytest.approx(
        16.71, abs=0.005
    )


def test_dong_cao_oracle():
    """THEORY 6.6: four each of l = 10, l' ∈ {20, 40, 60} per slot peak at 16,240 tokens."""
    classes = tuple(
        RequestClass(name=f"k{n}", rate_per_s=4.0, prefill_tokens=10, decode_tokens=n)
        for n in (20, 40, 60)
    )
    workload = Workload(name="slots", classes=classes)
    server = server_of(IterationTime.affine(1.0), kv_capacity_tokens=16_492)
    assert dong_cao_per_slot(workload, server) / 3 == pytest.approx(4.0621, abs=5e-5)
    full = server_of(IterationTime.affine(1.0), kv_capacity_tokens=16_240)
    assert dong_cao_per_slot(workload, full) == pytest.approx(12.0)
    found = bounds(workload, server)
    assert found.slot_s == 1.0
    assert found.per_slot == pytest.approx(3 * 4.0621, abs=2e-4)


@settings(max_examples=300)
@given(workloads(), servers(affine_times()).map(roomy))
def test_nie_identity(workload, server):
    """THEORY 7: C/(b̄·E[g]) is the boundary of THEORY 2.3, in either convention."""
    limit = stability(workload, server).max_scale * workload.rate_per_s
    assert nie_rate_per_s(workload, server) == pytest.approx(limit, rel=1e-9)


@settings(max_examples=200)
@given(
    workloads(),
    st.floats(1e-3, 0.05),
    st.floats(0, 5e-7),
    st.integers(2_000, 200_000),
)
def test_nie_with_its_own_stage_count(workload, d0, d1, tokens):
    """On the paper's Eq. (1), b̄ = d0 + d1·C: stages 1 … l' differ from 0 … l' by one stage."""
    server = server_of(IterationTime.paper(d0, d1), "decode", kv_capacity_tokens=tokens)
    try:
        limit = stability(workload, server).max_scale
    except InputError:
        return
    busy = (d0 + d1 * tokens) / tokens
    own = sum(
        one.rate_per_s
        * (class_stages(one, server).kv_tokens[class_stages(one, server).index > 0]).sum()
        for one in workload.classes
    )
    first = sum(one.rate_per_s * one.prefill_tokens for one in workload.classes)
    assert limit <= 1 / (busy * own) * (1 + 1e-9)
    assert 1 / limit == pytest.approx(busy * (own + first))


def test_side_by_side():
    server = load_server("a100-80gb-llama-2-7b")
    workload = one_class(10.0, 512, 20)
    found = bounds(workload, server, batch_tokens=512)
    assert [one.name for one in found.bounds] == ["ao", "nie", "dong-cao", "dai"]
    rates = {one.name: one.rate_per_s for one in found.bounds}
    assert found.binding.rate_per_s == min(rates.values())
    assert found.document()["binding"] == found.binding.name
    wider = {one.name: one.rate_per_s for one in bounds(workload, server, slot_s=1.0).bounds}
    assert wider["ao"] == rates["ao"]
    assert wider["dong-cao"] == pytest.approx(dong_cao_per_slot(workload, server))
    assert "dai" not in wider


@pytest.mark.parametrize("arguments", [{"batch_tokens": 0}, {"slot_s": -1.0}])
def test_bad_arguments(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        bounds(one_class(1.0, 10, 10), server_of(IterationTime.affine(0.01)), **arguments)
