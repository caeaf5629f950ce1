"""Graphs compute what launches compute: same tokens, same cache, whatever the padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from validation.measure.batch import Chunk, make_batch, rounded  # noqa: E402
from validation.measure.kv_cache import KVCache  # noqa: E402
from validation.measure.model import Decoder, random_decoder  # noqa: E402
from validation.measure.runner import (  # noqa: E402
    MOST_PREPARED_PROMPTS,
    CudaCapture,
    EagerRunner,
    GraphRunner,
    Step,
)
from validation.measure.shapes import SHAPES  # noqa: E402


class Repeated:
    """Stands for CUDA graphs on any device: what is captured is done again at each replay."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, step: Step) -> Step:
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


def decoder_on(device: str, name: str = "tiny-grouped") -> Decoder:
    """With weights large enough that attention is far from uniform."""
    decoder = random_decoder(SHAPES[name], torch.device(device), torch.float32)
    for name, weight in decoder.named_parameters():
        if "norm" not in name:
            weight.mul_(5)
    return decoder


def iterations(seed: int, slots: int, length: int) -> list[tuple[list[Chunk], list[Chunk]]]:
    """Requests that come, are computed in chunks, decode and go; some slots are never in place."""
    rng = np.random.default_rng(seed)
    held: dict[int, int] = {}
    found = []
    while len(found) < 40:
        free = [slot for slot in range(slots) if slot not in held]
        prefills = []
        if free and rng.random() < 0.5:
            slot = free[0] if rng.random() < 0.95 else int(rng.choice(free))
            prefills.append(Chunk(slot, 0, rng.integers(0, 256, rng.integers(2, 40)).tolist()))
        decodes = [
            Chunk(slot, start, [int(rng.integers(0, 256))])
            for slot, start in sorted(held.items())
            if start < length
        ]
        if decodes or prefills:
            found.append((decodes, prefills))
        for one in (*decodes, *prefills):
            held[one.slot] = one.start + len(one.tokens)
        if held and rng.random() < 0.2:
            held.pop(max(held) if rng.random() < 0.9 else int(rng.choice(list(held))))
    return found


def compare(decoder: Decoder, capture: Callable[[Step], Step], seed: int) -> None:
    """Both runners on the same iterations, each on its own cache."""
    slots, length, device = 12, 160, decoder.device
    caches = [KVCache(decoder.shape, slots, length, device, torch.float32) for _ in range(2)]
    eager, graphs = EagerRunner(decoder, caches[0]), GraphRunner(decoder, caches[1], capture)
    for number, (decodes, prefills) in enumerate(iterations(seed, slots, length)):
        if number % 4:
            graphs.capture(decodes, prefills)
        assert graphs.run(decodes, prefills) == eager.run(decodes, prefills)
    rows = [cache.rows[:, : cache.spare_row] for cache in caches]
    torch.testing.assert_close(rows[1], rows[0], atol=1e-4, rtol=1e-4)
    assert rows[0].abs().max() > 0.1
    assert 0 < graphs.launched < eager.launched == 40


@pytest.mark.parametrize("name", ["tiny", "tiny-grouped"])
@pytest.mark.parametrize("seed", range(4))
def test_padding_and_replaying_change_nothing(name: str, seed: int) -> None:
    capture = Repeated()
    compare(decoder_on("cpu", name), capture, seed)
    assert capture.replayed >= capture.captured > 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("seed", range(4))
def test_cuda_graphs_change_nothing(seed: int) -> None:
    compare(decoder_on("cuda"), CudaCapture(), seed)


def test_what_is_prepared_is_captured_before_it_is_needed() -> None:
    """Alone at every number and length, and beside up to four prompts; five prompts are not."""
    decoder, slots, prompt, longest = decoder_on("cpu", "tiny"), 11, 20, 90
    cache = KVCache(decoder.shape, slots, longest, decoder.device, torch.float32)
    runner = GraphRunner(decoder, cache, Repeated())
    runner.prepare(prompt, longest)
    for prompts in range(6):
        for count in range(prompts == 0, slots - prompts + 1):
            for held in (prompt + 1, 64, 65, longest):
                runner.run(
                    [Chunk(slot, held - 1, [7]) for slot in range(count)],
                    [Chunk(count + index, 0, [3] * prompt) for index in range(prompts)],
                )
        assert (runner.launched > 0) == (prompts > MOST_PREPARED_PROMPTS)


def test_a_chunk_on_context_is_tied_to_its_slot() -> None:
    decoder = decoder_on("cpu")
    cache = KVCache(decoder.shape, 3, 64, decoder.device, torch.float32)
    runner = GraphRunner(decoder, cache, Repeated())
    runner.capture([], [Chunk(0, 4, [1, 2])])
    runner.run([], [Chunk(0, 4, [5, 6])])
    assert runner.launched == 0
    runner.run([], [Chunk(1, 4, [5, 6])])
    assert runner.launched == 1


def test_sizes_grow_and_cover() -> None:
    sizes = [rounded(count) for count in range(600)]
    assert sizes == sorted(sizes)
    assert all(count <= size <= max(count + 15, 1.6 * count) for count, size in enumerate(sizes))
    assert len(set(sizes[:257])) == 36


def test_padding_of_a_batch() -> None:
    """Three decodes on four seats, a prompt of 6, padded to 16 tokens of which 6 are nobody's."""
    cache = KVCache(SHAPES["tiny"], 5, 64, torch.device("cpu"), torch.float32)
    decodes = [Chunk(slot, 9 + slot, [slot]) for slot in range(3)]
    batch = make_batch(cache, decodes, [Chunk(4, 2, list(range(10, 16)))], padded=True)
    assert (batch.seats, batch.width, batch.decode_length) == (4, 16, 64)
    assert batch.tokens.tolist() == [0, 1, 2, 0, *range(10, 16), 0, 0, 0, 0, 0, 0]
    assert batch.positions.tolist() == [9, 10, 11, 0, *range(2, 8), 0, 0, 0, 0, 0, 0]
    assert batch.rows.tolist()[:3] == [9, 64 + 10, 128 + 11]
    assert batch.rows.tolist()[4:10] == list(range(4 * 64 + 2, 4 * 64 + 8))
    assert {batch.rows.tolist()[at] for at in (3, *range(10, 16))} == {cache.spare_row}
    assert batch.last.tolist() == [0, 1, 2, 3, 9]
    assert batch.decode_slots is None
