"""Loads from means, deviations and percentiles, against samples that have these figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.traces import ReadOptions, Snapshot, open_trace, workload_of_digest
from fluid.traces.digest import moments
from fluid.traces.length_summary import LengthSummary, summary_snapshot
from fluid.traces.marginals import Marginal
from tests.support.trace_samples import DATA

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def of_sample(
    lengths: np.ndarray, shares: tuple[float, ...] = SHARES, deviation: bool = True
) -> LengthSummary:
    quantiles = {share: float(np.quantile(lengths, share)) for share in shares}
    known = lengths.std() if deviation else None
    return LengthSummary.read("prompt", lengths.mean(), known, quantiles, "file")


def summary_digest(marginal: Marginal) -> np.ndarray:
    one = Marginal(np.ones(1), np.ones(1), np.ones(1), 1.0)
    return Snapshot(marginal, one, 1000, 1.0, ()).digest().means


@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 1.5))
@settings(max_examples=40)
def test_percentiles_keep_the_mean_and_bound_the_second_moment(seed: int, spread: float) -> None:
    """With the deviation it is exact; without, the limits hold it and what is taken is inside."""
    lengths = np.ceil(np.random.default_rng(seed).lognormal(6, spread, 4000))
    true = float((lengths**2).mean())
    exact = summary_digest(of_sample(lengths).marginal(len(lengths)))
    assert exact[[1, 4]] == pytest.approx([lengths.mean(), true], rel=1e-6)
    marginal = of_sample(lengths, deviation=False).marginal(len(lengths))
    means = summary_digest(marginal)
    assert means[1] == pytest.approx(lengths.mean(), rel=1e-6)
    low, high = np.array(marginal.second_moment()) * (1 - 1e-6, 1 + 1e-6)
    assert low <= true <= high
    assert low <= means[4] <= high


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_few_requests_and_interpolated_percentiles_fit_or_fall_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.ceil(rng.lognormal(5, 1, rng.integers(1, 12)))
    means = summary_digest(of_sample(lengths).marginal(len(lengths)))
    assert means[1] == pytest.approx(lengths.mean(), rel=1e-6)


def test_a_missing_maximum_leaves_the_end_open() -> None:
    lengths = np.ceil(np.random.default_rng(0).lognormal(6, 1, 2000))
    marginal = of_sample(lengths, (0.5, 0.9)).marginal(2000)
    assert marginal.open_above
    assert marginal.high[-1] >= lengths.max()
    assert summary_digest(marginal)[1] == pytest.approx(lengths.mean(), rel=1e-6)


@given(mean=st.floats(1, 5000), relative=st.floats(0, 3))
def test_two_lengths_have_the_mean_and_the_deviation(mean: float, relative: float) -> None:
    one = LengthSummary.read("output", mean, mean * relative, {}, "file")
    marginal = one.marginal(100)
    assert (marginal.low >= 1).all()
    assert marginal.shares.sum() == pytest.approx(1)
    assert marginal.shares @ marginal.low == pytest.approx(mean)
    if mean > 1.001 and relative > 1e-6:
        variance = marginal.shares @ (marginal.low - mean) ** 2
        assert variance == pytest.approx((mean * relative) ** 2)


def test_independent_two_lengths_have_the_exact_memory_sum() -> None:
    """φ of independent lengths needs first and second moments only."""
    rng = np.random.default_rng(3)
    prompts, outputs = (np.ceil(rng.lognormal(m, 0.4, 300)) for m in (6, 5))
    read = summary_snapshot(of_sample(prompts, ()), of_sample(outputs, ()), 300, 2.0)
    every = moments(np.repeat(prompts, 300), np.tile(outputs, 300)).mean(axis=0)
    assert read.digest().means == pytest.approx(every, rel=1e-9)


def test_a_mean_alone_is_one_class_or_the_whole_lengths_around_it() -> None:
    def classes(prompt: float, output: float) -> dict[tuple[int, int], float]:
        one, other = (
            LengthSummary.read(kind, mean, None, {}, "file")
            for kind, mean in (("prompt", prompt), ("output", output))
        )
        read = summary_snapshot(one, other, 500, 8.0)
        assert not read.bounded
        assert read.intervals() == {}
        return {
            (each.prefill_tokens, each.decode_tokens): each.rate_per_s
            for each in workload_of_digest(read.digest(), "means").classes
        }

    assert classes(1024, 128) == {(1024, 128): 8.0}
    assert classes(1024, 1.25) == pytest.approx({(1024, 1): 6.0, (1024, 2): 2.0})


@pytest.mark.parametrize(
    ("mean", "deviation", "quantiles", "field"),
    [
        (0.5, None, {}, "mean prompt tokens"),
        (None, None, {}, "mean prompt tokens"),
        ("many", None, {}, "mean prompt tokens"),
        (500, -1, {}, "deviation of prompt tokens"),
        (500, 9, {0.5: "x"}, "50 % of prompt tokens"),
        (500, 9, {0.5: 600, 0.9: 400}, "percentiles of prompt tokens"),
        (1e12, None, {}, "mean prompt tokens"),
    ],
)
def test_figures_that_are_no_lengths_are_named(
    mean: object, deviation: object, quantiles: dict[float, object], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        LengthSummary.read("prompt", mean, deviation, quantiles, "file")
    assert caught.value.field == field


def test_percentiles_that_contradict_the_mean_are_told_and_not_used() -> None:
    one = LengthSummary.read("prompt", 900.0, 10.0, {0.0: 100.0, 0.5: 200.0, 1.0: 300.0}, "file")
    assert one.marginal(10).low.tolist() == [890, 910]
    assert "do not fit its mean" in one.caveat(10)


def changed(sample: str, path: Path, place: str, value: object) -> Path:
    document = json.loads((DATA / sample).read_text())
    *way, last = place.split(".")
    inside = document
    for name in way:
        inside = inside[int(name) if name.isdigit() and isinstance(inside, list) else name]
    inside[last] = value
    path.write_text(json.dumps(document))
    return path


SERVEGEN_WINDOWS = "0.input_tokens"


@pytest.mark.parametrize(
    ("sample", "place", "value", "field"),
    [
        ("aiperf-summary.json", "input_sequence_length", None, "input_sequence_length"),
        ("aiperf-summary.json", "input_sequence_length.avg", "x", "mean prompt tokens"),
        ("inference-perf-stage.json", "successes.output_len", 5, "successes.output_len"),
        ("inference-perf-stage.json", "successes.count", 0, "requests"),
        ("servegen.json", SERVEGEN_WINDOWS, "{100: ", "0.input_tokens"),
        ("servegen.json", SERVEGEN_WINDOWS, "[1, 2]", "0.input_tokens"),
        ("servegen.json", SERVEGEN_WINDOWS, "{'a': 1.0}", "0.input_tokens"),
        ("servegen.json", SERVEGEN_WINDOWS, "{100: -1.0}", "0.input_tokens"),
        ("servegen.json", SERVEGEN_WINDOWS, "{0: 1.0}", "0.input_tokens"),
        ("servegen.json", SERVEGEN_WINDOWS, "__import__('os')", "0.input_tokens"),
    ],
)
def test_a_broken_summary_is_named(
    sample: str, place: str, value: object, field: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        open_trace(changed(sample, tmp_path / sample, place, value))
    assert caught.value.field == field


def test_a_window_of_servegen_is_chosen_by_its_beginning() -> None:
    read = open_trace(DATA / "servegen.json", options=ReadOptions(part="0"))
    assert isinstance(read, Snapshot)
    assert (read.prompt.mean, read.output.mean) == pytest.approx((500, 100))
    whole = " ".join(open_trace(DATA / "servegen.json").caveats)
    assert "its 2 windows weigh alike" in whole
    assert "reason_ratio are not read" in whole
    with pytest.raises(InputError, match="the beginning of a window: 0, 600, 1200"):
        open_trace(DATA / "servegen.json", options=ReadOptions(part="7"))


def test_many_lengths_of_servegen_become_buckets_with_the_same_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lengths = np.unique(np.ceil(rng.lognormal(7, 1, 3000)))
    shares = rng.dirichlet(np.ones(len(lengths)))
    said = str({int(tokens): float(share) for tokens, share in zip(lengths, shares, strict=True)})
    read = open_trace(changed("servegen.json", tmp_path / "s.json", SERVEGEN_WINDOWS, said))
    alone = replace(read, caveats=())
    assert isinstance(alone, Snapshot)
    assert len(alone.prompt.shares) <= 64 + 1
    mixed = 0.5 * float(shares @ lengths) + 0.5 * 300
    assert alone.digest().means[1] == pytest.approx(mixed, rel=1e-6)
