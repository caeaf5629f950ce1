"""The parts about the model: the design, the floor, the fit of a known truth, the closed loop."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")


from fluid.errors import InputError
from fluid.files import write_text
from fluid.iteration import IterationTime
from fluid.server import Server
from tests.gpu import card, fit, loop, sweep
from tests.gpu.ceilings import BANDWIDTH, OPERATIONS, known_ceilings
from tests.gpu.plan import Reach, reduced_design
from tests.gpu.result import CUT_SHORT, DONE, FAILED, Result
from tests.gpu.settings import Settings
from validation.measure.composition import Compositions
from validation.measure.design import Composition
from validation.measure.floor import DeviceLimits
from validation.measure.shapes import SHAPES
from validation.measure.timed_batches import HEADER, TimedBatch
from validation.measure.timer import Timing

FULL = Reach(decodes=256, context=4096, prompt=8192, kv_tokens=100_000)

TRUTH = IterationTime.from_document(
    {
        "tokens_knots": [0.0, 8192.0],
        "seconds_knots": [0.006, 0.24],
        "per_kv_token_s": 2e-7,
        "per_decode_request_s": 3e-5,
        "per_prefill_token_sq_s": 2e-9,
        "per_prefill_context_token_s": 3e-9,
    }
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """At toy size, with ceilings that a card has been found to have, and all the time there is."""
    Result("card", status=DONE, figures={BANDWIDTH: 3e12, OPERATIONS: 8e14}).write(tmp_path)
    return Settings(tmp_path, toy=True, stop_at_s=math.inf)


def last(part: object, settings: Settings) -> Result:
    """What a part leaves behind."""
    *_, result = part.measure(settings)  # type: ignore[attr-defined]
    return result


def seconds(batch: Composition, tau: IterationTime) -> float:
    """τ of one batch of the design."""
    chunk = np.array([float(batch.chunk)])
    found = Compositions(
        kv_tokens=np.array([float(batch.decodes * batch.context)]),
        prefill_tokens=batch.prefills * chunk,
        decode_requests=np.array([float(batch.decodes)]),
        prefill_tokens_sq=batch.prefills * chunk**2,
        prefill_context_tokens=batch.prefills * chunk * batch.chunk_context,
    )
    return float(found.seconds(tau)[0])


def write_sweep(folder: Path, mode: str, tau: IterationTime) -> int:
    """A table of the whole design on a device of that iteration time; the number of its rows."""
    design = reduced_design(FULL)
    rows = [TimedBatch(batch, Timing(seconds(batch, tau), 0.0)).csv() for batch in design]
    write_text(sweep.table_path(folder, mode), "\n".join([HEADER, *rows]) + "\n")
    return len(rows)


def test_the_design_is_small_whole_and_fits() -> None:
    found = reduced_design(FULL)
    assert 110 <= len(found) <= 130
    assert len(set(found)) == len(found)
    kinds = Counter(batch.kind for batch in found)
    assert min(kinds.values()) >= 15
    assert {1, 256} <= {batch.decodes for batch in found if batch.kind == "decode"}
    prompts = {batch.chunk for batch in found if batch.prefills == 1 and not batch.decodes}
    assert {16, 8192} <= prompts
    assert any(batch.chunk_context for batch in found if batch.kind == "prefill")
    assert max(batch.slots * batch.length for batch in found) <= FULL.kv_tokens
    assert reduced_design(FULL) == found
    assert reduced_design(FULL, seed=1) != found


@pytest.mark.parametrize("kind", ["decode", "prefill", "mixed"])
def test_a_part_of_the_design_is_a_sample_of_all(kind: str) -> None:
    """What a sweep that is cut short at the half has seen."""
    design = reduced_design(FULL)
    half = design[: len(design) // 2]
    whole = sum(batch.kind == kind for batch in design)
    assert 0.25 * whole <= sum(batch.kind == kind for batch in half) <= 0.75 * whole


def test_the_floor_of_a_batch() -> None:
    shape, limits = SHAPES["llama-2-7b"], DeviceLimits(2e12, 3e14)
    decode = sweep.floor_s(shape, Composition(decodes=16, context=1000), limits, 2)
    # 6.6 billion weights without the embedding, and 16,000 tokens of 262,144 values.
    assert decode == pytest.approx((6_607_343_616 + 16_000 * 262_144) * 2 / 2e12)
    prompt = sweep.floor_s(shape, Composition(prefills=2, chunk=1024), limits, 2)
    assert prompt == pytest.approx(2 * 2048 * shape.multiplied_weights / 3e14)


def test_a_sweep_without_time_measures_nothing_and_says_so(settings: Settings) -> None:
    stale = sweep.table_path(settings.out, sweep.EAGER)
    stale.write_text("of an earlier run")
    late = Settings(settings.out, toy=True, stop_at_s=time.time() - 1)
    found = last(sweep, late)
    assert (found.status, found.figures["batches"]) == (CUT_SHORT, 0)
    assert found.why.startswith("0 of ")
    assert not stale.exists()


def test_the_fit_finds_the_truth_and_its_distance_from_the_floor(settings: Settings) -> None:
    batches = {mode: write_sweep(settings.out, mode, TRUTH) for mode in fit.MODES}
    found = last(fit, settings)
    assert found.status == DONE
    tables = {table.title: table.rows for table in found.tables}
    for row in tables["Fits"]:
        assert row["rows"] == batches[str(row["mode"])]
        assert float(row["held_out_mean"]) < 1e-3
        for name in ("per_kv_token_s", "per_decode_request_s", "per_prefill_context_token_s"):
            assert row[name] == pytest.approx(getattr(TRUTH, name), rel=0.01)
    server = Server.read(fit.server_path(settings.out, sweep.EAGER))
    assert server.iteration_time.overhead_s == pytest.approx(TRUTH.overhead_s, rel=0.01)
    shape = SHAPES["tiny"]
    (kv,) = {
        round(float(row["ratio"]), 3)
        for row in tables["Measured ÷ floor"]
        if row["coefficient"] == "per_kv_token_s"
    }
    assert kv == pytest.approx(2e-7 / (shape.kv_values_per_token * 4 / 3e12), rel=0.01)


def test_the_fit_tells_noise(settings: Settings) -> None:
    """Times that are 20 % off at random are 20 % off in the rows that were held out, or more."""
    rng = np.random.default_rng(0)
    design = reduced_design(FULL)
    rows = [
        TimedBatch(batch, Timing(seconds(batch, TRUTH) * rng.choice([0.8, 1.2]), 0.0)).csv()
        for batch in design
    ]
    path = sweep.table_path(settings.out, sweep.EAGER)
    write_text(path, "\n".join([HEADER, *rows]) + "\n")
    (row,) = last(fit, settings).tables[0].rows
    assert 0.15 < float(row["held_out_mean"]) < 0.4


def test_a_fit_without_a_sweep_names_what_to_run(settings: Settings) -> None:
    with pytest.raises(InputError, match="the rows of --only sweep"):
        last(fit, settings)


def test_a_mode_that_cannot_be_fitted_does_not_cost_the_other(settings: Settings) -> None:
    write_sweep(settings.out, sweep.EAGER, TRUTH)
    write_text(sweep.table_path(settings.out, sweep.GRAPHS), f"{HEADER}\n0,0,1,64,9,decode,0,0\n")
    found = last(fit, settings)
    assert found.status == FAILED
    assert found.why.startswith("graphs: ")
    assert [row["mode"] for row in found.tables[0].rows] == ["eager"]
    assert fit.server_path(settings.out, sweep.EAGER).is_file()


def test_the_loop_without_a_server_names_what_to_run(settings: Settings) -> None:
    with pytest.raises(InputError, match="--only sweep --only fit"):
        last(loop, settings)


def server() -> Server:
    return Server(
        name="s", source="test", kv_capacity_tokens=100_000, block_tokens=16, iteration_time=TRUTH
    )


def test_requests_of_a_loop_fill_its_time_between_bounds() -> None:
    sizes, rate_per_s = loop.REAL, 20.0
    least, most = sizes.requests
    found = [loop.requests_within(s, rate_per_s, server(), sizes) for s in (0.1, 12.0, 16.0, 1e3)]
    assert found[0] == least
    assert found[-1] == most
    # Four seconds more, of which four fifths are spent on arrivals.
    assert found[2] - found[1] == pytest.approx(0.8 * 4 * rate_per_s, abs=1)


def test_the_slots_of_the_loop_fit_into_the_capacity() -> None:
    sizes = loop.REAL
    roomy = loop.roomy(server(), sizes)
    slots = roomy.usable_kv_tokens // sizes.prompt + 1
    assert slots * (sizes.prompt + sizes.output) <= server().kv_capacity_tokens


def test_the_table_of_the_loop_holds_back(settings: Settings) -> None:
    limits = loop.table_limits(5.0, server(), loop.REAL)
    assert limits.watermark_fraction > 0
    above_greedy = limits.watermark_fraction > loop.GREEDY.watermark_fraction
    assert min(limits.pace, limits.cap) < math.inf or above_greedy


def test_ceilings_are_those_of_the_card_or_measured_now(settings: Settings, tmp_path: Path) -> None:
    assert card.ceilings(settings) == DeviceLimits(3e12, 8e14)
    elsewhere = Settings(tmp_path / "empty", toy=True, stop_at_s=math.inf)
    assert known_ceilings(elsewhere.out) is None
    measured = card.ceilings(elsewhere)
    assert measured.bandwidth_bytes_per_s > 0
    assert measured != DeviceLimits(3e12, 8e14)
