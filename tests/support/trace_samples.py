"""The samples of every trace format, and how tests open them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.traces import TRACE_FORMATS, Chunk, ReadOptions, Trace

DATA = Path(__file__).resolve().parents[1] / "data" / "traces"
TOKENIZER = DATA / "tokenizer.json"
SAMPLES = {
    "aiperf.jsonl": "aiperf",
    "aiperf-summary.json": "aiperf-summary",
    "azure-2023.csv": "azure",
    "azure-2024.csv": "azure",
    "azure-2025.csv": "azure",
    "bailian.jsonl": "bailian",
    "burstgpt.csv": "burstgpt",
    "burstgpt-2.csv": "burstgpt",
    "guidellm.json": "guidellm",
    "guidellm-0.3.json": "guidellm",
    "guidellm-sampled.json": "guidellm",
    "inference-perf.json": "inference-perf",
    "inference-perf-stage.json": "inference-perf-stage",
    "llmperf.json": "llmperf",
    "llmperf-summary.json": "llmperf-summary",
    "messages.jsonl": "messages",
    "metrics.prom": "prometheus",
    "metrics-dynamo.prom": "prometheus",
    "metrics-dynamo-older.prom": "prometheus",
    "metrics-renamed.prom": "prometheus",
    "metrics-sglang.prom": "prometheus",
    "metrics-tgi.prom": "prometheus",
    "mooncake.jsonl": "mooncake",
    "servegen.json": "servegen",
    "sglang-bench.jsonl": "sglang-bench",
    "sharegpt.json": "sharegpt",
    "splitwise.csv": "splitwise",
    "tape.csv": "tape",
    "vidur-lengths.csv": "vidur-lengths",
    "vllm-bench.json": "vllm-bench",
    "vllm-bench-totals.json": "vllm-bench",
    "vllm-bench-untimed.json": "vllm-bench",
    "wildchat.jsonl": "wildchat",
}
"""Every sample and its format; those of one kind hold the same requests."""
ARRIVALS = {
    "aiperf.jsonl": [0, 0.25, 1.5],
    "azure-2023.csv": [0, 4.314579, 4.541877],
    "azure-2024.csv": [0, 3.99007, 4.49007],
    "azure-2025.csv": [0, 3.99, 4.49],
    "bailian.jsonl": [0, 3.5, 4.25],
    "burstgpt.csv": [0, 4, 4],
    "burstgpt-2.csv": [0, 4.25, 4.5],
    "guidellm.json": [0, 0.25, 1.5],
    "guidellm-0.3.json": [0, 0.25, 1.5],
    "inference-perf.json": [0, 0.25, 1.5],
    "mooncake.jsonl": [0, 3.5, 4.2505],
    "splitwise.csv": [0, 4.25, 4.5],
    "tape.csv": [0, 4.25, 4.5],
    "vllm-bench.json": [0, 0.75, 1.25],
}
COLUMNS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
    "splitwise": ("arrival_timestamp", "prompt_size", "token_size"),
    "tape": ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
}
LINES = [name for name, form in SAMPLES.items() if form in COLUMNS]
JSON_LINES = ["mooncake.jsonl", "bailian.jsonl"]
CHAT_SAMPLES = ["messages.jsonl", "sharegpt.json", "wildchat.jsonl"]
SUMMARIES = {
    "aiperf-summary.json": (520, 128, 4.5),
    "guidellm-sampled.json": (420, 110, 2.96),
    "inference-perf-stage.json": (640, 90.5, 3.02),
    "llmperf-summary.json": (259.75, 104.5, 0.35),
    "metrics.prom": (270.18, 113.18, None),
    "metrics-dynamo.prom": (415, 152, None),
    "metrics-dynamo-older.prom": (415, 152, None),
    "metrics-renamed.prom": (415, 152, None),
    "metrics-sglang.prom": (415, 152, None),
    "metrics-tgi.prom": (415, 152, None),
    "servegen.json": (400, 100, None),
    "vllm-bench-totals.json": (750, 125.5, 4.88),
}
"""Samples without requests: their mean prompt and output tokens, and their rate."""
LENGTHS = ([374, 396, 879], [44, 109, 55])
CHATS = ([3, 6, 3], [3, 1, 3])


def opened(path: Path, form: str, **options: object) -> Trace:
    read = ReadOptions(tokenizer=TOKENIZER, **options)  # type: ignore[arg-type]
    trace = TRACE_FORMATS[form].open(path, read)
    assert isinstance(trace, Trace)
    return trace


def lengths(chunks: list[Chunk]) -> tuple[list[int], list[int]]:
    return (
        [int(tokens) for chunk in chunks for tokens in chunk.num_prefill_tokens],
        [int(tokens) for chunk in chunks for tokens in chunk.num_decode_tokens],
    )


def consume(path: Path, form: str, **options: object) -> None:
    list(opened(path, form, **options).chunks)


def refused(path: Path, form: str, **options: object) -> InputError:
    """The error of a file, or of an option that was said and does not fit it."""
    with pytest.raises(InputError) as caught:
        consume(path, form, **options)
    error = caught.value
    assert error.file == (None if options.get(error.field) is not None else str(path))
    assert "\n" not in str(error)
    assert "--" not in error.field + error.allowed
    return error


def unsaid(path: Path, form: str) -> InputError:
    """The error of a file that does not say which of its parts is meant."""
    error = refused(path, form)
    assert (error.field, error.value) == ("part", "nothing")
    return error
