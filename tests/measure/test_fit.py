"""The non-negative fit on given knots."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from validation.measure.composition import Compositions
from validation.measure.fit import coefficients, fit_iteration_time


def _random_compositions(seed: int, count: int) -> Compositions:
    rng = np.random.default_rng(seed)
    prefill = rng.integers(0, 2000, count).astype(float)
    decodes = rng.integers(1, 128, count).astype(float)
    return Compositions(
        kv_tokens=decodes * rng.integers(1, 4000, count),
        prefill_tokens=prefill,
        decode_requests=decodes,
        prefill_tokens_sq=prefill**2,
        prefill_context_tokens=prefill * rng.integers(0, 2000, count),
    )


def test_fit_recovers_the_coefficients_that_made_the_times():
    compositions = _random_compositions(seed=1, count=300)
    known = {
        "tokens_knots": [0, 512, 512, 1024],
        "seconds_knots": [0.009, 0.02, 0.024, 0.06],
        "per_kv_token_s": 2.7e-7,
        "per_decode_request_s": 2e-5,
        "per_prefill_token_sq_s": 5e-9,
        "per_prefill_context_token_s": 4e-9,
    }
    truth = IterationTime.from_document(known)
    fitted = fit_iteration_time(compositions, compositions.seconds(truth), truth.tokens_knots)
    for name, value in known.items():
        np.testing.assert_allclose(getattr(fitted, name), value, rtol=1e-8, err_msg=name)


def test_a_batch_that_is_predicted_to_take_no_time_is_no_division_by_zero():
    """Times as of a busy machine: prompts of one token took longer than all longer ones."""
    prompts = np.array([16.0, 0, 1, 64, 1, 0])
    decodes, kv_tokens = np.array([0.0, 1, 0, 0, 0, 4]), np.array([0.0, 256, 0, 0, 0, 1024])
    compositions = Compositions(kv_tokens, prompts, decodes, prompts**2, np.zeros(6))
    measured_s = np.array([0.000476, 0.000063, 0.004823, 0.001013, 0.017471, 0.001709])
    weights = coefficients(compositions, measured_s, (0.0, 2.0, 2.0, 16.0, 64.0))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize(
    ("change", "knots", "field"),
    [
        (lambda s: s[:-1], [0, 1000], "kv_tokens"),
        (lambda s: np.where(np.arange(len(s)) == 7, 0.0, s), [0, 1000], "seconds[7]"),
        (lambda s: s, [0, 1000, 90_000, 100_000], "tokens_knots[3]"),
        (lambda s: s, list(range(40)), "seconds"),
        (lambda s: s, [5, 1000], ""),
    ],
)
def test_fit_refuses_unusable_measurements(change, knots, field):
    compositions = _random_compositions(seed=2, count=30)
    with pytest.raises(InputError) as caught:
        fit_iteration_time(compositions, change(np.full(30, 0.01)), knots)
    assert caught.value.field == field
