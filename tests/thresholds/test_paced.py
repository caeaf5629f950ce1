"""The paced policy: pace, cap and watermark from the boundary."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.packing import packing
from fluid.workload import Workload
from tests.support.builders import server, workload
from thresholds.solvers.few import is_capped
from thresholds.solvers.paced.boundary import (
    IN_STEP,
    LARGEST_WATERMARK,
    LEAST_WATERMARK,
    boundary_load,
)
from thresholds.solvers.paced.solver import Paced

LONG = workload((2.6, 512, 1000))
SERVER = load_server("paper-long-decode")


def test_one_class_on_the_memory_boundary_is_paced_at_capacity_over_memory_sum() -> None:
    table = Paced().solve(LONG, SERVER)
    assert table.policy == "paced"
    assert table.params["pace_per_iteration"] == pytest.approx(137_000 / 1_013_012, rel=2e-3)
    assert table.memory.required_tokens == pytest.approx(137_000)
    assert table.params["watermark_fraction"] == LEAST_WATERMARK
    assert "cap_requests" not in table.params
    assert all(one.holds for one in table.certificate)


@given(factor=st.floats(0.05, 0.999))
def test_parameters_do_not_depend_on_the_design_rate(factor: float) -> None:
    boundary = equilibrium(LONG, SERVER).max_scale
    table = Paced().solve(LONG.scaled(factor * boundary), SERVER)
    reference = Paced().solve(LONG, SERVER)
    assert table.params == pytest.approx(reference.params, rel=1e-9)
    assert table.valid_for.max_rate_per_s == pytest.approx(reference.valid_for.max_rate_per_s)


@given(
    rates=st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4),
    load=st.floats(0.1, 0.99),
    capacity=st.integers(20_000, 200_000),
)
def test_invariants_on_random_mixes(rates: list[float], load: float, capacity: int) -> None:
    mix = workload(*[(rate, 100 * (j + 1), 20 + 60 * j) for j, rate in enumerate(rates)])
    machine = Server(
        name="random",
        source="test",
        kv_capacity_tokens=capacity,
        iteration_time=IterationTime.affine(0.01, 4e-5, 3e-7),
    )
    packed = packing(mix, machine)
    offered = mix.scaled(load * packed.certain_scale)
    table = Paced().solve(offered, machine)
    pace = sum(one.threshold for one in table.thresholds)
    if is_capped(packing(offered, machine)):
        assert table.params == {"cap_requests": packed.cap_requests, "watermark_fraction": 0}
    elif boundary_load(mix, machine).swing <= IN_STEP:
        assert set(table.params) == {"watermark_fraction"}
    else:
        assert table.params["pace_per_iteration"] == pytest.approx(pace)
    assert [one.name for one in table.thresholds] == [one.name for one in mix.classes]
    shares = [one.threshold / pace for one in table.thresholds]
    assert shares == pytest.approx([rate / sum(rates) for rate in rates])
    assert table.memory.required_tokens == pytest.approx(capacity)
    assert 0 <= table.params["watermark_fraction"] <= LARGEST_WATERMARK


def test_permuted_classes_give_the_same_parameters() -> None:
    mix = workload((1.0, 512, 20), (2.0, 100, 300))
    turned = mix.model_copy(update={"classes": mix.classes[::-1]})
    first, second = (Paced().solve(one, SERVER) for one in (mix, turned))
    assert first.params == pytest.approx(second.params)


def test_halved_clock_and_doubled_rates_keep_the_pace() -> None:
    fast = SERVER.model_copy(
        update={
            "iteration_time": IterationTime.affine(
                0.0053, per_kv_token_s=0.13e-6, per_prefill_token_s=22.5e-6
            )
        }
    )
    first = Paced().solve(LONG, SERVER)
    second = Paced().solve(LONG.scaled(2.0), fast)
    assert first.params == pytest.approx(second.params)


def test_notes_tell_memory_limits_from_work_limits() -> None:
    def says_work_limits(load: Workload, machine: Server) -> bool:
        notes = Paced().solve(load, machine).notes
        return any(note.startswith("95% of the largest stable rate") for note in notes)

    assert not says_work_limits(LONG, SERVER)
    roomy = SERVER.model_copy(update={"kv_capacity_tokens": 10_000_000})
    assert says_work_limits(workload((5.0, 512, 20)), roomy)


def test_notes_tell_spread_out_output_lengths() -> None:
    def says_spread(load: Workload) -> bool:
        notes = Paced().solve(load.scaled(1e-3), SERVER).notes
        return any("do not stay in step" in note for note in notes)

    assert not says_spread(LONG)
    assert not says_spread(workload((1.0, 100, 10), (1.0, 100, 200)))
    assert says_spread(workload(*((1.0, 100, output) for output in range(10, 400, 15))))
    assert says_spread(workload((1.0, 4000, 200)))


def test_staircase_server_has_a_paced_table() -> None:
    table = Paced().solve(workload((1.0, 256, 600)), load_server("a100-80gb-llama-2-7b"))
    assert all(one.holds for one in table.certificate)
    assert 0 < table.params["pace_per_iteration"] < math.inf
    assert table.memory.required_tokens <= table.memory.capacity_tokens * (1 + 1e-9)


TINY = workload((60.0, 1, 1))
ONE_AT_A_TIME = server(IterationTime.paper(0.01, 1e-6), "decode", 2)


def test_a_rate_between_the_bounds_gets_no_table() -> None:
    """One at a time, two iterations each: 49.99/s; the fluid bound is 66.65/s."""
    with pytest.raises(InfeasibleError, match="is not certain") as caught:
        Paced().solve(TINY, ONE_AT_A_TIME)
    assert caught.value.cause == "packing of memory"
    assert caught.value.max_scale == pytest.approx(1 / (60 * (2 * 0.01 + 3e-6)))
    assert "0.833" in caught.value.nearest


def test_few_large_requests_get_a_cap_that_is_proven() -> None:
    table = Paced().solve(TINY.at_rate(45.0), ONE_AT_A_TIME)
    assert table.params == {"cap_requests": 1, "watermark_fraction": 0}
    assert table.valid_for.max_rate_per_s == pytest.approx(1 / (2 * 0.01 + 3e-6))
    assert [one.condition for one in table.certificate if "cap of 1" in one.condition]
    assert all(one.holds for one in table.certificate)
    assert any("never evicts" in one for one in table.notes)


def test_what_no_cap_is_proven_to_carry_is_said_to_be_unproven() -> None:
    """Of the largest only two fit, which leaves most of the memory empty where all are small."""
    mix = workload((1.0, 3_000, 10), (5.0, 50, 20))
    machine = server(IterationTime.affine(0.01, 1e-5, 3e-7), "prefill", 8_000)
    packed = packing(mix, machine)
    assert packed.matters
    assert packed.capped_scale < 0.8 * packed.inner_scale
    table = Paced().solve(mix.scaled(0.95 * packed.inner_scale), machine)
    assert "cap_requests" not in table.params
    assert any("not proven" in one for one in table.notes)
    assert table.valid_for.max_rate_per_s == pytest.approx(packed.inner_scale * mix.rate_per_s)
