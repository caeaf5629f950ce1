"""Packing: periodic schedules against exact optima of tiny servers and against a slow server."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import class_stages
from fluid.steady.capacity import capacity
from fluid.steady.equilibrium import equilibrium
from fluid.steady.packing import ENOUGH, packing
from fluid.steady.patterns import Packer
from fluid.steady.queries import QUERIES
from fluid.workload import Workload
from tests.support.builders import one_class, server, workload
from tests.support.packing_cases import (
    exact_scale,
    random_packing,
    served_share,
    tiny_packing,
)

TINY = one_class(60.0, 1, 1)
ONE_AT_A_TIME = server(IterationTime.paper(0.01, 1e-6), "decode", 2)


def test_one_request_at_a_time_takes_two_iterations_each() -> None:
    found = packing(TINY, ONE_AT_A_TIME)
    assert 60 * found.fluid_scale == pytest.approx(1 / (1.5 * 0.01 + 3e-6))
    assert 60 * found.inner_scale == pytest.approx(1 / (2 * 0.01 + 3e-6))
    assert found.capped_scale == pytest.approx(found.inner_scale)
    assert (found.cap_requests, found.matters, found.is_certain) == (1, True, False)


@pytest.mark.parametrize("seed", range(12))
def test_tiny_servers_lie_between_the_bounds_and_close_to_the_inner_one(seed: int) -> None:
    case = tiny_packing(seed)
    found, exact = packing(case.workload, case.server), exact_scale(case)
    assert found.inner_scale <= exact * (1 + 1e-7)
    assert exact <= found.fluid_scale * (1 + 1e-7)
    # Patterns are searched for, not enumerated: within two per cent of the best there is.
    assert found.inner_scale >= 0.98 * exact


@pytest.mark.parametrize("seed", [2, 6, 11])
def test_the_schedule_serves_what_it_promises(seed: int) -> None:
    """Iteration by iteration, with memory counted request by request; drained in between."""
    case = random_packing(seed)
    found = packing(case.workload, case.server)
    assert found.matters
    longest = max(class_stages(one, case.server).count for one in case.workload.classes)
    periods = 130 * longest * len(found.schedule)
    seconds = periods * max(one.pattern.seconds / one.pattern.iterations for one in found.schedule)
    assert 0.99 <= served_share(found, case, seconds) <= 1 + 1e-6


def test_patterns_hold_the_memory_that_they_say() -> None:
    case = random_packing(2)
    stages = tuple(class_stages(one, case.server) for one in case.workload.classes)
    pattern = Packer(case.server, stages).tightest([2, 1, 3])
    assert pattern.counts.tolist() == [2, 1, 3]
    held = np.zeros(pattern.iterations)
    for kind, at in zip(*np.nonzero(pattern.admitted), strict=True):
        for age, tokens in enumerate(stages[kind].held_kv_tokens.tolist()):
            held[(at + age) % pattern.iterations] += tokens * pattern.admitted[kind, at]
    assert pattern.kv_tokens.tolist() == held.tolist()
    assert held.max() <= case.server.usable_kv_tokens


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (one_class(7.0, 512, 120), "engine-long-decode"),
        (one_class(2.0, 512, 1000), "paper-long-decode"),
        (workload((7.0, 512, 20), (1.0, 2048, 50)), "a100-80gb-llama-2-7b"),
    ],
)
def test_hundreds_of_residents_need_no_pattern(load: Workload, name: str) -> None:
    found = packing(load, Server.named(name))
    assert found.schedule == ()
    assert ENOUGH * found.fluid_scale <= found.inner_scale <= found.fluid_scale
    assert found.certain_scale == found.fluid_scale
    assert capacity(load, Server.named(name), "rate").certain_value is None


def test_large_prompts_fit_as_whole_requests_only() -> None:
    """4.14 of 100,000 tokens fit by averages, four in fact: 4 in every 300 iterations."""
    load, tau = one_class(0.1, 100_000, 300), IterationTime.affine(0.01)
    found = packing(load, server(tau, "prefill", 414_000))
    assert 0.1 * found.inner_scale == pytest.approx(4 / (300 * 0.01))
    assert found.inner_scale / found.fluid_scale == pytest.approx(4 * 100_149.5 / 414_000)
    assert found.matters


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_the_certain_part_of_an_answer_is_certain(query: str) -> None:
    load = workload((1.0, 300, 40))
    machine = server(IterationTime.affine(0.01, 1e-5, 1e-6), "prefill", 1_000, 16)
    load = load.at_rate(0.6 * packing(load, machine).inner_scale)
    if query == "servers":
        load = load.scaled(5)
    answer = capacity(load, machine, query)
    certain = answer.certain_value
    if certain is None:
        assert not packing(*answer.having(answer.value)).matters
        return
    assert packing(*answer.having(certain)).inner_scale >= 1 - 1e-9
    harder = certain > answer.value if query in ("kv_tokens", "servers") else certain < answer.value
    assert harder or certain == answer.value
    assert "CAUTION" in str(answer)
    assert answer.document()["certain_value"] == certain


def test_equilibrium_says_where_stability_is_only_necessary() -> None:
    assert any(
        "whole requests may not fill" in one for one in equilibrium(TINY, ONE_AT_A_TIME).caveats
    )
    slower = equilibrium(TINY.at_rate(45.0), ONE_AT_A_TIME)
    assert not any("whole requests" in one for one in slower.caveats)
