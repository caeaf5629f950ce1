"""The built-in A100 server is what the fit makes of the iteration-time table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from validation.measure.fit import Compositions, fit_error, fit_iteration_time


@pytest.fixture(scope="module")
def table(shared_data: Path) -> tuple[Compositions, np.ndarray]:
    """Compositions and seconds of the 533 rows of the A100 table."""
    path = shared_data / "iteration_times_a100_llama2_7b.csv"
    if not path.exists():
        pytest.skip(f"development data not present: no {path.name}")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in rows])

    prefill, sequences = column("prefill_tokens"), column("num_prefill_seqs")
    compositions = Compositions(
        kv_tokens=column("decode_context_tokens_total"),
        prefill_tokens=prefill,
        decode_requests=column("decode_batch"),
        prefill_tokens_sq=prefill**2 / np.maximum(sequences, 1),
        prefill_context_tokens=prefill * column("prefill_context_tokens"),
    )
    return compositions, column("iteration_ms") / 1e3


def test_shipped_coefficients_are_the_fit_of_the_table(table):
    compositions, seconds = table
    shipped = load_server("a100-80gb-llama-2-7b").iteration_time
    fitted = fit_iteration_time(compositions, seconds, shipped.tokens_knots)
    for name, value in fitted.document().items():
        np.testing.assert_allclose(getattr(shipped, name), value, rtol=1e-6, err_msg=name)


def test_fit_error_is_within_the_target_and_told_in_the_source(table):
    server = load_server("a100-80gb-llama-2-7b")
    error = fit_error(server.iteration_time, *table)
    assert error.mean <= 0.03
    assert error.p95 <= 0.079
    for figure in (error.mean, error.p95, error.largest):
        assert f"{100 * figure:.1f} %" in server.source


def test_shipped_server_is_the_one_of_the_table():
    server = load_server("a100-80gb-llama-2-7b")
    assert server.kv_capacity_tokens == 7424 * 16
    assert (server.block_tokens, server.first_token) == (16, "prefill")
    assert 0.24e-6 <= server.iteration_time.per_kv_token_s <= 0.32e-6
    assert "vidur" in server.source


@pytest.mark.parametrize(
    ("requests", "context", "milliseconds"),
    [(1, 512, 9.48), (8, 512, 11.2), (16, 512, 12.6), (32, 512, 15.2), (64, 512, 20.3)],
)
def test_decodes_of_the_table(requests, context, milliseconds):
    tau = load_server("a100-80gb-llama-2-7b").iteration_time
    predicted = tau(requests, kv_tokens=requests * context, decode_requests=requests)
    assert float(predicted) * 1e3 == pytest.approx(milliseconds, rel=0.08)


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
