"""Digests of traces and their summaries as workloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.traces import (
    Chunk,
    Digest,
    Tape,
    digest,
    read_trace,
    summary_errors,
    workload_of_digest,
)
from fluid.traces.digest import FIGURES, MOST_GROUPS, moments
from fluid.workload import Workload

ROOT = Path(__file__).resolve().parents[2]


def random_tape(seed: int, requests: int) -> Tape:
    rng = np.random.default_rng(seed)
    return Tape(
        np.cumsum(rng.exponential(0.1, requests)),
        np.ceil(rng.lognormal(6, 1, requests)).astype(int),
        np.ceil(rng.lognormal(4, 1, requests)).astype(int),
    )


def in_chunks(tape: Tape, rows: int) -> Iterator[Chunk]:
    for start in range(0, len(tape), rows):
        part = slice(start, start + rows)
        yield Chunk(
            tape.arrived_at_s[part], tape.num_prefill_tokens[part], tape.num_decode_tokens[part]
        )


@given(seed=st.integers(0, 1000), requests=st.integers(2, 300), rows=st.integers(1, 300))
@settings(max_examples=25)
def test_a_digest_does_not_depend_on_the_chunks(seed: int, requests: int, rows: int) -> None:
    tape = random_tape(seed, requests)
    whole, parts = Digest.of(tape), digest(in_chunks(tape, rows))
    assert parts.rate_per_s == whole.rate_per_s == tape.rate_per_s
    np.testing.assert_array_equal(parts.sums, whole.sums)
    expected = moments(tape.num_prefill_tokens, tape.num_decode_tokens).sum(axis=0)
    np.testing.assert_allclose(whole.sums.sum(axis=0), expected, rtol=1e-12)


def test_a_digest_of_too_many_pairs_has_bounded_groups_and_exact_figures() -> None:
    rng = np.random.default_rng(0)
    requests = 2 * MOST_GROUPS
    tape = Tape(
        np.arange(float(requests)),
        rng.integers(1, 200_000, requests),
        rng.integers(1, 50_000, requests),
    )
    pairs = np.column_stack([tape.num_prefill_tokens, tape.num_decode_tokens])
    assert len(np.unique(pairs, axis=0)) > MOST_GROUPS
    found = digest(in_chunks(tape, 50_000))
    assert len(found.sums) <= MOST_GROUPS
    expected = moments(tape.num_prefill_tokens, tape.num_decode_tokens).sum(axis=0)
    np.testing.assert_allclose(found.sums.sum(axis=0), expected, rtol=1e-12)
    assert max(summary_errors(workload_of_digest(found, "wide"), found).values()) <= 0.02


def test_a_digest_without_times_has_no_rate_and_says_so() -> None:
    lengths = np.array([3, 4])
    found = digest([Chunk(None, lengths, lengths, dropped=2)])
    assert (found.requests, found.dropped, found.rate_per_s) == (2, 2, None)
    with pytest.raises(InputError, match="a rate given"):
        workload_of_digest(found, "no rate")


def test_a_digest_of_nothing_but_failures_is_refused() -> None:
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(InputError, match="at least one request that succeeded"):
        digest([Chunk(None, none, none, dropped=3)])


@given(seed=st.integers(0, 1000), requests=st.integers(2, 300), classes=st.integers(6, 30))
@settings(max_examples=25)
def test_a_summary_keeps_the_figures(seed: int, requests: int, classes: int) -> None:
    tape = random_tape(seed, requests)
    try:
        workload = workload_of_digest(Digest.of(tape), "random", classes)
    except InfeasibleError:
        reject()
    assert len(workload.classes) <= classes
    assert max(summary_errors(workload, Digest.of(tape)).values()) <= 0.02


@given(seed=st.integers(0, 1000), classes=st.integers(1, 4))
@settings(max_examples=25)
def test_a_refused_summary_names_a_figure_that_is_off(seed: int, classes: int) -> None:
    tape = random_tape(seed, 300)
    try:
        workload_of_digest(Digest.of(tape), "random", classes)
    except InfeasibleError as error:
        cause, shown = error.cause, str(error)
    else:
        reject()
    assert cause in FIGURES
    assert cause in shown


def test_a_tape_of_two_kinds_of_requests_gives_these_two_classes() -> None:
    tape = Tape(np.arange(31.0), np.array([100, 200, 200] * 10 + [100]), np.full(31, 7))
    workload = workload_of_digest(Digest.of(tape), "two", 24)
    rates = {one.name: one.rate_per_s for one in workload.classes}
    assert rates == pytest.approx({"p200-d7": 20 / 31, "p100-d7": 11 / 31}, rel=1e-5)


def test_summary_does_not_depend_on_the_order_of_lengths_or_on_the_clock() -> None:
    tape = random_tape(3, 500)
    order = np.random.default_rng(0).permutation(500)
    shuffled = Tape(
        2 * tape.arrived_at_s, tape.num_prefill_tokens[order], tape.num_decode_tokens[order]
    )
    first, second = (
        workload_of_digest(Digest.of(tape), "t", 12),
        workload_of_digest(Digest.of(shuffled), "t", 12),
    )
    assert [one.name for one in first.classes] == [one.name for one in second.classes]
    assert [one.rate_per_s for one in first.classes] == pytest.approx(
        [2 * one.rate_per_s for one in second.classes], rel=1e-4
    )


def test_too_few_classes_are_refused_with_the_number_that_suffices() -> None:
    tape = random_tape(5, 2000)
    with pytest.raises(InfeasibleError) as caught:
        workload_of_digest(Digest.of(tape), "few", 1)
    enough = int(caught.value.nearest.split()[1])
    assert len(workload_of_digest(Digest.of(tape), "enough", enough).classes) <= enough
    with pytest.raises(InputError, match="at least 1"):
        workload_of_digest(Digest.of(tape), "none", 0)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_written_workload_reads_back(suffix: str, tmp_path: Path) -> None:
    workload = workload_of_digest(
        Digest.of(random_tape(1, 300)), "random", 8, source="made up: seed 1"
    )
    path = tmp_path / f"load.{suffix}"
    workload.write(path, "two\nlines")
    assert Workload.read(path) == workload
    assert path.read_text(encoding="utf-8").startswith("# two\n# lines\n") == (suffix == "yaml")


@pytest.mark.parametrize(
    ("trace", "requests"),
    [("AzureLLMInferenceTrace_conv.csv", 19_366), ("AzureLLMInferenceTrace_code.csv", 8_819)],
)
def test_azure_traces_fit_into_24_classes(trace: str, requests: int, shared_data: Path) -> None:
    tape = read_trace(shared_data / trace)
    assert len(tape) == requests
    workload = workload_of_digest(Digest.of(tape), "azure", 24)
    assert len(workload.classes) <= 24
    assert max(summary_errors(workload, Digest.of(tape)).values()) <= 0.02


def test_the_shipped_example_summarises_the_conversation_trace(shared_data: Path) -> None:
    workload = Workload.read(ROOT / "examples" / "azure-conv-2023.yaml")
    assert len(workload.classes) <= 24
    assert "CC-BY-4.0" in (workload.source or "")
    tape = read_trace(shared_data / "AzureLLMInferenceTrace_conv.csv")
    assert max(summary_errors(workload, Digest.of(tape)).values()) <= 0.02


@pytest.mark.parametrize("name", ["conv", "code"])
def test_the_shipped_examples_are_made_by_this_summary(name: str, shared_data: Path) -> None:
    workload = Workload.read(ROOT / "examples" / f"azure-{name}-2023.yaml")
    tape = read_trace(shared_data / f"AzureLLMInferenceTrace_{name}.csv")
    assert workload_of_digest(Digest.of(tape), workload.name).classes == workload.classes
