"""Stages of the classes as waves, which the linear theory is made of (THEORY 9.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from fluid.steady.latency.kernels import cross_sums
from fluid.steady.latency.load import Load

Floats = NDArray[np.float64]
Waves = NDArray[np.complex128]

TOKENS, FIXED, DECODES, KV_READ, HELD, OLD_DECODES, OLD_KV = range(7)
"""Rows of `Transforms`: prompt tokens, and seconds apart from f, by chunk; decodes and the KV that
they read; KV held, from the first chunk on; decodes and KV read from an age on, if there is one."""


@dataclass(frozen=True)
class Transforms:
    """Stages of each class as waves on n points.

    Attributes:
        wave: z, shape (n/2 + 1,).
        rows: See `TOKENS`, without the last two, shape (5, m, n/2 + 1).
        cross, total: Sums of 5 or all 7 rows over classes, see `kernels.linear_moments`.
        chunks: Iterations that a prompt takes, shape (m,).
    """

    size: int
    wave: Waves
    rows: Waves
    cross: Waves
    total: Waves
    chunks: NDArray[np.int64]


def chunk_lengths(prompt: float, budget: float | None) -> Floats:
    """Tokens of a prompt by iteration, in whole budgets; all at once without one."""
    if budget is None or prompt <= budget:
        return np.array([prompt])
    count = math.ceil(prompt / budget)
    return np.asarray(np.minimum(budget, prompt - budget * np.arange(count)))


def stage_rows(load: Load, budget: float | None) -> tuple[Floats, NDArray[np.int64]]:
    """All stages as `Transforms.rows` has them, shape (5, m, longest), and their chunks, (m,)."""
    parts = [chunk_lengths(prompt, budget) for prompt in load.prompts]
    chunks = np.array([len(one) for one in parts])
    rows = np.zeros((OLD_DECODES, len(parts), int((chunks + load.later).max())))
    tau = load.tau
    for j, (stages, part) in enumerate(zip(load.stages, parts, strict=True)):
        if load.prompts[j] > 0:
            before = np.cumsum(part) - part
            fixed = tau.per_prefill_token_s * part + tau.per_prefill_token_sq_s * part**2
            rows[TOKENS, j, : len(part)] = part
            rows[FIXED, j, : len(part)] = fixed + tau.per_prefill_context_token_s * part * before
            rows[HELD, j, : len(part)] = np.minimum(before + part, stages.held_kv_tokens[0])
        else:
            rows[TOKENS, j, 0], rows[FIXED, j, 0] = 1.0, load.first_s[j]
            rows[HELD, j, 0] = stages.held_kv_tokens[0]
        start, end = chunks[j], chunks[j] + stages.count - 1
        rows[DECODES, j, start:end] = 1.0
        rows[KV_READ, j, start:end] = stages.kv_tokens[1:]
        rows[HELD, j, start:end] = stages.held_kv_tokens[1:]
    return rows, chunks


def wave_of(size: int) -> Waves:
    """z on so many points, shape (n/2 + 1,)."""
    return np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)


def transforms(load: Load, rows: Floats, chunks: NDArray[np.int64], size: int) -> Transforms:
    """Waves of `stage_rows`, without the slow decodes."""
    wave, waves = wave_of(size), rfft(rows, size)
    nothing = np.zeros((0, len(chunks), len(wave)), dtype=np.complex128)
    cross, total = cross_sums(load.rates_per_s, nothing, waves, nothing[:, :0])
    return Transforms(size, wave, waves, cross, total, chunks)


def with_old(parts: Transforms, load: Load, age: int) -> Transforms:
    """The same with the decodes that are older than an age."""
    rows = np.zeros((2, len(load.stages), parts.size))
    for j, stages in enumerate(load.stages):
        start, end = parts.chunks[j] + age, parts.chunks[j] + stages.count - 1
        rows[0, j, start:end] = 1.0
        rows[1, j, start:end] = stages.kv_tokens[1 + age :]
    cross, total = cross_sums(load.rates_per_s, parts.rows, rfft(rows), parts.cross)
    return replace(parts, cross=cross, total=np.concatenate([parts.total, total]))
