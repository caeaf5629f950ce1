"""The samples of every trace format, and how tests open them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.traces import TRACE_FORMATS, Chunk, ReadOptions, Trace

DATA = Path(__file__).resolve().parents[1] / "data" / "traces"
TOKENIZER = DATA / "tokenizer.json"
SAMPLES = {
    "azure-2023.csv": "azure",
    "azure-2024.csv": "azure",
    "burstgpt.csv": "burstgpt",
    "burstgpt-2.csv": "burstgpt",
    "guidellm.json": "guidellm",
    "guidellm-0.3.json": "guidellm",
    "metrics.prom": "prometheus",
    "mooncake.jsonl": "mooncake",
    "sharegpt.json": "sharegpt",
    "tape.csv": "tape",
    "vllm-bench.json": "vllm-bench",
    "vllm-bench-untimed.json": "vllm-bench",
}
ARRIVALS = {
    "azure-2023.csv": [0, 4.314579, 4.541877],
    "azure-2024.csv": [0, 3.99007, 4.49007],
    "burstgpt.csv": [0, 4, 4],
    "burstgpt-2.csv": [0, 4.25, 4.5],
    "guidellm.json": [0, 0.25, 1.5],
    "guidellm-0.3.json": [0, 0.25, 1.5],
    "mooncake.jsonl": [0, 3.5, 4.2505],
    "tape.csv": [0, 4.25, 4.5],
    "vllm-bench.json": [0, 0.75, 1.25],
}
LINES = [name for name, form in SAMPLES.items() if form in {"azure", "burstgpt", "tape"}]
LENGTHS = ([374, 396, 879], [44, 109, 55])
CHATS = ([3, 6, 1], [3, 1, 2])


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
    with pytest.raises(InputError) as caught:
        consume(path, form, **options)
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    return caught.value
