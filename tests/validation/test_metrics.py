"""Statistics of the simulator against numpy; its verdicts are in `test_backlog.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.metrics import (
    QUANTILES,
    Interval,
    histogram_quantiles,
    interval,
)
from validation.simulator.model import Model, poisson_model
from validation.simulator.recording import bin_of
from validation.simulator.state import HISTOGRAM_BINS, HISTOGRAM_LOWEST_S, HISTOGRAM_RATIO

REQUESTS = 3000


@pytest.fixture(scope="module")
def model() -> Model:
    classes = (
        RequestClass(name="chat", rate_per_s=12.0, prefill_tokens=512, decode_tokens=20),
        RequestClass(name="one-token", rate_per_s=3.0, prefill_tokens=64, decode_tokens=1),
    )
    server = load_server("a100-80gb-llama-2-7b")
    return poisson_model(Workload(name="two", classes=classes), server)


@pytest.fixture(scope="module")
def job() -> cpu.Job:
    return cpu.Job(parse_policy("greedy"), replication=5, seed=11)


def test_means_and_quantiles_are_those_of_the_requests(model: Model, job: cpu.Job) -> None:
    result = cpu.run(model, [job], REQUESTS)[0]
    trace = cpu.run_traced(model, job, REQUESTS)
    window = slice(int(0.2 * REQUESTS), int(0.8 * REQUESTS))
    latency = (trace.completed_at_s - trace.arrived_at_s)[window]
    ttft = (trace.first_token_at_s - trace.arrived_at_s)[window]
    for metric, values in enumerate((latency, ttft)):
        assert result.mean_s[-1, metric] == pytest.approx(values.mean(), rel=1e-12)
        assert result.sd_s[-1, metric] == pytest.approx(values.std(ddof=1), rel=1e-9)
        exact = np.quantile(values, QUANTILES, method="inverted_cdf")
        np.testing.assert_allclose(result.quantile_s[-1, metric], exact, rtol=0.01)
        for kind in range(2):
            mine = values[trace.class_index[window] == kind]
            assert result.mean_s[kind, metric] == pytest.approx(mine.mean(), rel=1e-12)


def test_tpot_does_not_exist_for_one_token(model: Model, job: cpu.Job) -> None:
    result = cpu.run(model, [job], REQUESTS)[0]
    assert result.count[1, 2] == 0
    assert np.isnan(result.mean_s[1, 2])
    assert np.isnan(result.quantile_s[1, 2]).all()
    assert result.count[-1, 2] == result.count[0, 2] > 0


def test_kv_and_completions_are_those_of_the_trace(model: Model, job: cpu.Job) -> None:
    result = cpu.run(model, [job], REQUESTS)[0]
    trace = cpu.run_traced(model, job, REQUESTS)
    start, end = trace.arrived_at_s[int(0.2 * REQUESTS)], trace.arrived_at_s[int(0.8 * REQUESTS)]
    done = trace.completed_at_s
    assert result.completed == ((done > start) & (done <= end)).sum()
    assert result.window_s == pytest.approx(end - start)
    inside = (trace.series[:, 0] > start) & (trace.series[:, 0] < end)
    assert result.kv_max_tokens >= trace.series[inside, 1].max()
    mean = result.kv_mean_tokens / trace.series[inside, 1].mean()
    assert 0.5 < mean * 1 / result.busy_share < 2


@given(st.lists(st.floats(2e-4, 1e5), min_size=1, max_size=300))
def test_histogram_quantiles_are_within_one_percent(values: list[float]) -> None:
    counts = np.zeros((2, 1, HISTOGRAM_BINS), np.int32)
    bins = np.log(np.array(values) / HISTOGRAM_LOWEST_S) / np.log(HISTOGRAM_RATIO)
    np.add.at(counts[0, 0], bins.astype(int), 1)
    alone, empty, pooled = histogram_quantiles(counts)
    exact = np.quantile(values, QUANTILES, method="inverted_cdf")
    np.testing.assert_allclose(alone[0], exact, rtol=0.01)
    assert np.isnan(empty).all()
    np.testing.assert_array_equal(pooled, alone)


def test_values_fall_into_the_bin_between_its_edges() -> None:
    edges = HISTOGRAM_LOWEST_S * HISTOGRAM_RATIO ** np.arange(HISTOGRAM_BINS + 1)
    rng = np.random.default_rng(0)
    inside = np.exp(rng.uniform(np.log(edges[0]), np.log(edges[-1]), 20_000))
    at_edges = [edges[:-1], np.nextafter(edges[1:], 0)]
    values = np.concatenate([inside, *at_edges])
    found = np.array([bin_of.py_func(value) for value in values])
    assert (edges[found] <= values).all()
    assert (values < edges[found + 1]).all()
    outside = [-1.0, 0.0, 1e-300, 3e6, np.inf]
    last = HISTOGRAM_BINS - 1
    assert [bin_of.py_func(value) for value in outside] == [0, 0, 0, last, last]


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [interval(rng.normal(5.0, 2.0, size=10)) for _ in range(2000)]
    hits = sum(one.low <= 5.0 <= one.high for one in found)
    low, high = stats.binom.ppf([0.001, 0.999], len(found), 0.95)
    assert low <= hits <= high


def test_a_single_value_has_no_interval() -> None:
    one = interval([3.0])
    assert one.mean == 3.0
    assert np.isnan(one.half_width)
    assert Interval(3.0, 1.0).low == 2.0
