"""Closed form of pace, cap and watermark."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from fluid.errors import InputError
from fluid.server import load_server
from fluid.stages import class_stages
from fluid.workload import RequestClass, Workload
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import (
    IN_STEP,
    LARGEST_WATERMARK,
    OVERSHOOT_PROBABILITY,
    boundary_load,
    overshoot_tokens,
)

SERVER = load_server("engine-long-decode")


def geometric(mean: float, prompt: int, classes: int = 8) -> Workload:
    middles = [(index + 0.5) / classes for index in range(classes)]
    lengths = [math.ceil(math.log1p(-q) / math.log1p(-1 / mean)) for q in middles]
    return Workload(
        name="geometric",
        classes=tuple(
            RequestClass(name=f"g{k}", rate_per_s=1, prefill_tokens=prompt, decode_tokens=length)
            for k, length in enumerate(lengths)
        ),
    )


def uniform(low: int, high: int) -> Workload:
    lengths = range(low, high + 1, 200)
    return Workload(
        name="uniform",
        classes=tuple(
            RequestClass(name=f"u{one}", rate_per_s=1, prefill_tokens=512, decode_tokens=one)
            for one in lengths
        ),
    )


def test_requests_that_hardly_grow_have_a_root_in_spite_of_rounding() -> None:
    """θ is Σ n_j/growth up to e^{−θh}, which rounding loses; here the excess is −7e-15 there."""
    per_stage = np.array([47.80448531048587, 10.463322322949429])
    first, last = np.array([734.0, 762.0]), np.array([736.0, 763.0])
    theta = per_stage.sum() / (per_stage @ (last - first))
    assert overshoot_tokens(per_stage, first, last) == pytest.approx(1 / theta)


@pytest.mark.parametrize(
    "workload", [geometric(1000, 512), geometric(600, 300), uniform(100, 1900)]
)
def test_one_percent_of_closures_overshoot_the_watermark(workload: Workload) -> None:
    """The random walk itself: admission has closed, everyone grows, n_j complete per iteration.

    KV is seen once per iteration, so that the first passage may overshoot by one iteration's growth
    g: the probability lies between p·e^{−θg} and p.
    """
    load = boundary_load(workload, SERVER)
    stages = [class_stages(one, SERVER) for one in workload.classes]
    held = [np.array([one.held_kv_tokens[end] for one in stages], dtype=float) for end in (0, -1)]
    inverse_tokens = 1 / overshoot_tokens(load.per_stage, *held)
    peaks = np.array([one.held_kv_tokens[-1] for one in stages])
    grown = load.per_stage @ [one.held_kv_tokens[-1] - one.held_kv_tokens[0] for one in stages]
    room_tokens = -math.log(OVERSHOOT_PROBABILITY) / inverse_tokens
    generator = np.random.default_rng(1)
    walks = 4_000
    level, over = np.zeros(walks), np.zeros(walks, dtype=bool)
    for _ in range(1_000):
        level += grown - generator.poisson(load.per_stage, (walks, len(peaks))) @ peaks
        over |= level > room_tokens
    low, high = binomtest(int(over.sum()), walks).proportion_ci(0.99)
    assert low < OVERSHOOT_PROBABILITY
    assert high > OVERSHOOT_PROBABILITY * math.exp(-inverse_tokens * grown)
    assert load.watermark_fraction == pytest.approx(room_tokens / SERVER.usable_kv_tokens)


def test_the_watermark_is_bounded() -> None:
    short_prompts = geometric(1000, 4)
    assert boundary_load(short_prompts, SERVER).watermark_fraction == LARGEST_WATERMARK


def test_rates_of_a_mix_do_not_matter() -> None:
    workload = geometric(300, 100, classes=40)
    first, second = (boundary_load(workload.scaled(by), SERVER) for by in (1e-3, 2e-3))
    assert first.watermark_fraction == pytest.approx(second.watermark_fraction)
    assert first.closed_form() == Limits(watermark_fraction=first.watermark_fraction)
    assert first.rate_per_s == pytest.approx(second.rate_per_s)
    assert first.per_stage == pytest.approx(second.per_stage)


def test_params_name_the_restraints_that_there_are() -> None:
    assert Limits().params == {"watermark_fraction": 0.0}
    assert Limits(0.5, 7, 0.1).params == {
        "pace_per_iteration": 0.5,
        "cap_requests": 7,
        "watermark_fraction": 0.1,
    }


def of_outputs(outputs: Iterable[int]) -> Workload:
    return Workload(
        name="outputs",
        classes=tuple(
            RequestClass(name=f"d{one}", rate_per_s=1, prefill_tokens=512, decode_tokens=one)
            for one in outputs
        ),
    )


def test_synchrony_is_the_characteristic_function() -> None:
    """N equally likely lengths: |sin(Nω/2)/(N sin(ω/2))|, largest at the lowest frequency."""
    assert boundary_load(of_outputs([600]), SERVER).synchrony == pytest.approx(1.0)
    uniform_lengths = boundary_load(of_outputs(range(500, 1501)), SERVER)
    half = math.pi * 0.75 / 1000
    expected = abs(math.sin(1001 * half) / (1001 * math.sin(half)))
    assert uniform_lengths.synchrony == pytest.approx(expected, rel=1e-6)
    assert uniform_lengths.growth == pytest.approx(1000 / 1512, abs=0.02)
    assert uniform_lengths.swing < IN_STEP


@pytest.mark.parametrize("outputs", [(400, 1000), (100, 1000), (250, 500, 750, 1000)])
def test_few_lengths_stay_in_step_however_far_apart(outputs: tuple[int, ...]) -> None:
    load = boundary_load(of_outputs(outputs), SERVER)
    assert load.swing > IN_STEP
    assert load.closed_form().pace_per_iteration == load.pace_per_iteration


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pace_per_iteration", 0.0),
        ("pace_per_iteration", -1.0),
        ("pace_per_iteration", math.inf),
        ("pace_per_iteration", math.nan),
        ("pace_per_iteration", "1"),
        ("cap_requests", 0),
        ("cap_requests", 1.5),
        ("cap_requests", True),
        ("cap_requests", math.inf),
        ("watermark_fraction", -0.01),
        ("watermark_fraction", 1.0),
        ("watermark_fraction", math.nan),
        ("watermark_fraction", None),
    ],
)
def test_limits_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        Limits(**{field: value})
    assert caught.value.field == field


def test_limits_come_from_parameters_and_go_back() -> None:
    params = {"pace_per_iteration": 0.5, "cap_requests": 7.0, "watermark_fraction": 0.1}
    limits = Limits.of_params(params | {"max_wait_s": 2.0})
    assert limits == Limits(0.5, 7, 0.1)
    assert limits.params == params
    assert isinstance(limits.cap_requests, int)
    assert (limits.pace, limits.cap) == (0.5, 7)
    assert (Limits().pace, Limits().cap) == (math.inf, math.inf)
    assert Limits.of_params({}) == Limits()
