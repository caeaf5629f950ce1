"""Exact LRU stack distances against a list that is searched."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from fluid.traces import hit_curve
from fluid.traces.hit_curve import StackDistances
from fluid.traces.prompt_blocks import PromptBlocks
from fluid.traces.summarise import summarise_trace

Prompts = list[tuple[int, list[int]]]


def slow_curve(prompts: Prompts, block: int) -> dict[int, int]:
    """Prompt tokens found by distance: a stack of blocks, the last used first."""
    stack: list[int] = []
    found: dict[int, int] = {}
    for tokens, ids in prompts:
        for place, one in enumerate(ids):
            if one not in stack:
                break
            distance = stack.index(one) + 1
            found[distance] = found.get(distance, 0) + min(block, tokens - place * block)
        for one in reversed(ids):
            if one in stack:
                stack.remove(one)
            stack.insert(0, one)
    return found


def lru_hits(prompts: Prompts, block: int, capacity: int) -> int:
    """Prompt tokens that a cache of so many blocks finds, played through."""
    cache: list[int] = []
    hits = 0
    for tokens, ids in prompts:
        for place, one in enumerate(ids):
            if one not in cache:
                break
            hits += min(block, tokens - place * block)
        for one in reversed(ids):
            if one in cache:
                cache.remove(one)
            cache.append(one)
            del cache[:-capacity]
    return hits


def random_prompts(seed: int, requests: int, block: int) -> Prompts:
    """Prompts that share beginnings: paths in a tree, ids far apart."""
    rng = random.Random(seed)
    names: dict[tuple[int, ...], int] = {}
    found = []
    for _ in range(requests):
        path: tuple[int, ...] = ()
        ids = []
        for _ in range(rng.randrange(8)):
            path += (rng.randrange(3),)
            ids.append(names.setdefault(path, (len(names) * 2**33 + 7) % (2**61 - 1)))
        found.append((max(1, len(ids) * block - rng.randrange(block)), ids))
    return found


def seen(prompts: Prompts, block: int, at_once: int) -> StackDistances:
    distances = StackDistances(block)
    for start in range(0, len(prompts), at_once):
        part = prompts[start : start + at_once]
        ids = np.array([one for _, ids in part for one in ids], dtype=np.int64)
        counts = np.array([len(ids) for _, ids in part])
        distances.see(PromptBlocks(ids, counts, block), np.array([tokens for tokens, _ in part]))
    return distances


@pytest.mark.parametrize(("seed", "at_once", "fewest"), [(1, 1, 4), (2, 37, 8), (3, 900, 4096)])
def test_distances_are_those_of_a_stack(
    seed: int, at_once: int, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_curve, "_FEWEST", fewest)
    prompts = random_prompts(seed, 800, 16)
    curve = seen(prompts, 16, at_once).curve()
    assert curve is not None
    slow = slow_curve(prompts, 16)
    assert curve.cache_blocks.tolist() == sorted(slow)
    np.testing.assert_array_equal(
        curve.found_tokens, np.cumsum([slow[one] for one in sorted(slow)])
    )
    for capacity in (1, 5, 60, 10_000):
        share = lru_hits(prompts, 16, capacity) / curve.prompt_tokens
        assert curve.share(16 * capacity) == pytest.approx(share, abs=1e-12)
    assert curve.points()[-1][1] / curve.prompt_tokens == curve.reusable_share


def test_too_many_blocks_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hit_curve, "MOST_BLOCKS", 50)
    assert seen(random_prompts(1, 200, 16), 16, 10).curve() is None


def test_the_summary_line_says_what_is_reusable(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [(1024, [1, 2]), (1500, [1, 2, 3]), (600, [9, 10])]
    path.write_text(
        "\n".join(
            json.dumps(
                {"timestamp": 9 * n, "input_length": prompt, "output_length": 2, "hash_ids": ids}
            )
            for n, (prompt, ids) in enumerate(rows)
        )
    )
    found = summarise_trace(path)
    assert f"{100 * 1024 / 3124:.1f} % of the prompt tokens reusable" in str(found)
    assert found.document()["reusable_share"] == 1024 / 3124
    # The first of two blocks was used last.
    assert found.document()["hit_curve"][0] == {"cache_tokens": 512, "share": 512 / 3124}
