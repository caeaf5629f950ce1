"""Readers of JSON documents: benchmark results and chats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.traces import TRACE_FORMATS, ReadOptions, Snapshot, open_trace, read_trace
from tests.support.trace_samples import (
    CHAT_SAMPLES,
    DATA,
    LENGTHS,
    SAMPLES,
    lengths,
    opened,
    refused,
    unsaid,
)


def changed(sample: str, path: Path, change: dict[str, object]) -> Path:
    path.write_text(json.dumps(json.loads((DATA / sample).read_text()) | change))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_lens": [374, "many", 879]}, "request 2: prompt tokens"),
        ({"input_lens": [], "completed": None}, "input_lens"),
        ({"input_lens": [], "completed": 0}, "requests"),
        ({"input_lens": [], "total_input_tokens": -5}, "prompt tokens"),
        ({"output_lens": [1]}, "output_lens"),
        ({"start_times": [7000.5, None, 7001.75]}, "request 2: start"),
        ({"errors": ["", "", "Connection reset"]}, "request 3"),
        ({"output_lens": [0, 109, 55]}, "request 1"),
    ],
)
def test_a_broken_benchmark_result_is_named(
    change: dict[str, object], field: str, tmp_path: Path
) -> None:
    path = changed("vllm-bench.json", tmp_path / "result.json", change)
    assert refused(path, "vllm-bench").field == field


def test_failed_benchmark_requests_can_be_left_out(tmp_path: Path) -> None:
    change = {"errors": ["", "Connection reset", ""], "output_lens": [44, 0, 55]}
    path = changed("vllm-bench.json", tmp_path / "result.json", change)
    (chunk,) = opened(path, "vllm-bench", drop_failed=True).chunks
    assert (chunk.num_prefill_tokens.tolist(), chunk.dropped) == ([374, 879], 1)


def test_a_benchmark_without_start_times_has_its_own_rate() -> None:
    trace = opened(DATA / "vllm-bench-untimed.json", "vllm-bench")
    assert trace.rate_per_s == 1.5
    told = " ".join(trace.caveats)
    assert "at most 2 requests" in told
    assert not trace.finite_job


def test_several_runs_in_one_file_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    first, second = (DATA / f"vllm-bench{kind}.json" for kind in ("-totals", ""))
    path.write_text(first.read_text() + "\n" + second.read_text())
    error = unsaid(path, "vllm-bench")
    for told in (
        "1 (20260102-030405, request rate 5.0, 400 requests)",
        "2 (20260102-030405, request rate 2.0, 3 requests)",
    ):
        assert told in error.allowed
    assert lengths(list(opened(path, "vllm-bench", part="2").chunks)) == LENGTHS
    one = open_trace(path, options=ReadOptions(part="1"))
    assert isinstance(one, Snapshot)
    assert one.requests == 400
    for part in ("0", "3", "last"):
        assert refused(path, "vllm-bench", part=part).field == "part"


def test_infinity_and_nan_of_a_benchmark_are_read() -> None:
    """Python writes them, and JSON does not know them; a text that looks like them stays."""
    path = DATA / "bench-two-runs.jsonl"
    assert "request rate inf, 3 requests" in unsaid(path, "sglang-bench").allowed
    job = opened(path, "sglang-bench", part="2")
    assert (job.finite_job, job.timed, job.rate_per_s) == (True, False, None)
    assert lengths(list(job.chunks)) == LENGTHS
    paced = open_trace(path, options=ReadOptions(part="1"))
    assert isinstance(paced, Snapshot)
    assert (paced.rate_per_s, paced.finite_job) == (3.6, False)
    assert "at most 16 requests" in " ".join(paced.caveats)


@pytest.mark.parametrize(
    ("bound", "job"), [({}, True), ({"max_concurrency": 3}, True), ({"max_concurrency": 2}, False)]
)
def test_requests_sent_at_once_are_a_finite_job(
    bound: dict[str, object], job: bool, tmp_path: Path
) -> None:
    path = changed("vllm-bench.json", tmp_path / "r.json", {"request_rate": "inf", **bound})
    trace = opened(path, "vllm-bench")
    assert trace.finite_job == job
    assert trace.timed != job
    assert any("finite job" in caveat for caveat in trace.caveats) == job
    if job:
        with pytest.raises(InputError, match="here all requests were sent at once: a finite job"):
            read_trace(path)
    totals = changed("vllm-bench-totals.json", path, {"request_rate": "inf", **bound})
    read = open_trace(totals)
    assert isinstance(read, Snapshot)
    assert read.finite_job == (not bound)
    assert read.rate_per_s == (None if not bound else 4.88)


def guidellm(path: Path, **lists: int) -> Path:
    """The sample with so many of its requests moved to other lists, as two benchmarks."""
    report = json.loads((DATA / "guidellm.json").read_text())
    requests = report["benchmarks"][0]["requests"]
    for name, count in lists.items():
        requests[name] = [requests["successful"].pop() for _ in range(count)]
    report["benchmarks"][0]["metrics"]["request_totals"]["successful"] -= sum(lists.values())
    report["benchmarks"].append(json.loads((DATA / "guidellm.json").read_text())["benchmarks"][0])
    path.write_text(json.dumps(report))
    return path


def test_a_guidellm_report_of_several_benchmarks_is_read_by_number(tmp_path: Path) -> None:
    path = guidellm(tmp_path / "report.json", incomplete=1, errored=1)
    assert "1 (?, 1 requests), 2 (?, 3 requests)" in unsaid(path, "guidellm").allowed
    assert lengths(list(opened(path, "guidellm", part="2").chunks)) == LENGTHS
    assert refused(path, "guidellm", part="1").value == "incomplete"
    (chunk,) = opened(path, "guidellm", part="1", drop_failed=True).chunks
    assert (len(chunk.num_decode_tokens), chunk.dropped) == (1, 2)
    for part in ("0", "3", "first"):
        assert refused(path, "guidellm", part=part).field == "part"


@pytest.mark.parametrize("sample", ["guidellm.json", "guidellm-0.3.json"])
def test_a_sampled_guidellm_report_without_means_is_refused(sample: str, tmp_path: Path) -> None:
    report = json.loads((DATA / sample).read_text())
    report["benchmarks"][0]["requests"]["successful"].pop()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert refused(path, "guidellm").allowed.startswith("all 3 successful requests")


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        ({"conversations": [{"value": "cat"}]}, "conversation 2"),
        ({"conversations": [{"value": ""}, {"value": "cat"}]}, "conversation 2"),
        ({"conversations": [{"from": "human"}]}, "conversation 2: conversations[0].value"),
        ({"chat": []}, "conversation 2"),
        ("cat", "conversation 2"),
    ],
)
def test_a_broken_chat_is_named(chat: object, field: str, tmp_path: Path) -> None:
    good = {"conversations": [{"value": "the cat"}, {"value": "sat"}]}
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([good, chat]))
    assert refused(path, "sharegpt").field == field


def test_chats_need_a_tokenizer_and_failed_ones_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokenizer: got 'nothing'"):
        TRACE_FORMATS["sharegpt"].open(DATA / "sharegpt.json", ReadOptions())
    with pytest.raises(InputError, match=r"a tokenizer\.json"):
        TRACE_FORMATS["sharegpt"].open(
            DATA / "sharegpt.json", ReadOptions(tokenizer=DATA / "tape.csv")
        )
    path = tmp_path / "chats.json"
    turns = [{"value": "the cat"}, {"value": "sat"}]
    path.write_text(json.dumps([{"conversations": turns[:1]}, {"conversations": turns}] * 300))
    chunks = list(opened(path, "sharegpt", drop_failed=True).chunks)
    assert len(chunks) > 1
    assert lengths(chunks) == ([2] * 300, [1] * 300)
    assert sum(chunk.dropped for chunk in chunks) == 300


@pytest.mark.parametrize("sample", CHAT_SAMPLES)
def test_a_list_of_chats_and_a_chat_per_line_are_the_same(sample: str, tmp_path: Path) -> None:
    text = (DATA / sample).read_text()
    listed = text.startswith("[")
    chats = json.loads(text) if listed else [json.loads(line) for line in text.splitlines()]
    path = tmp_path / sample
    path.write_text("\n".join(map(json.dumps, chats)) if listed else json.dumps(chats, indent=1))
    again, first = (
        lengths(list(opened(one, SAMPLES[sample]).chunks)) for one in (path, DATA / sample)
    )
    assert again == first


@pytest.mark.parametrize("content", [3, [{"type": "image_url"}], [["cat"]]])
def test_a_message_that_is_no_text_is_named(content: object, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": content}]}))
    assert refused(path, "messages").field == "conversation 1: messages[0].content"


def test_an_answer_without_text_is_a_failed_request(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": None}]
    path.write_text(json.dumps({"messages": turns}))
    assert refused(path, "messages").value == "no answer"


def test_failures_and_the_warm_up_of_aiperf_are_left_out(tmp_path: Path) -> None:
    lines = (DATA / "aiperf.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"error": null', '"error": {"code": 500, "type": "HTTPError"}')
    lines[2] = lines[2].replace('"was_cancelled": false', '"was_cancelled": true')
    path = tmp_path / "profile_export.jsonl"
    path.write_text("\n".join(lines))
    error = refused(path, "aiperf")
    assert (error.field, error.value) == ("record 2", "HTTPError")
    trace = opened(path, "aiperf", drop_failed=True)
    (chunk,) = trace.chunks
    assert (lengths([chunk]), chunk.dropped) == (([879], [55]), 2)
    assert "requests of the warm-up left out: 1" in trace.caveats


@pytest.mark.parametrize(
    ("sample", "old", "new"),
    [
        ("inference-perf.json", '"error": null', '"error": {"error_type": "Timeout"}'),
        ("llmperf.json", '"error_code": null', '"error_code": 500'),
    ],
)
def test_requests_with_an_error_are_failed(sample: str, old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / sample
    path.write_text((DATA / sample).read_text().replace(old, new, 1))
    assert refused(path, SAMPLES[sample]).field.endswith("1")
    (chunk,) = opened(path, SAMPLES[sample], drop_failed=True).chunks
    assert (len(chunk.num_decode_tokens), chunk.dropped) == (2, 1)


@pytest.mark.parametrize("padding", range(65_500, 65_545, 3))
def test_infinity_is_read_wherever_a_block_of_the_file_ends(padding: int, tmp_path: Path) -> None:
    path = tmp_path / "result.jsonl"
    text = (DATA / "bench-two-runs.jsonl").read_text().splitlines()[1]
    path.write_text('{"tag": "' + "x" * (padding - 75) + '", ' + text.removeprefix("{"))
    assert opened(path, "sglang-bench").finite_job
