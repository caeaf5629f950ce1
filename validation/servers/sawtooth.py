"""Fit of an iteration time that may fall again after a jump, to times without noise.

Tables of matrix products are a sawtooth in the number of tokens: one more than fills a tile costs a
whole tile more, and larger tiles are then better used. Knots and non-negative least squares are
those of `validation.measure`; the segment after a jump may go down as well, within the forms that
`fluid.iteration.IterationTime` allows. Decodes alone, most iterations of a server, count twice, and
a prompt's token may cost more than a decode's (c_pre): without noise that is no matter of chance.
Single batches at which a table has a spike are left beside the fit: absolute deviations are summed,
not their squares, by least squares with weights from the step before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fluid.iteration import IterationTime
from validation.measure.composition import LINEAR_TERMS, Compositions, Floats
from validation.measure.fit import LEAST_S, design, nonnegative
from validation.measure.knots import choose_knots

DECODES_COUNT = 2.0

_STEPS = 12
_SMALL = 0.01
"""Relative deviation below which squares are summed after all."""

_TILE_TOKENS = 64
"""Smaller batches fill no tile: what falls there are spikes of a table."""

DIGITS = 6
"""Significant digits that are kept of every coefficient."""


def fit_sawtooth(compositions: Compositions, seconds: Floats) -> IterationTime:
    """τ with the knots that cross-validation supports.

    Args:
        seconds: Times of the batches, shape (N,).
    """
    knots = choose_knots(compositions, seconds)
    columns = design(compositions, knots)
    falling = _may_fall(knots)
    prompts = compositions.prefill_tokens
    signed = np.hstack([columns, prompts[:, None], -columns[:, falling]])
    count = np.where(prompts > 0, 1.0, DECODES_COUNT)
    for _ in range(_STEPS):
        weights = nonnegative(signed * (count / seconds)[:, None], count)
        deviation = np.abs(signed @ weights / seconds - 1)
        count = np.where(prompts > 0, 1.0, DECODES_COUNT) * np.sqrt(
            _SMALL / np.maximum(deviation, _SMALL)
        )
    plain, (prefill_s, *down) = np.split(weights, [columns.shape[1]])
    plain[falling] -= down
    rises_s, linear_s = np.split(plain, [-len(LINEAR_TERMS)])
    summed_s = np.maximum(np.cumsum(rises_s), LEAST_S)
    times = _allowed(knots, [_rounded(one) for one in summed_s])
    # A jump of no height is none: equal knots are one.
    tokens, times = zip(*dict.fromkeys(zip(knots, times, strict=True)), strict=True)
    return IterationTime.from_document(
        {
            "tokens_knots": [float(one) for one in tokens],
            "seconds_knots": list(times),
            "per_prefill_token_s": _rounded(float(prefill_s)),
            **{
                name: _rounded(value)
                for name, value in zip(LINEAR_TERMS, linear_s.tolist(), strict=True)
            },
        }
    )


def _may_fall(knots: Sequence[float]) -> list[int]:
    """Segments, by their upper knot, that begin at a jump of full tiles and are not the last."""
    return [
        one
        for one in range(2, len(knots) - 1)
        if knots[one - 1] == knots[one - 2] and knots[one] > knots[one - 1] >= _TILE_TOKENS
    ]


def _allowed(knots: Sequence[float], seconds: list[float]) -> list[float]:
    """The knots' times where rounding or a steep fall went below the overhead or a jump down."""
    jump_at_zero = len(knots) > 1 and knots[1] == 0
    overhead_s = seconds[1 if jump_at_zero else 0]
    found = [seconds[0], *(max(one, overhead_s) for one in seconds[1:])]
    falling = set(_may_fall(knots))
    for index in range(1, len(found)):
        if index not in falling or found[index - 1] <= found[index - 2]:
            found[index] = max(found[index], found[index - 1])
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
