"""The paper's own iteration-time experiment (arXiv 2504.11320): does Eq. (1) extrapolate?

Prompts of 256 tokens, 20 outputs, B = 1, 2, 4 … 128 at once, and B = 256 to extrapolate to. The
published figures — MAPE 1.93 %, R² 0.9943, 4.93 % off at B = 256 — look like those of whole runs of
21 iterations (THEORY 6.3), so both readings are fitted: the time of a whole run against the tokens
summed over its iterations, and the time of one decode iteration against its KV tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent
from validation.measure.composition import Floats
from validation.measure.design import Composition
from validation.measure.model import Decoder
from validation.measure.target import Target
from validation.measure.timed_batches import measure_batch
from validation.measure.timer import Timer

PROMPT_TOKENS, OUTPUT_TOKENS = 256, 20
FITTED, EXTRAPOLATED = (1, 2, 4, 8, 16, 32, 64, 128), 256
PUBLISHED = {"mape": 0.0193, "r_squared": 0.9943, "extrapolation_error": 0.0493}

LEAST_RUNS = 4
"""A line needs three points, and one more to extrapolate to."""


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


@dataclass(frozen=True, repr=False)
class PaperFit(Result):
    """The paper's design measured and fitted by Eq. (1), beside the published figures.

    Attributes:
        batches: B of each measured run.
        extrapolated_to: B that the fits predict; not among `batches` if it did not fit into memory.
        run_s: Seconds of a whole run, a prefill and `output_tokens` decode iterations.
        decode_iteration_s: Mean seconds of a decode iteration.
        command: What is told of how this was measured.
    """

    model: str
    device: str
    command: str
    prompt_tokens: int
    output_tokens: int
    batches: tuple[int, ...]
    extrapolated_to: int
    run_s: tuple[float, ...]
    decode_iteration_s: tuple[float, ...]
    whole_runs: TwoParameterFit
    decode_iterations: TwoParameterFit

    def blocks(self) -> Iterable[Block]:
        """Both readings of the fit, and what was published."""
        fits = {"whole runs": self.whole_runs, "decode iterations": self.decode_iterations}
        last = f"error at B = {self.extrapolated_to}"
        yield Table(
            f"Two-parameter Eq. (1), {self.model} on {self.device}",
            ("", "d0 s", "d1 s/token", "MAPE", "R²", last),
            (
                *(
                    (
                        name,
                        number(one.d0_s),
                        number(one.d1_s),
                        percent(one.mape, 2),
                        number(one.r_squared),
                        percent(one.extrapolation_error, 2),
                    )
                    for name, one in fits.items()
                ),
                ("published (A100)", "–", "–", "1.93 %", "0.9943", "4.93 %"),
            ),
            spare=("d0 s", "d1 s/token"),
        )

    def document(self) -> dict[str, Any]:
        """Measured times, both fits and the published figures."""
        return {
            "model": self.model,
            "device": self.device,
            "command": self.command,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "batches": list(self.batches),
            "run_s": list(self.run_s),
            "decode_iteration_s": list(self.decode_iteration_s),
            "whole_runs": self.whole_runs.as_dict(),
            "decode_iterations": self.decode_iterations.as_dict(),
            "published": PUBLISHED,
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row per measured B."""
        return {
            "batch": list(self.batches),
            "run_s": list(self.run_s),
            "decode_iteration_s": list(self.decode_iteration_s),
        }


def paper_batches(largest: int = EXTRAPOLATED) -> tuple[int, ...]:
    """B of the runs up to `largest`, which is extrapolated to.

    Raises:
        InputError: Too few of them for a fit.
    """
    batches = tuple(one for one in (*FITTED, EXTRAPOLATED) if one <= largest)
    if len(batches) < LEAST_RUNS:
        raise InputError("largest", largest, "at least 8: a line needs three points and one more")
    return batches


def measure_paper_design(
    target: Target,
    timer: Timer,
    largest: int = EXTRAPOLATED,
    *,
    command: str = "",
    on_done: Callable[[], None] = lambda: None,
) -> PaperFit:
    """Measure and fit the design of the paper; the last B is extrapolated to.

    A run is one prefill of all prompts and `OUTPUT_TOKENS` decode iterations; their contexts grow
    by one, so that the first, middle and last are measured and the others interpolated.

    Raises:
        InputError: Too small a `largest`, or fewer than four runs that fit into memory.
    """
    batches = paper_batches(largest)
    decoder = target.decoder()
    points = []
    for count in batches:
        try:
            points.append((count, *_run(decoder, timer, count)))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        on_done()
    if len(points) < LEAST_RUNS:
        fitting = f"{len(points)} runs that fit into memory"
        raise InputError("device", fitting, f"memory for {LEAST_RUNS} runs")
    counts, prefill_s, decode_s = (
        np.array(column, dtype=float) for column in zip(*points, strict=True)
    )
    extrapolated = points[-1][0] == batches[-1]
    stages = np.arange(OUTPUT_TOKENS + 1)
    run_tokens = counts * (PROMPT_TOKENS + stages).sum()
    middle = counts * (PROMPT_TOKENS + (OUTPUT_TOKENS + 1) / 2)
    run_s = prefill_s + OUTPUT_TOKENS * decode_s
    return PaperFit(
        model=target.shape.name,
        device=str(target.device),
        command=command,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        batches=tuple(counts.astype(int).tolist()),
        extrapolated_to=batches[-1],
        run_s=tuple(run_s.tolist()),
        decode_iteration_s=tuple(decode_s.tolist()),
        whole_runs=fit_two_parameters(run_tokens, run_s, extrapolated),
        decode_iterations=fit_two_parameters(middle, decode_s, extrapolated),
    )


def _run(decoder: Decoder, timer: Timer, count: int) -> tuple[float, float]:
    """Seconds of the prefill and, in the mean, of a decode iteration."""
    prefill = measure_batch(decoder, Composition(prefills=count, chunk=PROMPT_TOKENS), timer)
    contexts = np.linspace(PROMPT_TOKENS + 1, PROMPT_TOKENS + OUTPUT_TOKENS, 3).astype(int)
    taken = [
        measure_batch(decoder, Composition(decodes=count, context=int(context)), timer).median_s
        for context in contexts
    ]
    first, middle, last = taken
    return prefill.median_s, (first + 2 * middle + last) / 4
