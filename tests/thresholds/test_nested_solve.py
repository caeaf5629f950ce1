"""Tables of Nested WAIT: refusals with changes that help, scaling, prompts, special cases."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from tests.support.builders import workload
from tests.support.nested_cases import decreasing, finest, log_of
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import chain_holds, feasible, mean_latency_s
from thresholds.solvers.nested.search import aim_of

LONG_DECODE = load_server("paper-long-decode")
TWO = workload((7.0, 512, 20), (3.0, 512, 50))


def test_coarse_segments_break_drift_and_say_so() -> None:
    """L = 1 counts every request as the longest: the paper's grid would pass, 4.7."""
    crowded = TWO.scaled(3.4)
    with pytest.raises(InfeasibleError) as caught:
        NestedWait(segments=1).solve(crowded, LONG_DECODE)
    assert caught.value.cause == "drift"
    assert "use 2 segments" in caught.value.nearest
    assert NestedWait(segments=2).solve(crowded, LONG_DECODE)


def test_too_little_memory_names_memory_and_segments_that_help() -> None:
    small = LONG_DECODE.model_copy(update={"kv_capacity_tokens": 30_000})
    with pytest.raises(InfeasibleError) as caught:
        NestedWait(segments=2).solve(TWO, small)
    assert caught.value.cause == "memory"
    assert "use 1 segment" in caught.value.nearest
    needed = int(caught.value.nearest.split("at least ")[1].split(",")[0])
    enough = small.model_copy(update={"kv_capacity_tokens": needed})
    assert NestedWait(segments=2).solve(TWO, enough)
    less = small.model_copy(update={"kv_capacity_tokens": needed - 1})
    with pytest.raises(InfeasibleError):
        NestedWait(segments=2).solve(TWO, less)


def test_only_the_buffer_can_be_too_large() -> None:
    base = 38_349
    tight = LONG_DECODE.model_copy(update={"kv_capacity_tokens": base + 1_000})
    with pytest.raises(InfeasibleError) as caught:
        NestedWait(segments=2).solve(TWO, tight)
    assert caught.value.cause == "safety buffer"
    table = NestedWait(objective="memory", segments=2).solve(TWO, LONG_DECODE)
    assert table.memory.required_tokens == base


def test_a_lower_rate_that_helps_is_named() -> None:
    crowded = workload((28.0, 512, 20), (6.0, 512, 50))
    with pytest.raises(InfeasibleError) as caught:
        NestedWait(segments=1).solve(crowded, LONG_DECODE)
    scale = caught.value.max_scale
    assert scale is not None
    assert f"multiply all rates by at most {scale}" in caught.value.nearest
    assert NestedWait(segments=1).solve(crowded.scaled(scale), LONG_DECODE)
    with pytest.raises(InfeasibleError):
        NestedWait(segments=1).solve(crowded.scaled(1.02 * scale), LONG_DECODE)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"overflow_probability": 0.0}, "overflow_probability"),
        ({"overflow_probability": 1.0}, "overflow_probability"),
        ({"horizon_s": 0.0}, "horizon_s"),
        ({"segments": 3}, "segments"),
        ({"segments": 0}, "segments"),
        ({"prompts": "mean"}, "prompts"),
        ({"objective": "throughput"}, "objective"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
    ],
)
def test_bad_parameters_are_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        NestedWait(**changes).solve(TWO, LONG_DECODE)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_doubled_rates_with_halved_seconds_change_nothing_but_the_clock() -> None:
    tau = LONG_DECODE.iteration_time
    fast_tau = IterationTime.affine(
        tau.overhead_s / 2,
        per_kv_token_s=tau.per_kv_token_s / 2,
        per_prefill_token_s=tau.per_prefill_token_s / 2,
    )
    fast = LONG_DECODE.model_copy(update={"iteration_time": fast_tau})
    first = NestedWait(segments=2).solve(TWO, LONG_DECODE)
    second = NestedWait(segments=2, horizon_s=1800.0).solve(TWO.scaled(2), fast)
    assert first.thresholds == second.thresholds
    assert second.memory == first.memory.model_copy(update={"horizon_s": 1800.0})
    assert first.predicted.policy_latency_s == pytest.approx(
        2 * (second.predicted.policy_latency_s or 0)
    )


def test_a_longer_horizon_and_a_smaller_probability_cost_buffer() -> None:
    def buffer(**changes: float) -> float:
        solver = NestedWait(objective="memory", segments=2, **changes)
        return solver.solve(TWO, LONG_DECODE).memory.buffer_tokens

    usual = buffer()
    assert buffer(horizon_s=36_000.0) > usual
    assert buffer(overflow_probability=1e-4) > usual
    # ln(10) more, and ln(100) more, of the same boundary.
    ratio = (buffer(overflow_probability=1e-4) - usual) / (
        buffer(overflow_probability=1e-3) - usual
    )
    assert ratio == pytest.approx(2)


def test_prompts_that_differ_bound_every_path_or_nothing() -> None:
    load = workload((4.0, 800, 20), (3.0, 100, 20), (3.0, 300, 50))
    worst = NestedWait(objective="memory", segments=2).solve(load, LONG_DECODE)
    mean = NestedWait(objective="memory", segments=2, prompts="weighted").solve(load, LONG_DECODE)
    assert worst.memory.overflow_probability == 0.01
    assert mean.memory.overflow_probability is None
    assert any("weighted mean" in one for one in mean.notes)
    n = [float(one.threshold) for one in worst.thresholds]
    first = sum(800 + s for s in range(21))
    second = sum(300 + s for s in range(21, 51))
    assert worst.memory.required_tokens == n[0] * first + n[1] * second
    assert mean.memory.required_tokens < worst.memory.required_tokens
    # Time is a mean in both.
    assert mean.predicted.policy_latency_s == worst.predicted.policy_latency_s


def test_one_segment_needs_no_buffer_and_never_overflows() -> None:
    table = NestedWait(segments=1).solve(TWO, LONG_DECODE)
    assert table.memory.buffer_tokens == 0
    assert table.memory.overflow_probability == 0


def test_staircase_is_verified_on_itself_and_proven() -> None:
    stairs = IterationTime(
        tokens_knots=(0.0, 64.0, 64.0, 256.0, 256.0, 1024.0),
        seconds_knots=(0.009, 0.010, 0.012, 0.020, 0.025, 0.070),
        per_kv_token_s=3e-7,
    )
    server = LONG_DECODE.model_copy(update={"iteration_time": stairs})
    load = workload((3.0, 60, 4), (2.0, 60, 9))
    table = NestedWait(segments=2).solve(load, server)
    assert table.solver.optimality_gap == 0
    segments = finest(load, server)
    n = np.array([float(one.threshold) for one in table.thresholds])
    assert feasible(n, segments, log_of(segments))
    values = aim_of("latency", segments, log_of(segments))(decreasing(2, 60))
    assert table.solver.objective == pytest.approx(float(values.min()))


def test_latency_is_infinite_where_a_condition_fails() -> None:
    segments = finest(TWO, LONG_DECODE)
    assert np.isinf(mean_latency_s([[10.0, 3.0], [3.0, 3.0]], segments)).all()
    assert not chain_holds([10.0, 3.0], segments)
    assert np.isfinite(mean_latency_s([10.0, 4.0], segments))
