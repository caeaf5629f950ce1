"""Calibration: knots, intervals, range, importers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from tests.support.builders import server, workload
from tests.support.synthetic import AFFINE, JUMP, measured, write_csv
from validation.measure.calibrate import calibrate
from validation.measure.carry import carry
from validation.measure.composition import LINEAR_TERMS, Measurements
from validation.measure.estimate import CONFIDENCE, estimate_iteration_time
from validation.measure.fit import fit_iteration_time
from validation.measure.importers import read_measurements
from validation.measure.knots import Staircase


@pytest.mark.parametrize(("truth", "tables"), [(AFFINE, 40), (JUMP, 100)], ids=["affine", "jump"])
def test_intervals_hold_all_coefficients_in_nine_of_ten_tables(
    truth: IterationTime, tables: int
) -> None:
    """2 % noise; every coefficient and f at every knot must lie inside at once."""
    held = 0
    for seed in range(tables):
        found = estimate_iteration_time(measured(truth, noise=0.02, seed=seed), seed=seed)
        knots = np.array(found.iteration_time.tokens_knots)
        second = np.diff(knots, prepend=-1) == 0
        f = truth.token_seconds(np.where(second, knots * (1 + 1e-9), knots))
        known = np.array([*f, *(getattr(truth, name) for name in LINEAR_TERMS)])
        low, high = found.bounds.T
        held += bool(np.all((low <= known * (1 + 1e-9)) & (known <= high * (1 + 1e-9))))
    assert held >= 0.9 * tables


@pytest.mark.parametrize("truth", [AFFINE, JUMP], ids=["affine", "jump"])
def test_without_noise_the_truth_comes_back(truth: IterationTime) -> None:
    data = measured(truth)
    found = estimate_iteration_time(data)
    assert found.in_sample.largest < 1e-6
    for name in LINEAR_TERMS:
        assert getattr(found.iteration_time, name) == pytest.approx(getattr(truth, name), rel=1e-4)


def test_the_first_knot_found_is_the_jump() -> None:
    data = measured(JUMP)
    path = Staircase(data.compositions, data.seconds).path(data.seconds, 3)
    assert path[0] == (0.0, 2048.0)
    assert path[1] == (0.0, 256.0, 256.0, 2048.0)
    assert len(path) == 2, "nothing is left to explain"


def test_each_addition_is_the_best_single_one() -> None:
    """The sweep against fitting every candidate."""
    data = measured(JUMP, noise=0.05, seed=3)
    rows, seconds = data.compositions, data.seconds
    chosen = Staircase(rows, seconds).path(seconds, 1)[1]
    counts = np.unique(rows.tokens)[1:-1]
    errors = {
        knots: np.square(rows.seconds(fit_iteration_time(rows, seconds, knots)) / seconds - 1).sum()
        for count in counts
        for knots in ((0.0, count, 2048.0), (0.0, count, count, 2048.0))
    }
    # The search projects without signs, the fit is non-negative: nearly the best, not exactly.
    assert chosen == (0.0, 256.0, 256.0, 2048.0)
    assert errors[chosen] <= 1.05 * min(errors.values())


def taken(data: Measurements, rows: np.ndarray) -> Measurements:
    compositions, seconds = data.compositions.take(rows), data.seconds[rows]
    return replace(data, compositions=compositions, seconds=seconds)


def test_other_units_of_time_change_nothing_else() -> None:
    data = measured(JUMP, noise=0.02, seed=1)
    one, ten = (
        estimate_iteration_time(data),
        estimate_iteration_time(replace(data, seconds=10 * data.seconds)),
    )
    assert ten.held_out.mean == pytest.approx(one.held_out.mean)
    np.testing.assert_allclose(ten.bounds, 10 * one.bounds, rtol=1e-6)


def test_a_table_of_decodes_alone_says_nothing_about_prefills() -> None:
    data = measured(AFFINE, noise=0.01)
    decodes = data.compositions.prefill_tokens == 0
    found = estimate_iteration_time(taken(data, decodes))
    assert set(found.unmeasured) == {
        "per_decode_request_s",
        "per_prefill_token_sq_s",
        "per_prefill_context_token_s",
    }
    low, high = found.intervals()["per_kv_token_s"]
    assert low <= AFFINE.per_kv_token_s <= high
    assert found.intervals()["per_prefill_token_sq_s"] is None


def test_batches_that_vary_together_are_refused() -> None:
    data = measured(AFFINE)
    same_context = replace(data.compositions, kv_tokens=512 * data.compositions.decode_requests)
    with pytest.raises(InputError) as caught:
        estimate_iteration_time(replace(data, compositions=same_context))
    assert caught.value.field in {"per_kv_token_s", "per_decode_request_s"}
    assert "cannot be told" in str(caught.value)


def test_too_few_rows() -> None:
    data = measured(AFFINE)
    few = np.arange(9)
    with pytest.raises(InputError, match="at least 10 rows"):
        estimate_iteration_time(
            replace(data, compositions=data.compositions.take(few), seconds=data.seconds[few])
        )


def test_intervals_are_carried_to_the_load() -> None:
    """Over tables with noise, the figures of the true server lie inside about as often as told."""
    load = workload((6.0, 512, 200))
    tables = 12
    inside = dict.fromkeys(
        ("kv_tokens", "max_scale", "pace_per_iteration", "watermark_fraction"), 0
    )
    for seed in range(tables):
        found = estimate_iteration_time(measured(AFFINE, noise=0.02, seed=seed), seed=seed)
        got = carry(
            found.draws, load, server(found.iteration_time, kv_capacity_tokens=60_000), CONFIDENCE
        )
        known = carry(found.draws, load, server(AFFINE, kv_capacity_tokens=60_000), CONFIDENCE)
        for name in inside:
            one = got[name]
            assert one.low is not None
            assert one.high is not None
            assert one.high - one.low < 0.3 * one.high
            inside[name] += one.low <= known[name].estimate <= one.high
    assert min(inside.values()) >= 9, inside


def test_the_csv_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = measured(JUMP, noise=0.02)
    read = read_measurements(write_csv(data, tmp_path / "rows.csv"))
    np.testing.assert_allclose(read.seconds, data.seconds)
    np.testing.assert_array_equal(read.compositions.linear, data.compositions.linear)
    assert read.measured_range == data.measured_range
    assert read.kv_capacity_tokens is None


def test_a_calibration_is_the_server_file_that_it_writes(tmp_path: Path) -> None:
    rows = write_csv(measured(JUMP, noise=0.02), tmp_path / "my-gpu.csv")
    found = calibrate(rows, kv_tokens=50_000, block_tokens=32)
    found.write(tmp_path / "server.json")
    assert Server.read(tmp_path / "server.json") == found.server
    assert (found.server.name, found.server.kv_capacity_tokens) == ("my-gpu", 50_000)
    assert found.server.block_tokens == 32
    assert found.server.first_token == "prefill"
    assert f"{100 * found.held_out.mean:.1f} % in the mean" in found.server.source


def test_the_rows_say_how_much_kv_fits_unless_the_caller_does() -> None:
    data = measured(AFFINE)
    most_read = int(data.measured_range.kv_tokens[1])
    guessed = calibrate(data, name="a")
    assert guessed.server.kv_capacity_tokens == most_read
    assert any("how much KV fits" in str(one) for one in guessed.blocks())
    known = replace(data, kv_capacity_tokens=70_000)
    assert calibrate(known).server.kv_capacity_tokens == 70_000
    told = calibrate(known, kv_tokens=60_000)
    assert told.server.kv_capacity_tokens == 60_000
    assert not any("how much KV fits" in str(one) for one in told.blocks())


def test_the_frame_holds_what_was_fitted() -> None:
    data = measured(AFFINE, noise=0.02)
    found = calibrate(data)
    rows = found.frame()
    np.testing.assert_array_equal(rows["measured_s"], data.seconds)
    relative = rows["predicted_s"] / rows["measured_s"] - 1
    np.testing.assert_allclose(relative, found.estimate.relative_residuals)


def test_the_picture_draws_every_row_twice_and_f() -> None:
    found = calibrate(measured(AFFINE, noise=0.02))
    above, below = found.plot()
    rows = len(found.estimate.measurements)
    for axes in (above, below):
        points = [line for line in axes.lines if line.get_marker() in "o^s"]
        assert [line.get_label() for line in above.lines[:3]] == ["decode", "mixed", "prefill"]
        assert sum(len(line.get_xdata()) for line in points) == rows
    tokens, drawn_ms = below.lines[-1].get_data()
    np.testing.assert_allclose(drawn_ms, 1e3 * found.iteration_time.token_seconds(tokens))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"kv_tokens": 0}, "kv_tokens"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"name": ""}, "name"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(measured(AFFINE), **options)
    assert caught.value.field == field


def test_an_unknown_layout_is_named_without_options(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(tmp_path / "rows.xls", layout="excel")
    assert caught.value.field == "from"
    assert "--" not in str(caught.value)


def bench(**changes: object) -> dict[str, object]:
    """A detailed result of three requests, one at a time; a decode costs 10 ms + 1 µs per token."""
    prompts = [100, 400, 1600]
    gaps = [[0.01 + 1e-6 * (prompt + 1 + k) for k in range(8)] for prompt in prompts]
    document: dict[str, object] = {
        "model_id": "m",
        "max_concurrency": 1,
        "input_lens": prompts,
        "ttfts": [0.01 + 1e-5 * prompt for prompt in prompts],
        "itls": gaps,
    }
    return document | changes


def imported(folder: Path, document: object) -> Measurements:
    path = folder / "bench.json"
    path.write_text(json.dumps(document))
    return read_measurements(path, "vllm-bench")


def test_vllm_bench_one_request_at_a_time(tmp_path: Path) -> None:
    data = imported(tmp_path, bench())
    assert len(data) == 3 + 24
    assert data.measured_range.kv_tokens == (0, 1608)
    decodes = data.compositions.decode_requests == 1
    kv_tokens = data.compositions.kv_tokens[decodes]
    np.testing.assert_allclose(data.seconds[decodes], 0.01 + 1e-6 * kv_tokens)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_concurrency": 8}, "max_concurrency"),
        ({"max_concurrency": None}, "max_concurrency"),
        ({"itls": None}, "itls"),
        ({"ttfts": [0.1]}, "itls"),
        ({"input_lens": [], "ttfts": [], "itls": []}, "ttfts"),
    ],
)
def test_vllm_bench_that_does_not_tell_its_batches(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        imported(tmp_path, bench(**changes))
    assert caught.value.field == field
