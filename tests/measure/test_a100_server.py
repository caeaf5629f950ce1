"""The built-in A100 server is what the fit makes of the iteration-time table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluid.server import load_server
from validation.measure.calibrate import Calibration, calibrate


@pytest.fixture(scope="module")
def found(shared_data: Path) -> Calibration:
    """The calibration of the 533 rows of the A100 table."""
    path = shared_data / "iteration_times_a100_llama2_7b.csv"
    if not path.exists():
        pytest.skip(f"development data not present: no {path.name}")
    return calibrate(path)


def test_shipped_server_is_the_calibration_of_the_table(found):
    shipped = load_server("a100-80gb-llama-2-7b")
    assert shipped.measured_range == found.measured_range
    for name, value in found.iteration_time.document().items():
        np.testing.assert_allclose(getattr(shipped.iteration_time, name), value, rtol=1e-6)


def test_error_of_held_out_rows_is_within_the_target_and_told_in_the_source(found):
    assert len(found.estimate.measurements) == 533
    assert found.held_out.mean <= 0.025
    assert found.held_out.p95 <= 0.075
    source = load_server("a100-80gb-llama-2-7b").source
    for figure in (found.held_out.mean, found.held_out.p95, found.estimate.in_sample.largest):
        assert f"{100 * figure:.1f} %" in source


def test_the_interval_of_a_kv_token_is_physical(found):
    low, high = found.intervals()["per_kv_token_s"]
    assert 0.24e-6 <= low < found.iteration_time.per_kv_token_s < high <= 0.32e-6


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
