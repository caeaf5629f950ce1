"""Tables of batches whose iteration time is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fluid.iteration import IterationTime
from validation.measure.composition import Measurements
from validation.measure.importers.iteration_csv import from_table

LINEAR = {
    "per_kv_token_s": 2.7e-7,
    "per_decode_request_s": 2e-5,
    "per_prefill_token_sq_s": 5e-9,
    "per_prefill_context_token_s": 4e-9,
}


def truth(tokens_knots: list[float], seconds_knots: list[float]) -> IterationTime:
    """f through the knots, and `LINEAR`."""
    document = {"tokens_knots": tokens_knots, "seconds_knots": seconds_knots, **LINEAR}
    return IterationTime.from_document(document)


AFFINE = truth([0, 2048], [0.0095, 0.135])
JUMP = truth([0, 256, 256, 2048], [0.0095, 0.019, 0.025, 0.16])


def batches() -> np.ndarray:
    """Decode, prefill and mixed batches: P, ctx, B, K, 0, requests in prefill; (rows, 6)."""
    rows = [
        (0, 0, decodes, decodes * context, 0, 0)
        for decodes in (1, 2, 4, 8, 16, 32, 64, 128)
        for context in (64, 256, 1024, 4096)
    ]
    rows += [(prompt, 0, 0, 0, 0, 1) for prompt in (16, 32, 64, 128, 256, 512, 1024, 2048)]
    rows += [
        (chunk, context, decodes, decodes * 512, 0, 1)
        for chunk in (64, 256, 512)
        for context in (0, 512, 2048)
        for decodes in (1, 16, 64)
    ]
    rows += [(512 * count, 0, 0, 0, 0, count) for count in (2, 3, 4)]
    return np.array(rows, dtype=float)


def measured(tau: IterationTime, noise: float = 0.0, seed: int = 0) -> Measurements:
    """The batches with times τ·(1 + noise·z), z standard normal."""
    table = batches()
    compositions, seen = from_table(table)
    relative = 1 + noise * np.random.default_rng(seed).standard_normal(len(table))
    return Measurements(compositions, compositions.seconds(tau) * relative, seen, "synthetic")


def write_csv(data: Measurements, path: Path, unit: float = 1e3) -> Path:
    """The table as a file in the shared layout; `unit` turns seconds into what is written."""
    lines = [
        "prefill_tokens,prefill_context_tokens,decode_batch,decode_context_tokens_total,"
        "iteration_ms,num_prefill_seqs"
    ]
    for row, seconds in zip(batches().tolist(), data.seconds.tolist(), strict=True):
        prefill, context, decodes, kv_tokens, _, sequences = row
        time = seconds * unit
        lines.append(f"{prefill},{context},{decodes},{kv_tokens},{time!r},{sequences:.0f}")
    path.write_text("\n".join(lines) + "\n")
    return path
