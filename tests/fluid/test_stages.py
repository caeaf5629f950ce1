"""Stages of a request, their memory and their time (THEORY 1.2, 2, 5.5)."""

from __future__ import annotations

import pytest
from hypothesis import given

from fluid.iteration import IterationTime
from fluid.stages import class_stages, linear_stage_seconds, memory_sums, stage_sums
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import affine_times, servers, workloads

TAU = IterationTime.affine(0.01, 5e-5)


@pytest.mark.parametrize(
    ("first_token", "prefill", "context", "index", "kv", "first_output"),
    [
        ("prefill", 7, 0, [0, 1, 2], [7, 8, 9], 0),
        ("decode", 7, 0, [0, 1, 2, 3], [7, 8, 9, 10], 1),
        ("prefill", 0, 7, [1, 2, 3], [8, 9, 10], 0),
        ("decode", 0, 7, [1, 2, 3], [8, 9, 10], 0),
    ],
)
def test_stages_of_both_conventions(first_token, prefill, context, index, kv, first_output):
    request = one_class(1.0, prefill, 3, context).classes[0]
    stages = class_stages(request, server_of(TAU, first_token))
    assert stages.index.tolist() == index
    assert stages.kv_tokens.tolist() == kv
    assert stages.held_kv_tokens.tolist() == kv
    assert (stages.count, stages.first_output) == (len(index), first_output)
    assert stages.decodes.tolist() == [stage > 0 for stage in index]


def test_memory_is_held_in_blocks_but_read_in_tokens():
    request = one_class(1.0, 15, 3).classes[0]
    stages = class_stages(request, server_of(TAU, block_tokens=16))
    assert stages.kv_tokens.tolist() == [15, 16, 17]
    assert stages.held_kv_tokens.tolist() == [16, 16, 32]
    assert stages.memory_sum == 64


@given(workloads(), servers(affine_times()))
def test_closed_form_of_memory_sum(workload, server):
    token_granular = server.model_copy(update={"block_tokens": 1})
    for one, found in zip(workload.classes, memory_sums(workload, token_granular), strict=True):
        count = one.decode_tokens + (server.first_token == "decode" and one.prefill_tokens > 0)
        start = one.prefill_tokens or one.context_tokens + 1
        assert found == count * (start + (count - 1) / 2)


@given(workloads(), servers(affine_times()))
def test_sums_in_closed_form_are_those_over_the_stages(workload, server):
    sums = stage_sums(workload, server)
    seconds = sums.linear_seconds(server)
    for j, one in enumerate(workload.classes):
        stages = class_stages(one, server)
        kv, decodes, early = stages.kv_tokens, stages.decodes, slice(stages.first_output + 1)
        assert sums.count[j] == len(stages.index)
        assert sums.prefill_tokens[j] == one.prefill_tokens
        assert sums.decodes[j] == decodes.sum()
        assert sums.first_decodes[j] == decodes[early].sum()
        assert sums.kv_read_tokens[j] == kv[decodes].sum()
        assert sums.first_kv_read_tokens[j] == kv[early][decodes[early]].sum()
        assert sums.first_held_tokens[j] == stages.held_kv_tokens[0]
        assert sums.last_held_tokens[j] == stages.held_kv_tokens[-1]
        assert sums.memory_sum[j] == stages.held_kv_tokens.sum()
        assert seconds[j] == pytest.approx(linear_stage_seconds(stages, server, 0.0).sum())


@given(workloads(max_classes=1), servers(affine_times()))
def test_stage_seconds_are_what_the_request_adds_to_an_iteration(workload, server):
    tau = server.iteration_time
    stages = class_stages(workload.classes[0], server)
    added = linear_stage_seconds(stages, server, tau.last_slope_s)
    for stage, kv, seconds in zip(stages.index, stages.kv_tokens, added, strict=True):
        if stage == 0:
            prompt = stages.prefill_tokens
            alone = tau(prompt, prefill_tokens=prompt, prefill_tokens_sq=prompt**2)
        else:
            alone = tau(1, kv_tokens=kv, decode_requests=1)
        assert seconds == pytest.approx(float(alone) - tau.overhead_s, rel=1e-9, abs=1e-15)
