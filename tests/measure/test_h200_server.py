"""The built-in server that was measured is what the fit makes of the rows in the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluid.server import load_server
from validation.measure.calibrate import Calibration, calibrate

RAW = Path(__file__).parents[2] / "docs" / "benchmarks" / "gpu" / "h200"


@pytest.fixture(scope="module")
def found() -> Calibration:
    return calibrate(RAW / "sweep-graphs.csv", block_tokens=16)


def test_shipped_server_is_the_calibration_of_the_rows(found: Calibration) -> None:
    shipped = load_server("h200-llama-2-7b-measured")
    assert shipped.measured_range == found.measured_range
    assert shipped.kv_capacity_tokens == found.server.usable_kv_tokens
    for name, value in found.iteration_time.document().items():
        np.testing.assert_allclose(getattr(shipped.iteration_time, name), value, rtol=1e-6)


def test_its_source_tells_its_errors(found: Calibration) -> None:
    source = load_server("h200-llama-2-7b-measured").source
    for figure in (found.held_out.mean, found.held_out.p95, found.estimate.in_sample.largest):
        assert f"{100 * figure:.1f} %" in source
    assert f"{len(found.estimate.measurements)} batches" in source


def test_weights_and_kv_are_read_about_as_fast_as_the_card_can() -> None:
    """13.2 GB of weights and 0.5 MiB of KV per token at the 4.2 TB/s of a copy."""
    tau = load_server("h200-llama-2-7b-measured").iteration_time
    assert 1.0 < tau.overhead_s / (13.2e9 / 4.2e12) < 2.0
    assert 0.8 < tau.per_kv_token_s / (2**19 / 4.2e12) < 1.2
