"""Trace readers, tapes and their summaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.traces import (
    TRACE_READERS,
    Tape,
    read_azure,
    read_tape,
    summarise,
    summary_errors,
    write_tape,
    write_workload,
)
from fluid.traces.summarise import FIGURES
from fluid.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_ROWS = """\
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
TAPE_HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens"
TAPE_ROWS = "0.0,374,44\n4.25,396,109\n4.5,879,55\n"
SAMPLES = {"azure": (AZURE_HEADER, AZURE_ROWS), "tape": (TAPE_HEADER, TAPE_ROWS)}


def written(folder: Path, *parts: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def random_tape(seed: int, requests: int) -> Tape:
    rng = np.random.default_rng(seed)
    return Tape(
        np.cumsum(rng.exponential(0.1, requests)),
        np.ceil(rng.lognormal(6, 1, requests)).astype(int),
        np.ceil(rng.lognormal(4, 1, requests)).astype(int),
    )


@pytest.mark.parametrize("reader", TRACE_READERS)
def test_every_reader_gives_a_tape_that_starts_at_zero(reader: str, tmp_path: Path) -> None:
    tape = TRACE_READERS[reader](written(tmp_path, *SAMPLES[reader]))
    assert tape.arrived_at_s[0] == 0
    assert tape.num_prefill_tokens.tolist() == [374, 396, 879]
    assert tape.num_decode_tokens.tolist() == [44, 109, 55]


@pytest.mark.parametrize("reader", TRACE_READERS)
@pytest.mark.parametrize(
    ("column", "value"),
    [(0, "yesterday"), (1, "0"), (1, "-3"), (1, "12.5"), (2, ""), (2, "nan"), (2, "²")],
)
def test_every_reader_names_line_and_value(
    reader: str, column: int, value: str, tmp_path: Path
) -> None:
    header, rows = SAMPLES[reader]
    lines = rows.splitlines()
    fields = lines[1].split(",")
    fields[column] = value
    lines[1] = ",".join(fields)
    path = written(tmp_path, header, *lines)
    with pytest.raises(InputError) as caught:
        TRACE_READERS[reader](path)
    assert caught.value.file == str(path)
    assert caught.value.field.startswith("line 3: " + header.split(",")[column])
    assert caught.value.value == value


@pytest.mark.parametrize("reader", TRACE_READERS)
def test_every_reader_refuses_unsorted_rows_and_broken_shapes(reader: str, tmp_path: Path) -> None:
    header, rows = SAMPLES[reader]
    first, second, third = rows.splitlines()
    cases = {
        "line 4": [header, first, third, second],
        "line 3": [header, first, second + ",9"],
        "line 1": ["a,b,c", first],
        "": [header],
    }
    for field, lines in cases.items():
        with pytest.raises(InputError) as caught:
            TRACE_READERS[reader](written(tmp_path, *lines))
        assert caught.value.field.split(":")[0] == field


def test_azure_times_are_differences_to_the_first(tmp_path: Path) -> None:
    tape = read_azure(written(tmp_path, AZURE_HEADER, AZURE_ROWS))
    assert tape.arrived_at_s == pytest.approx([0, 4.314579, 4.541877], abs=2e-6)
    assert tape.rate_per_s == pytest.approx(2 / 4.541877, rel=1e-6)


def test_azure_zones_are_understood(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,10,2\n2024-05-10 00:00:01.009930+00:00,10,2\n"
    assert read_azure(written(tmp_path, AZURE_HEADER, rows)).arrived_at_s.tolist() == [0.0, 1.0]


@given(seed=st.integers(0, 1000), requests=st.integers(1, 40))
@settings(max_examples=20)
def test_tape_survives_the_file_exactly(
    seed: int, requests: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tape = random_tape(seed, requests)
    path = tmp_path_factory.mktemp("tape") / "tape.csv"
    write_tape(tape, path)
    again = read_tape(path)
    for field in ("arrived_at_s", "num_prefill_tokens", "num_decode_tokens"):
        assert (getattr(again, field) == getattr(tape, field)).all()


@pytest.mark.parametrize(
    ("times", "prefill", "decode", "field"),
    [
        ([1.0, 0.5], [1, 1], [1, 1], "arrived_at_s[1]"),
        ([-1.0, 0.5], [1, 1], [1, 1], "arrived_at_s[0]"),
        ([0.0, np.inf], [1, 1], [1, 1], "arrived_at_s[1]"),
        ([0.0, 1.0], [1, 0], [1, 1], "num_prefill_tokens[1]"),
        ([0.0, 1.0], [1, 1], [1.5, 1], "num_decode_tokens"),
        ([0.0, 1.0], [1, 1], [1], "num_decode_tokens"),
        ([], [], [], "arrived_at_s"),
    ],
)
def test_tape_refuses(
    times: list[float], prefill: list[int], decode: list[float], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        Tape(np.array(times), np.array(prefill), np.array(decode))
    assert caught.value.field == field


def test_a_tape_at_one_instant_has_no_rate() -> None:
    with pytest.raises(InputError, match="arrivals over time"):
        _ = Tape(np.zeros(2), np.array([1, 1]), np.array([1, 1])).rate_per_s


@given(seed=st.integers(0, 1000), requests=st.integers(2, 300), classes=st.integers(6, 30))
@settings(max_examples=25)
def test_a_summary_keeps_the_figures(seed: int, requests: int, classes: int) -> None:
    tape = random_tape(seed, requests)
    try:
        workload = summarise(tape, "random", classes)
    except InfeasibleError:
        reject()
    assert len(workload.classes) <= classes
    assert max(summary_errors(workload, tape).values()) <= 0.02


@given(seed=st.integers(0, 1000), classes=st.integers(1, 4))
@settings(max_examples=25)
def test_a_refused_summary_names_a_figure_that_is_off(seed: int, classes: int) -> None:
    tape = random_tape(seed, 300)
    try:
        summarise(tape, "random", classes)
    except InfeasibleError as error:
        cause, shown = error.cause, str(error)
    else:
        reject()
    assert cause in FIGURES
    assert cause in shown


def test_a_tape_of_two_kinds_of_requests_gives_these_two_classes() -> None:
    tape = Tape(np.arange(31.0), np.array([100, 200, 200] * 10 + [100]), np.full(31, 7))
    workload = summarise(tape, "two", 24)
    rates = {one.name: one.rate_per_s for one in workload.classes}
    assert rates == pytest.approx({"p200-d7": 20 / 31, "p100-d7": 11 / 31}, rel=1e-5)


def test_summary_does_not_depend_on_the_order_of_lengths_or_on_the_clock() -> None:
    tape = random_tape(3, 500)
    order = np.random.default_rng(0).permutation(500)
    shuffled = Tape(
        2 * tape.arrived_at_s, tape.num_prefill_tokens[order], tape.num_decode_tokens[order]
    )
    first, second = summarise(tape, "t", 12), summarise(shuffled, "t", 12)
    assert [one.name for one in first.classes] == [one.name for one in second.classes]
    assert [one.rate_per_s for one in first.classes] == pytest.approx(
        [2 * one.rate_per_s for one in second.classes], rel=1e-4
    )


def test_too_few_classes_are_refused_with_the_number_that_suffices() -> None:
    tape = random_tape(5, 2000)
    with pytest.raises(InfeasibleError) as caught:
        summarise(tape, "few", 1)
    enough = int(caught.value.nearest.split()[1])
    assert len(summarise(tape, "enough", enough).classes) <= enough
    with pytest.raises(InputError, match="at least 1"):
        summarise(tape, "none", 0)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_written_workload_reads_back(suffix: str, tmp_path: Path) -> None:
    workload = summarise(random_tape(1, 300), "random", 8, source="made up: seed 1")
    path = tmp_path / f"load.{suffix}"
    write_workload(workload, path, "two\nlines")
    assert Workload.read(path) == workload
    assert path.read_text(encoding="utf-8").startswith("# two\n# lines\n") == (suffix == "yaml")


@pytest.mark.parametrize(
    ("trace", "requests"),
    [("AzureLLMInferenceTrace_conv.csv", 19_366), ("AzureLLMInferenceTrace_code.csv", 8_819)],
)
def test_azure_traces_fit_into_24_classes(trace: str, requests: int, shared_data: Path) -> None:
    tape = read_azure(shared_data / trace)
    assert len(tape) == requests
    workload = summarise(tape, "azure", 24)
    assert len(workload.classes) <= 24
    assert max(summary_errors(workload, tape).values()) <= 0.02


def test_the_shipped_example_summarises_the_conversation_trace(shared_data: Path) -> None:
    workload = Workload.read(ROOT / "examples" / "azure-conv-2023.yaml")
    assert len(workload.classes) <= 24
    assert "CC-BY-4.0" in (workload.source or "")
    tape = read_azure(shared_data / "AzureLLMInferenceTrace_conv.csv")
    assert max(summary_errors(workload, tape).values()) <= 0.02
