"""Readers of JSON documents: benchmark results and chats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.traces import TRACE_FORMATS, ReadOptions
from tests.support.trace_samples import DATA, LENGTHS, lengths, opened, refused


def changed(sample: str, path: Path, change: dict[str, object]) -> Path:
    path.write_text(json.dumps(json.loads((DATA / sample).read_text()) | change))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input_lens": [374, "many", 879]}, "request 2: prompt tokens"),
        ({"input_lens": []}, "input_lens"),
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
    assert "at most 8 requests" in told
    assert "as fast as it could" in told


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text((DATA / "vllm-bench.json").read_text() * 2)
    assert refused(path, "vllm-bench").allowed == "one JSON document"


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
    assert refused(path, "guidellm").allowed.startswith("part 1 to 2")
    assert lengths(list(opened(path, "guidellm", part="2").chunks)) == LENGTHS
    assert refused(path, "guidellm", part="1").value == "incomplete"
    (chunk,) = opened(path, "guidellm", part="1", drop_failed=True).chunks
    assert (len(chunk.num_decode_tokens), chunk.dropped) == (1, 2)
    for part in ("0", "3", "first"):
        assert refused(path, "guidellm", part=part).field == "part"


@pytest.mark.parametrize("sample", ["guidellm.json", "guidellm-0.3.json"])
def test_a_sampled_guidellm_report_is_refused(sample: str, tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="tokenizer: got"):
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
