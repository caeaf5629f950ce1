"""Which batches an engine can run: the compositions at which an iteration time is asked for.

Decodes alone make up most iterations of a server, so that they are most of the rows: each number
of them up to 8, then a geometric grid, at several contexts; prompts alone and with cached context;
and random mixtures. Where a scan of one variable finds a jump, both sides of it are rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from validation.measure.composition import Compositions, Floats
from validation.servers.gpus import EngineLimits

ROWS = 500
_LEAST_PROMPT = 64
_CONTEXTS = (64, 512, 2048, 8192, 32768)
_CACHED = (1024, 4096, 16384)
_JUMP = 0.012
"""Relative rise from one token to the next that is taken for a jump."""
_MOST_JUMPS = 24

Times = Callable[[Floats], Floats]
"""Rows of (prompts, their tokens, cached tokens of each, decodes, KV read) → seconds."""


@dataclass(frozen=True)
class Reach:
    """How far the batches of a server go.

    Attributes:
        tokens: Computed in an iteration.
        decodes: Requests that decode.
        kv_tokens: KV tokens of all of them.
        longest_tokens: Of one request.
    """

    tokens: int
    decodes: int
    kv_tokens: int
    longest_tokens: int

    @classmethod
    def of(cls, limits: EngineLimits, kv_tokens: int, longest_tokens: int | None) -> Reach:
        """Of an engine with so much memory."""
        longest = min(longest_tokens or kv_tokens, kv_tokens)
        seats = min(limits.max_num_seqs, limits.max_num_batched_tokens)
        return cls(limits.max_num_batched_tokens, seats, kv_tokens, longest)


def training_rows(reach: Reach, times: Times, seed: int = 0) -> Floats:
    """About `ROWS` batches, with both sides of the jumps that `times` shows, shape (N, 5)."""
    decodes = {*range(1, 9), *_grid(8, reach.decodes, 24)}
    prompts = {*_grid(_LEAST_PROMPT, reach.tokens, 24)}
    for place in _jumps(times, _prompt_scan(reach)):
        prompts |= {place, place + 1}
    for place in _jumps(times, _decode_scan(reach)):
        decodes |= {place, place + 1}
    rng = np.random.default_rng(seed)
    rows = [
        (0, 0, 0, count, count * context)
        for count in sorted(decodes)
        for context in _CONTEXTS
        if context <= reach.longest_tokens and count * context <= reach.kv_tokens
    ]
    cached = [one for one in _CACHED if one < reach.longest_tokens]
    for tokens in sorted(prompts):
        rows.append((1, tokens, 0, 0, 0))
        if cached:
            rows.append((1, tokens, int(rng.choice(cached)), 0, 0))
    more = max(ROWS - len(rows), 150)
    return np.vstack([np.array(rows, dtype=float), _random(reach, more, rng)])


def unseen_rows(reach: Reach, count: int = 300, seed: int = 1) -> Floats:
    """Random batches that no fit has seen, shape (count, 5)."""
    return _random(reach, count, np.random.default_rng(seed))


def decode_rows(reach: Reach) -> Floats:
    """Decodes alone from 1 to 512 at two contexts, shape (N, 5)."""
    counts = [*range(1, 9), *range(12, min(reach.decodes, 512) + 1, 9)]
    rows = [
        (0, 0, 0, count, count * context)
        for count in counts
        for context in (512, 2048)
        if count * context <= reach.kv_tokens
    ]
    return np.array(rows, dtype=float)


def compositions_of(rows: Floats) -> Compositions:
    """What these batches consist of; prompts of a row are alike."""
    prompts, tokens, cached, decodes, kv_tokens = rows.T
    return Compositions(
        kv_tokens=kv_tokens,
        prefill_tokens=tokens,
        decode_requests=decodes,
        prefill_tokens_sq=tokens**2 / np.maximum(prompts, 1),
        prefill_context_tokens=tokens * cached,
    )


def _random(reach: Reach, count: int, rng: np.random.Generator) -> Floats:
    """Decodes alone in two fifths of the rows, otherwise with prompts; log-uniform sizes."""
    rows: list[tuple[int, ...]] = []
    cached = [0, 0, *(one for one in _CACHED if one < reach.longest_tokens)]
    while len(rows) < count:
        decodes = _log_uniform(rng, 1, reach.decodes)
        context = _log_uniform(rng, 64, min(reach.longest_tokens, 16384))
        if decodes * context > reach.kv_tokens:
            continue
        if rng.random() < 0.4:
            rows.append((0, 0, 0, decodes, decodes * context))
            continue
        tokens = _log_uniform(rng, _LEAST_PROMPT, reach.tokens)
        if tokens + decodes > reach.tokens:
            continue
        prompts = int(rng.choice([1, 1, 2, 4]))
        rows.append((prompts, tokens, int(rng.choice(cached)), decodes, decodes * context))
    return np.array(rows, dtype=float)


def _log_uniform(rng: np.random.Generator, least: int, most: int) -> int:
    return int(np.exp(rng.uniform(np.log(least), np.log(max(most, least) + 1))))


def _grid(least: int, most: int, points: int) -> list[int]:
    return [int(one) for one in np.geomspace(least, max(most, least), points).round()]


def _prompt_scan(reach: Reach) -> Floats:
    tokens = np.arange(_LEAST_PROMPT, reach.tokens + 1, dtype=float)
    nothing = np.zeros_like(tokens)
    return np.column_stack([nothing + 1, tokens, nothing, nothing, nothing])


def _decode_scan(reach: Reach) -> Floats:
    counts = np.arange(1, min(reach.decodes, 1024) + 1, dtype=float)
    context = min(512, reach.kv_tokens // len(counts))
    nothing = np.zeros_like(counts)
    return np.column_stack([nothing, nothing, nothing, counts, counts * context])


def _jumps(times: Times, scan: Floats) -> list[int]:
    """Counts after which the time jumps, the highest jumps first, in ascending order."""
    seconds = times(scan)
    rise = np.diff(seconds) / seconds[:-1]
    places = np.argsort(rise)[::-1][:_MOST_JUMPS]
    counts = scan[:, 1] + scan[:, 3]
    return sorted(int(counts[one]) for one in places if rise[one] > _JUMP)
