"""Knots of f by cross-validation: how much of the staircase in tokens do the rows support?

The time of a batch apart from attention is a staircase in the number of tokens (tiles of matrix
products). Candidates for a knot are the measured token counts, each as a bend or as a jump just
above it. They are added one at a time, always the one that removes most of the squared relative
error that is left (orthogonal least squares; Chen, Billings, Luo 1989), and cross-validation says
how many to keep: the fewest whose held-out error is within one standard error of the best.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from validation.measure.composition import Compositions
from validation.measure.fit import coefficients, design, fold_of, predict

Floats = NDArray[np.float64]

MOST_ADDITIONS = 24
"""Bends and jumps tried at most; the held-out error of the A100 table is flat from 15 on."""

_INDEPENDENT = 1e-7
"""Share of a candidate's squared length that must lie outside what the chosen columns span."""

_PRICE_OF_JUMP = 1.25
"""Ratio of gains at which a jump, with its two coefficients, is preferred to a bend elsewhere."""

_NOTHING = 1e-16
"""Squared relative error per row that is no gain."""


@dataclass(frozen=True)
class Staircase:
    """The search for knots on given batches, with rows weighted by 1/`scale_s`.

    Every f in question is a combination of fixed columns: 1, tokens, and a bend and a jump at each
    inner token count. A step takes the best of them and projects it out of all others, which needs
    their inner products only (a sweep of the Gram matrix), not the rows.

    Attributes:
        scale_s: Times by which rows are divided, shape (N,).
    """

    compositions: Compositions
    scale_s: Floats

    def path(self, seconds: Floats, additions: int) -> list[tuple[float, ...]]:
        """Knots with 0, 1, … additions to (0, largest token count); shorter if none helps.

        Args:
            seconds: Measured times, shape (N,).
        """
        inner, columns = self._inner, self._columns
        gram, moments = self._gram.copy(), columns.T @ (seconds / self.scale_s)
        fixed = columns.shape[1] - 2 * len(inner)
        for index in range(fixed):
            if gram[index, index] > _INDEPENDENT:
                _project_out(gram, moments, index)
        knots = [0.0, float(self.compositions.tokens.max())]
        path = [tuple(knots)]
        for _ in range(additions if len(inner) else 0):
            gains = _gains(gram[fixed:, fixed:], moments[fixed:])
            best = int(gains.argmax())
            if gains[best] <= _NOTHING * len(seconds):
                break
            place, is_jump = float(inner[best % len(inner)]), best >= len(inner)
            # The second knot of a jump lets the slope change as well.
            for index in {fixed + best, fixed + best % len(inner)}:
                if gram[index, index] > _INDEPENDENT:
                    _project_out(gram, moments, index)
            for _ in range((2 if is_jump else 1) - knots.count(place)):
                insort(knots, place)
            path.append(tuple(knots))
        return path

    @cached_property
    def _inner(self) -> Floats:
        """Where a knot may stand: below the least count f would be free to fall to 0."""
        return np.unique(self.compositions.tokens)[1:-1]

    @cached_property
    def _columns(self) -> Floats:
        """What is always there, then a bend at each inner count, then a jump above each; length 1.

        A column that is 0 in every row stays 0.
        """
        tokens = self.compositions.tokens[:, None]
        bends, jumps = np.maximum(tokens - self._inner, 0.0), (tokens > self._inner).astype(float)
        always = design(self.compositions, (0.0, float(tokens.max())))
        columns = np.hstack([always, bends, jumps]) / self.scale_s[:, None]
        lengths = np.linalg.norm(columns, axis=0)
        return np.asarray(columns / np.where(lengths > 0, lengths, 1.0))

    @cached_property
    def _gram(self) -> Floats:
        return np.asarray(self._columns.T @ self._columns)


def choose_additions(
    compositions: Compositions, seconds: Floats, folds: int = 5, seed: int = 0
) -> int:
    """How many bends and jumps cross-validation supports.

    Args:
        seconds: Measured iteration times, shape (N,).
        folds: Parts that take turns at being held out.
        seed: Of the split into folds.
    """
    errors = _held_out_errors(compositions, seconds, folds, seed)
    means = errors.mean(axis=1)
    excess = errors - errors[means.argmin()]
    one_standard_error = excess.std(axis=1) / np.sqrt(len(seconds))
    return int(np.argmax(excess.mean(axis=1) <= one_standard_error))


def choose_knots(
    compositions: Compositions, seconds: Floats, folds: int = 5, seed: int = 0
) -> tuple[float, ...]:
    """Knots of f from 0 to the largest token count, a repeated one being a jump."""
    additions = choose_additions(compositions, seconds, folds, seed)
    return Staircase(compositions, seconds).path(seconds, additions)[-1]


def _gains(gram: Floats, moments: Floats) -> Floats:
    """Squared error that each bend and each jump would remove, shape (2·m,).

    A jump comes with the bend at its place, and must be that much better (`_PRICE_OF_JUMP`).

    Args:
        gram: Inner products of what is left of m bends and then m jumps, shape (2·m, 2·m).
        moments: Their products with what is left of the target, shape (2·m,).
    """
    half = len(moments) // 2
    bend, jump = np.split(np.diag(gram), [half])
    both = np.diagonal(gram, offset=half)
    to_bend, to_jump = np.split(moments, [half])
    bent = bend > _INDEPENDENT
    bend_gain = np.where(bent, np.square(to_bend) / np.maximum(bend, _INDEPENDENT), 0.0)
    # The jump after its bend: Schur complement.
    share = np.where(bent, both / np.maximum(bend, _INDEPENDENT), 0.0)
    left = jump - share * both
    rest = np.square(to_jump - share * to_bend) / np.maximum(left, _INDEPENDENT)
    jump_gain = np.where(left > _INDEPENDENT, (bend_gain + rest) / _PRICE_OF_JUMP, 0.0)
    return np.concatenate([bend_gain, jump_gain])


def _project_out(gram: Floats, moments: Floats, index: int) -> None:
    """Free all columns, and what is left of the target, of column `index` (in place)."""
    share = gram[:, index] / gram[index, index]
    moments -= share * moments[index]
    gram -= share[:, None] * gram[index].copy()


def _held_out_errors(compositions: Compositions, seconds: Floats, folds: int, seed: int) -> Floats:
    """|relative error| of each row when held out, by number of additions: (additions + 1, N)."""
    fold = fold_of(len(seconds), folds, seed)
    most = min(MOST_ADDITIONS, len(seconds) // 4)
    errors = np.empty((most + 1, len(seconds)))
    for part in range(folds):
        held, kept = fold == part, fold != part
        rest, rest_s = compositions.take(kept), seconds[kept]
        path = Staircase(rest, rest_s).path(rest_s, most)
        path += path[-1:] * (most + 1 - len(path))
        for size, knots in enumerate(path):
            weights = coefficients(rest, rest_s, knots)
            predicted = predict(compositions.take(held), weights, knots)
            errors[size, held] = np.abs(predicted / seconds[held] - 1)
    return errors
