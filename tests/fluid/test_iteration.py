"""Iteration time: the family of THEORY 1.3 and its constructors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.iteration import IterationTime
from tests.support.fluid_strategies import general_times

STAIRS = IterationTime(tokens_knots=(0, 64, 64, 128), seconds_knots=(0.009, 0.010, 0.012, 0.014))


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [
        (0, 0.009),
        (32, 0.0095),
        (64, 0.010),
        (64.001, 0.012),
        (96, 0.013),
        (128, 0.014),
        (192, 0.016),
    ],
)
def test_stairs_jump_above_the_knot_and_continue_beyond_the_last(tokens, seconds):
    assert float(STAIRS.token_seconds(tokens)) == pytest.approx(seconds, rel=1e-5)


def test_jump_at_zero_is_the_overhead_of_any_work():
    tau = IterationTime(tokens_knots=(0, 0, 1), seconds_knots=(0.0, 0.01, 0.01 + 5e-5))
    assert float(tau.token_seconds(0)) == 0.0
    assert float(tau.token_seconds(100)) == pytest.approx(0.015)
    assert tau.overhead_s == 0.01
    assert tau.is_affine


def test_single_knot_is_constant():
    tau = IterationTime(tokens_knots=(0,), seconds_knots=(0.01,))
    np.testing.assert_array_equal(tau.token_seconds([0, 5, 1e6]), 0.01)
    assert (tau.last_slope_s, tau.is_affine) == (0.0, True)


def test_paper_is_equation_1():
    tau = IterationTime.paper(0.01, 4e-7)
    # Two prompts of 100 and 200 tokens in prefill, decodes that hold 700 tokens together.
    assert float(tau(303, kv_tokens=700, prefill_tokens=300, decode_requests=3)) == pytest.approx(
        0.01 + 4e-7 * 1000, rel=1e-14
    )


def test_every_term_counts():
    tau = IterationTime(
        tokens_knots=(0, 1),
        seconds_knots=(1.0, 3.0),
        per_kv_token_s=5.0,
        per_prefill_token_s=7.0,
        per_decode_request_s=11.0,
        per_prefill_token_sq_s=13.0,
        per_prefill_context_token_s=17.0,
    )
    terms = {
        "kv_tokens": 2.0,
        "prefill_tokens": 3.0,
        "decode_requests": 4.0,
        "prefill_tokens_sq": 5.0,
        "prefill_context_tokens": 6.0,
    }
    assert float(tau(10.0, **terms)) == 1 + 2 * 10 + 5 * 2 + 7 * 3 + 11 * 4 + 13 * 5 + 17 * 6


def test_arguments_broadcast():
    assert STAIRS(np.ones((3, 1)), kv_tokens=np.ones(4)).shape == (3, 4)


@given(general_times(), st.lists(st.floats(0, 3000), min_size=2, max_size=20))
def test_f_agrees_with_interpolation(tau, tokens):
    for count, value in zip(tokens, tau.token_seconds(tokens), strict=True):
        assert value == pytest.approx(_slow_f(tau, count), rel=1e-12)


@given(general_times(), st.lists(st.floats(0, 3000), min_size=2, max_size=20))
def test_rising_is_the_running_maximum(tau, tokens):
    """At any count the largest value of f up to it: of a knot below it, or its own."""
    knots = np.array(tau.tokens_knots)
    for count, value in zip(tokens, tau.rising.token_seconds(tokens), strict=True):
        passed = np.array(tau.seconds_knots)[knots < count]
        highest = max([_slow_f(tau, count), *passed.tolist()])
        assert value == pytest.approx(highest, rel=1e-12)


def test_f_falls_only_after_a_jump():
    saw = {"tokens_knots": (0, 64, 64, 96, 128), "seconds_knots": (0.01, 0.011, 0.02, 0.015, 0.016)}
    tau = IterationTime(**saw)
    assert float(tau.token_seconds(80)) == pytest.approx(0.0175)
    assert float(tau.rising.token_seconds(80)) == pytest.approx(0.02)
    # As high again at 96 + 160 tokens, on the last slope.
    assert float(tau.rising.token_seconds(400)) == pytest.approx(float(tau.token_seconds(400)))
    assert float(tau.rising.token_seconds(200)) == pytest.approx(0.02)
    straight = IterationTime(tokens_knots=(0, 10), seconds_knots=(0.01, 0.02))
    assert straight.rising is straight


def _slow_f(tau: IterationTime, tokens: float) -> float:
    """f by walking along the knots."""
    knots = list(zip(tau.tokens_knots, tau.seconds_knots, strict=True))
    for (left, low), (right, high) in itertools.pairwise(knots):
        if tokens <= right:
            return low if left == right else low + (high - low) * (tokens - left) / (right - left)
    return knots[-1][1] + tau.last_slope_s * (tokens - knots[-1][0])


@pytest.mark.parametrize("time_scale", [1e-6, 1.0, 1e6])
def test_affine_is_recognised_at_any_clock(time_scale):
    bent = np.array([0.009, 0.010, 0.0111]) * time_scale
    straight = np.array([0.009, 0.010, 0.011]) * time_scale
    for seconds, expected in ((bent, False), (straight, True)):
        tau = IterationTime(tokens_knots=(0.0, 10.0, 20.0), seconds_knots=tuple(seconds.tolist()))
        assert tau.is_affine is expected


@pytest.mark.parametrize(
    ("tokens", "seconds", "words"),
    [
        ([0, 10], [0.01], "same length"),
        ([5, 10], [0.01, 0.02], "start at 0"),
        ([0, 10, 5], [0.01, 0.02, 0.03], "tokens_knots must not decrease"),
        ([0, 10], [0.02, 0.01], "seconds_knots must not decrease"),
        ([0, 10, 20], [0.01, 0.03, 0.02], "except from a jump"),
        ([0, 10, 10, 20], [0.01, 0.02, 0.04, 0.03], "is not the last"),
        ([0, 10, 10, 20, 30], [0.01, 0.03, 0.02, 0.03, 0.04], "except from a jump"),
        ([0, 10, 10, 20, 30], [0.01, 0.01, 0.02, 0.005, 0.02], "below the overhead"),
        ([0, 5, 5, 5, 9], [0.01, 0.01, 0.02, 0.03, 0.04], "not more often"),
        ([0, 5, 5], [0.01, 0.01, 0.02], "last token knot"),
        ([0, 5], [0.0, 0.02], "positive duration"),
        ([], [], "at least 1 entry"),
        ([0, math.nan], [0.01, 0.02], "finite"),
        ([0, 5], [-0.01, 0.02], "greater than or equal to 0"),
    ],
)
def test_bad_knots(tokens, seconds, words):
    with pytest.raises(InputError) as caught:
        IterationTime.from_document({"tokens_knots": tokens, "seconds_knots": seconds}, "s.json")
    assert str(caught.value).startswith("s.json: ")
    assert words in caught.value.allowed


def test_negative_coefficient():
    document = {"tokens_knots": [0], "seconds_knots": [0.01], "per_kv_token_s": -1e-7}
    with pytest.raises(InputError) as caught:
        IterationTime.from_document(document)
    assert (caught.value.field, caught.value.value) == ("per_kv_token_s", -1e-7)


def test_equal_times_compare_after_they_were_used() -> None:
    one, two = (IterationTime.affine(0.01, 1e-5) for _ in range(2))
    assert one.rising is one
    assert two.rising is two
    assert one == two
