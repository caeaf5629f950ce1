"""The paper's own iteration-time experiment (arXiv 2504.11320): does Eq. (1) extrapolate?

Prompts of 256 tokens, 20 outputs, B = 1, 2, 4 … 128 at once, and B = 256 to extrapolate to. The
published figures — MAPE 1.93 %, R² 0.9943, 4.93 % off at B = 256 — look like those of whole runs of
21 iterations (THEORY 6.3), so both readings are fitted: the time of a whole run against the tokens
summed over its iterations, and the time of one decode iteration against its KV tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from validation.measure.composition import Floats
from validation.measure.design import Composition
from validation.measure.model import Decoder
from validation.measure.timed_sweep import measure_batch
from validation.measure.timer import Timer

PROMPT_TOKENS, OUTPUT_TOKENS = 256, 20
FITTED, EXTRAPOLATED = (1, 2, 4, 8, 16, 32, 64, 128), 256
PUBLISHED = {"mape": 0.0193, "r_squared": 0.9943, "extrapolation_error": 0.0493}


@dataclass(frozen=True)
class TwoParameterFit:
    """T = d0 + d1·tokens by least squares; `extrapolation_error` None if B = 256 did not fit."""

    d0_s: float
    d1_s: float
    mape: float
    r_squared: float
    extrapolation_error: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(vars(self))


def fit_two_parameters(tokens: Floats, seconds: Floats, extrapolated: bool) -> TwoParameterFit:
    """Fit all points, or all but the last one, which is then predicted; arrays of shape (k,)."""
    used = slice(0, -1) if extrapolated else slice(None)
    slope, start = np.polyfit(tokens[used], seconds[used], 1)
    predicted = start + slope * tokens
    left = seconds[used] - predicted[used]
    spread = seconds[used] - seconds[used].mean()
    return TwoParameterFit(
        d0_s=float(start),
        d1_s=float(slope),
        mape=float(np.abs(left / seconds[used]).mean()),
        r_squared=float(1 - np.square(left).sum() / np.square(spread).sum()),
        extrapolation_error=abs(float(predicted[-1] / seconds[-1] - 1)) if extrapolated else None,
    )


def run_paper_design(
    decoder: Decoder,
    timer: Timer,
    prompt_tokens: int = PROMPT_TOKENS,
    output_tokens: int = OUTPUT_TOKENS,
    batches: Sequence[int] = (*FITTED, EXTRAPOLATED),
    on_done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure and fit; the last of `batches` is extrapolated to.

    A run is one prefill of all prompts and `output_tokens` decode iterations; their contexts grow
    by one, so that the first, middle and last are measured and the others interpolated.
    """
    points = []
    for count in batches:
        try:
            points.append((count, *_run(decoder, timer, count, prompt_tokens, output_tokens)))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        on_done()
    extrapolated = bool(points) and points[-1][0] == batches[-1]
    counts, prefill_s, decode_s = (
        np.array(column, dtype=float) for column in zip(*points, strict=True)
    )
    stages = np.arange(output_tokens + 1)
    run_tokens = counts * (prompt_tokens + stages).sum()
    middle = counts * (prompt_tokens + (output_tokens + 1) / 2)
    runs = fit_two_parameters(run_tokens, prefill_s + output_tokens * decode_s, extrapolated)
    decodes = fit_two_parameters(middle, decode_s, extrapolated)
    return {
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "batches": counts.astype(int).tolist(),
        "run_s": (prefill_s + output_tokens * decode_s).tolist(),
        "decode_iteration_s": decode_s.tolist(),
        "whole_runs": runs.as_dict(),
        "decode_iterations": decodes.as_dict(),
        "published": PUBLISHED,
    }


def _run(
    decoder: Decoder, timer: Timer, count: int, prompt_tokens: int, output_tokens: int
) -> tuple[float, float]:
    """Seconds of the prefill and, in the mean, of a decode iteration."""
    prefill = measure_batch(decoder, Composition(prefills=count, chunk=prompt_tokens), timer)
    contexts = np.linspace(prompt_tokens + 1, prompt_tokens + output_tokens, 3).astype(int)
    taken = [
        measure_batch(decoder, Composition(decodes=count, context=int(context)), timer).median_s
        for context in contexts
    ]
    first, middle, last = taken
    return prefill.median_s, (first + 2 * middle + last) / 4
