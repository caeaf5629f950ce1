"""Trace readers, by a contract over their registry, and tapes."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.traces import (
    TRACE_FORMATS,
    Chunk,
    ReadOptions,
    Snapshot,
    Tape,
    detect_format,
    digest,
    named_format,
    open_trace,
    read_tape,
    read_trace,
    summary_errors,
    tape_writer,
    workload_of_digest,
    write_tape,
)
from fluid.traces.tape import whole_tape
from tests.support.trace_samples import (
    ARRIVALS,
    CHAT_SAMPLES,
    CHATS,
    COLUMNS,
    DATA,
    JSON_LINES,
    LENGTHS,
    LINES,
    SAMPLES,
    SUMMARIES,
    TOKENIZER,
    lengths,
    opened,
    refused,
)


def test_every_format_has_a_sample_and_a_summary() -> None:
    assert set(SAMPLES.values()) == set(TRACE_FORMATS)
    assert all(name == form.name and form.summary for name, form in TRACE_FORMATS.items())


@pytest.mark.parametrize("sample", SAMPLES)
def test_exactly_one_format_claims_a_sample(sample: str) -> None:
    assert detect_format(DATA / sample).name == SAMPLES[sample]


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name not in SUMMARIES])
def test_every_reader_gives_the_requests(sample: str) -> None:
    trace = opened(DATA / sample, SAMPLES[sample])
    chunks = list(trace.chunks)
    assert lengths(chunks) == (CHATS if sample in CHAT_SAMPLES else LENGTHS)
    assert trace.timed == (sample in ARRIVALS)
    assert all((chunk.arrived_at_s is not None) == trace.timed for chunk in chunks)
    if trace.timed:
        tape = read_trace(DATA / sample)
        assert tape.arrived_at_s == pytest.approx(ARRIVALS[sample], abs=1e-9)
    else:
        assert any("Poisson" in caveat for caveat in trace.caveats)


@pytest.mark.parametrize("sample", [*LINES, *JSON_LINES])
@pytest.mark.parametrize("block_bytes", [1, 20])
def test_blocks_do_not_change_the_tape(sample: str, block_bytes: int) -> None:
    chunks = list(opened(DATA / sample, SAMPLES[sample], block_bytes=block_bytes).chunks)
    assert len(chunks) > 1
    tape, whole = whole_tape(chunks), read_trace(DATA / sample)
    np.testing.assert_array_equal(tape.arrived_at_s, whole.arrived_at_s)
    assert lengths(chunks) == LENGTHS


@pytest.mark.parametrize("sample", SUMMARIES)
def test_what_has_no_requests_gives_its_means(sample: str) -> None:
    """And the workload made of it has them too."""
    read = open_trace(DATA / sample)
    assert isinstance(read, Snapshot)
    found = replace(read.digest(), rate_per_s=5.0)
    prompt, output, rate_per_s = SUMMARIES[sample]
    assert found.means[1:3] == pytest.approx([prompt, output], rel=1e-9)
    assert read.rate_per_s == rate_per_s
    assert any("Poisson" in caveat for caveat in read.caveats)
    assert max(summary_errors(workload_of_digest(found, "means"), found).values()) <= 0.02


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name not in ARRIVALS])
def test_a_trace_without_times_is_no_tape(sample: str) -> None:
    with pytest.raises(InputError, match="a trace with times"):
        read_trace(str(DATA / sample), options=ReadOptions(tokenizer=str(TOKENIZER)))


@pytest.mark.parametrize("form", TRACE_FORMATS)
@pytest.mark.parametrize("text", ["", "hello\nworld\n", '{"a": [1, 2', "\xff\xfe"])
def test_every_reader_refuses_what_is_not_its_format(form: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(text.encode("latin-1"))
    refused(path, form)
    assert not TRACE_FORMATS[form].detect(text)


@pytest.mark.parametrize("form", TRACE_FORMATS)
def test_every_reader_says_that_a_file_is_missing(form: str, tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv", form).value == "no such file"


@given(
    sample=st.sampled_from(sorted(SAMPLES)),
    place=st.floats(0, 1),
    cut=st.integers(0, 12),
    put=st.binary(max_size=12) | st.sampled_from([b"null", b"1e400", b"NaN", b'"', b"{}", b"-1"]),
)
@settings(max_examples=300)
def test_a_damaged_file_reads_or_says_what_is_wrong(
    sample: str, place: float, cut: int, put: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = (DATA / sample).read_bytes()
    at = int(place * len(text))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(text[:at] + put + text[at + cut :])
    options = ReadOptions(drop_failed=True, tokenizer=TOKENIZER)
    try:
        trace = TRACE_FORMATS[SAMPLES[sample]].open(path, options)
        found = trace.digest() if isinstance(trace, Snapshot) else digest(trace.chunks)
    except InputError:
        return
    assert np.isfinite(found.sums).all()
    assert found.requests > 0


def test_unknown_and_ambiguous_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="azure, bailian, burstgpt, guidellm"):
        detect_format(path)
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens,arrived_at,num_prefill_tokens,num_decode_tokens\n"
    )
    with pytest.raises(InputError, match=r"choose one as format: azure, tape"):
        detect_format(path)
    with pytest.raises(InputError, match=r"^format: got"):
        named_format("csv")


# Lines


def with_field(sample: str, line: int, column: int, value: str, folder: Path) -> tuple[Path, str]:
    """A copy of a CSV sample with one field changed (0 time, 1 prompt, 2 output); its column."""
    names = COLUMNS[SAMPLES[sample]]
    lines = (DATA / sample).read_text().splitlines()
    place = lines[0].split(",").index(names[column])
    fields = lines[line - 1].split(",")
    fields[place] = value
    lines[line - 1] = ",".join(fields)
    path = folder / sample
    path.write_text("\n".join(lines), encoding="utf-8")
    return path, names[column]


BROKEN = [(0, "yesterday"), (0, ""), (1, "-3"), (1, "12.5"), (1, "0x1F"), (2, ""), (2, "nan")]


@pytest.mark.parametrize("sample", LINES)
@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
@pytest.mark.parametrize(("column", "value"), [*BROKEN, (2, "²"), (2, "9" * 30)])
def test_a_broken_field_is_named(
    sample: str, column: int, value: str, block_bytes: int, tmp_path: Path
) -> None:
    path, name = with_field(sample, 3, column, value, tmp_path)
    error = refused(path, SAMPLES[sample], block_bytes=block_bytes)
    assert (error.field, error.value) == (f"line 3: {name}", value)


@pytest.mark.parametrize("sample", LINES)
@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
def test_unsorted_lines_and_broken_shapes_are_refused(
    sample: str, block_bytes: int, tmp_path: Path
) -> None:
    header, first, second, third = (DATA / sample).read_text().splitlines()
    path = tmp_path / sample
    cases = {
        "line 4": [header, second, third, first],
        "line 3": [header, first, second + ",9"],
        "line 2": [header, "", first],
        "line 1": ["a,b,c", first],
        "": [header],
    }
    for place, lines in cases.items():
        path.write_text("\n".join(lines))
        error = refused(path, SAMPLES[sample], block_bytes=block_bytes)
        assert error.field.split(":")[0] == place


@pytest.mark.parametrize("sample", LINES)
@pytest.mark.parametrize("column", [1, 2])
def test_a_failed_request_is_refused_or_counted(sample: str, column: int, tmp_path: Path) -> None:
    path, _ = with_field(sample, 3, column, "0", tmp_path)
    error = refused(path, SAMPLES[sample])
    assert error.field == "line 3"
    assert "drop_failed" in error.allowed
    for block_bytes in (1, 1 << 22):
        trace = opened(path, SAMPLES[sample], drop_failed=True, block_bytes=block_bytes)
        chunks = list(trace.chunks)
        assert lengths(chunks) == ([374, 879], [44, 55])
        assert sum(chunk.dropped for chunk in chunks) == 1


@pytest.mark.parametrize("sample", [*LINES, *JSON_LINES])
def test_compressed_lines_and_windows_line_ends(sample: str, tmp_path: Path) -> None:
    path = tmp_path / f"{sample}.gz"
    path.write_bytes(gzip.compress((DATA / sample).read_bytes().replace(b"\n", b"\r\n")))
    assert detect_format(path).name == SAMPLES[sample]
    assert read_trace(path).num_prefill_tokens.tolist() == LENGTHS[0]
    cut = tmp_path / f"cut-{sample}.gz"
    cut.write_bytes(path.read_bytes()[:60])
    assert "runcated" in str(refused(cut, SAMPLES[sample]).value)


def test_what_arrow_is_too_strict_for_is_read_with_care(tmp_path: Path) -> None:
    path, _ = with_field("azure-2024.csv", 3, 0, "2024-W19-5T00:00:04Z", tmp_path)
    careful = read_trace(path)
    np.testing.assert_array_equal(
        careful.arrived_at_s, read_trace(DATA / "azure-2024.csv").arrived_at_s
    )
    path, _ = with_field("tape.csv", 3, 1, " 396 ", tmp_path)
    assert read_trace(path).num_prefill_tokens.tolist() == LENGTHS[0]


MOONCAKE = '{"timestamp": 0, "input_length": 3, "output_length": 2}'


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('{"timestamp": 1, "input_length": 3}', "line 2: output_length"),
        ('{"timestamp": 1, "input_length": 3.5, "output_length": 1}', "line 2: input_length"),
        ('{"timestamp": 1, "input_length": true, "output_length": 1}', "line 2: input_length"),
        ('{"timestamp": "1", "input_length": 3, "output_length": 1}', "line 2: timestamp"),
        ('{"timestamp": -1, "input_length": 3, "output_length": 1}', "line 2: timestamp"),
        ('{"timestamp": 1, "input_length": 3, "output_length": 0}', "line 2"),
        ("[1, 2, 3]", "line 2"),
        ("null", "line 2"),
        (MOONCAKE + MOONCAKE, "line 2"),
        ('{"timestamp": 1', "line 2"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 22])
def test_a_broken_json_line_is_named(
    line: str, field: str, block_bytes: int, tmp_path: Path
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join([MOONCAKE, line, MOONCAKE]))
    assert refused(path, "mooncake", block_bytes=block_bytes).field == field


def test_unsorted_json_lines_are_refused_and_blank_ones_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    later = MOONCAKE.replace("0", "5", 1)
    path.write_text(f"{later}\n\n{MOONCAKE}\n")
    assert refused(path, "mooncake").field == "line 3: timestamp"
    path.write_text(f"{MOONCAKE}\n\n{later}\n")
    assert read_trace(path).arrived_at_s.tolist() == [0, 0.005]


# Tapes


def random_tape(seed: int, requests: int) -> Tape:
    rng = np.random.default_rng(seed)
    return Tape(
        np.cumsum(rng.exponential(0.1, requests)),
        np.ceil(rng.lognormal(6, 1, requests)).astype(int),
        np.ceil(rng.lognormal(4, 1, requests)).astype(int),
    )


@given(seed=st.integers(0, 1000), requests=st.integers(1, 40), block_bytes=st.integers(1, 2000))
@settings(max_examples=20)
def test_a_tape_survives_the_file_exactly(
    seed: int, requests: int, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tape = random_tape(seed, requests)
    path = tmp_path_factory.mktemp("tape") / "tape.csv"
    write_tape(tape, path)
    for again in (
        read_tape(path),
        whole_tape(opened(path, "tape", block_bytes=block_bytes).chunks),
    ):
        for field in ("arrived_at_s", "num_prefill_tokens", "num_decode_tokens"):
            assert (getattr(again, field) == getattr(tape, field)).all()


def test_a_tape_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "tape.csv"

    def write_half() -> None:
        with tape_writer(path) as write:
            write(Chunk(np.array([0.0]), np.array([1]), np.array([1])))
            raise InputError("line 3", "", "")

    with pytest.raises(InputError):
        write_half()
    assert list(tmp_path.iterdir()) == []


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
