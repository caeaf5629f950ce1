"""What reading finds out about a trace: reusable prompts, images, requests that are too long."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.traces import (
    PromptBlocks,
    ReadOptions,
    Tape,
    Trace,
    digest,
    open_trace,
    read_trace,
    write_tape,
)
from fluid.traces.reuse import MOST_IDS
from tests.support.trace_samples import DATA, lengths

Requests = list[tuple[int, list[int]]]


def found(path: Path, **options: object) -> tuple[str, ...]:
    """Caveats of a trace that was read to its end."""
    trace = open_trace(path, options=ReadOptions(**options))  # type: ignore[arg-type]
    assert isinstance(trace, Trace)
    digest(trace.chunks)
    return trace.caveats


def mooncake(path: Path, requests: Requests) -> Path:
    path.write_text(
        "\n".join(
            json.dumps(
                {"timestamp": 9 * n, "input_length": prompt, "output_length": 2, "hash_ids": ids}
            )
            for n, (prompt, ids) in enumerate(requests)
        )
    )
    return path


def reusable_share(requests: Requests, block_tokens: int) -> float:
    """Request by request: blocks in front of the prompt that an earlier request had."""
    seen: set[int] = set()
    reused = 0
    for prompt, ids in requests:
        leading = next((place for place, one in enumerate(ids) if one not in seen), len(ids))
        reused += min(leading * block_tokens, prompt)
        seen.update(ids)
    return reused / sum(prompt for prompt, _ in requests)


@given(data=st.data(), block_bytes=st.integers(1, 400))
@settings(max_examples=60)
def test_the_reusable_share_is_that_of_a_walk_through_the_requests(
    data: st.DataObject, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ids = st.lists(
        st.integers(0, 12) | st.sampled_from([10**6, MOST_IDS - 1]), unique=True, max_size=11
    )
    last = st.integers(1, 512)
    pairs = data.draw(st.lists(st.tuples(last, ids), min_size=1, max_size=12))
    requests = [(512 * max(len(some) - 1, 0) + rest, some) for rest, some in pairs]
    path = mooncake(tmp_path_factory.getbasetemp() / "reuse.jsonl", requests)
    told = " ".join(found(path, block_bytes=block_bytes))
    if not any(ids for _, ids in requests):
        assert told == ""
        return
    assert float(told.split(" %")[0]) == pytest.approx(
        100 * reusable_share(requests, 512), rel=5.1e-3, abs=1e-9
    )


def test_blocks_of_bailian_are_short_ones() -> None:
    (told,) = found(DATA / "bailian.jsonl")
    # Two blocks of 16 in the second prompt, one in the third.
    assert told.startswith(f"{100 * 48 / 1649:.3g} % of the prompt tokens were seen before")


@pytest.mark.parametrize("ids", [[-3], [MOST_IDS], ["a9f"], [1.5], "abc", [2**70]])
def test_ids_that_cannot_be_counted_are_told(ids: object, tmp_path: Path) -> None:
    path = mooncake(tmp_path / "trace.jsonl", [(600, [1, 2]), (600, ids)])  # type: ignore[list-item]
    (told,) = found(path)
    assert "is not counted" in told


@pytest.mark.parametrize("ids", [[1], [1, 2, 3, 4]])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_prompt_whose_length_its_blocks_do_not_fit_is_refused(
    ids: list[int], block_bytes: int, tmp_path: Path
) -> None:
    path = mooncake(tmp_path / "trace.jsonl", [(600, [1, 2]), (1100, ids)])
    with pytest.raises(InputError, match=rf"line 2: block ids: got '{len(ids)} ids'; allowed: 3"):
        found(path, block_bytes=block_bytes)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_blocks_stay_with_their_prompts_through_a_tape(block_bytes: int, tmp_path: Path) -> None:
    requests = [(600, [3, 2**40]), (5, []), (1024, [3, 9]), (1030, [3, 9])]
    options = ReadOptions(drop_longer_than=1031, block_bytes=block_bytes)
    recorded = read_trace(mooncake(tmp_path / "trace.jsonl", requests), options=options)
    write_tape(recorded, tmp_path / "tape.csv")
    for tape in (recorded, read_trace(tmp_path / "tape.csv", options=options)):
        assert tape.blocks is not None
        assert tape.blocks.block_tokens == 512
        assert [tape.blocks.of(n).tolist() for n in range(len(tape))] == [
            ids for prompt, ids in requests if prompt < 1030
        ]


@pytest.mark.parametrize("word", ["-1", "x", "1;2", "9" * 19])
def test_a_tape_with_broken_ids_is_refused(word: str, tmp_path: Path) -> None:
    path = tmp_path / "tape.csv"
    header = "arrived_at,num_prefill_tokens,num_decode_tokens,block_ids_of_16_tokens"
    path.write_text(f"{header}\n0,16,2,7\n1,16,2,{word}\n")
    with pytest.raises(InputError, match="line 3: block_ids_of_16_tokens: got"):
        found(path)


def test_blocks_of_a_tape_fit_its_prompts() -> None:
    blocks = PromptBlocks(np.array([1, 2]), np.array([1, 1]), 16)
    times, lengths_ = np.array([0.0, 1.0]), np.array([16, 33])
    with pytest.raises(InputError, match=r"blocks\[1\]: got '1 ids'; allowed: 3 ids"):
        Tape(times, lengths_, lengths_, blocks)
    with pytest.raises(InputError, match="counts"):
        PromptBlocks(np.array([1, 2]), np.array([1]), 16)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_what_an_engine_found_is_told(block_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "tape.csv"
    header = "arrived_at,num_prefill_tokens,cached_tokens,num_decode_tokens"
    path.write_text(f"{header}\n0,300,0,2\n1,100,80,2\n2,100,20,2\n")
    (told,) = found(path, block_bytes=block_bytes)
    assert told.startswith("20 % of the prompt tokens were found in the engine's prefix cache")
    path.write_text(path.read_text().replace("80", "101"))
    with pytest.raises(
        InputError, match="request 2: cached_tokens: got 101; allowed: at most the 100"
    ):
        found(path, block_bytes=block_bytes)
    path.write_text(path.read_text().replace("101", "some"))
    with pytest.raises(InputError, match="line 3: cached_tokens: got 'some'"):
        found(path, block_bytes=block_bytes)


def test_images_are_counted(tmp_path: Path) -> None:
    (told,) = found(DATA / "azure-2025.csv", block_bytes=1)
    assert told.startswith("2 of 3 requests have images")
    assert found(DATA / "azure-2024.csv") == ()
    path = tmp_path / "broken.csv"
    path.write_text((DATA / "azure-2025.csv").read_text().replace(",2,", ",two,"))
    with pytest.raises(InputError, match="line 3: NumImages: got 'two'"):
        found(path)


@pytest.mark.parametrize("sample", ["tape.csv", "llmperf.json", "mooncake.jsonl"])
def test_requests_that_are_too_long_are_left_out_and_told(sample: str) -> None:
    trace = open_trace(DATA / sample, options=ReadOptions(drop_longer_than=505))
    assert isinstance(trace, Trace)
    chunks = list(trace.chunks)
    assert lengths(chunks) == ([374, 396], [44, 109])
    assert sum(chunk.dropped for chunk in chunks) == 1
    assert "1 request of more than 505 tokens left out, the longest of 934" in " ".join(
        trace.caveats
    )
    assert not any("left out" in told for told in found(DATA / sample, drop_longer_than=934))


def test_a_trace_of_nothing_but_long_requests_is_refused() -> None:
    with pytest.raises(InputError, match="only requests that were left out"):
        found(DATA / "tape.csv", drop_longer_than=9)
    with pytest.raises(InputError, match="at least 2 tokens"):
        found(DATA / "tape.csv", drop_longer_than=1)
    with pytest.raises(InputError, match="no single requests"):
        open_trace(DATA / "metrics.prom", options=ReadOptions(drop_longer_than=9))


def test_dropped_requests_do_not_bend_the_clock() -> None:
    """The first request left out, the others keep their times."""
    trace = open_trace(DATA / "tape.csv", options=ReadOptions(drop_longer_than=934))
    assert isinstance(trace, Trace)
    (chunk,) = trace.chunks
    np.testing.assert_array_equal(chunk.arrived_at_s, [0, 4.25, 4.5])
