"""Reading a trace takes as much memory for a long one as for a short one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from fluid.traces import TRACE_FORMATS, ReadOptions, Trace, digest, tape_writer

BLOCK_BYTES = 1 << 16
TOKENIZER = Path(__file__).resolve().parents[1] / "data" / "traces" / "tokenizer.json"


def csv(header: str, row: Callable[[int], str]) -> Callable[[Path, int], None]:
    def write(path: Path, rows: int) -> None:
        with path.open("w") as file:
            file.write(header + "\n")
            file.writelines(row(number) + "\n" for number in range(rows))

    return write


def chats(path: Path, rows: int) -> None:
    talk = {"conversations": [{"value": "the cat sat on the mat"}, {"value": "and then"}]}
    path.write_text("[" + ",\n".join([json.dumps(talk)] * rows) + "]")


def blocks(more: dict[str, object]) -> Callable[[Path, int], None]:
    def write(path: Path, rows: int) -> None:
        with path.open("w") as file:
            for number in range(rows):
                prompt = number % (97 if more else 997) + 1
                ids = -(-prompt // (16 if more else 512))
                row = {"timestamp": number, "input_length": prompt, "output_length": 7}
                file.write(json.dumps(more | row | {"hash_ids": [number] * ids}) + "\n")

    return write


def messages(path: Path, rows: int) -> None:
    talk = [
        {"role": "user", "content": "the cat sat on the mat"},
        {"role": "assistant", "content": "and then"},
    ]
    path.write_text((json.dumps({"conversation": talk}) + "\n") * rows)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "azure": csv(
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        lambda n: (
            f"2024-05-{10 + n // 86400} {n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
            f".0099300,{n % 997 + 1},7"
        ),
    ),
    "burstgpt": csv(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        lambda n: f"{n},GPT-4,{n % 997 + 1},7,9,API log",
    ),
    "tape": csv(
        "arrived_at,num_prefill_tokens,num_decode_tokens", lambda n: f"{n / 8},{n % 997 + 1},7"
    ),
    "splitwise": csv(
        "request_id,arrival_timestamp,prompt_size,token_size",
        lambda n: f"{n},{n / 8},{n % 997 + 1},7",
    ),
    "vidur-lengths": csv(
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio",
        lambda n: f"{n % 997 + 1},7,{n % 997 + 8},{(n % 997 + 1) / 7}",
    ),
    "bailian": blocks({"chat_id": 0}),
    "mooncake": blocks({}),
    "sharegpt": chats,
    "wildchat": messages,
}
ROWS = {"sharegpt": 2_000, "wildchat": 2_000, "bailian": 30_000}
"""Of the short trace; 20,000 in the other formats, after which the peak has settled."""


def peak_bytes(form: str, path: Path, rows: int) -> int:
    """Most memory of Python, NumPy and Arrow while a trace becomes a digest and a tape."""
    pool = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    previous = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pool)
    tracemalloc.start()
    try:
        read = ReadOptions(tokenizer=TOKENIZER, block_bytes=BLOCK_BYTES)
        trace = TRACE_FORMATS[form].open(path, read)
        assert isinstance(trace, Trace)
        if trace.timed:
            with tape_writer(path.with_suffix(".tape")) as write:
                found = digest(write(chunk) or chunk for chunk in trace.chunks)
        else:
            found = digest(trace.chunks)
        assert found.requests == rows
        return tracemalloc.get_traced_memory()[1] + int(pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pyarrow.set_memory_pool(previous)


@pytest.mark.slow
@pytest.mark.parametrize("form", WRITERS)
def test_memory_does_not_grow_with_the_trace(form: str, tmp_path: Path) -> None:
    """Ten times the rows take at most a quarter more; held whole they would take ten times."""
    rows = ROWS.get(form, 20_000)
    peaks = []
    for count in (rows, rows, 10 * rows):  # the first run also imports and warms up
        path = tmp_path / f"{count}.trace"
        WRITERS[form](path, count)
        peaks.append(peak_bytes(form, path, count))
    assert peaks[2] < 1.25 * peaks[1]
