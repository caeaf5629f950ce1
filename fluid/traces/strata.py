"""From a trace to a workload of a few classes that loads a server like the trace does.

Per request with prompt l and output l', the fluid model needs φ = (1, l, l', l'·(l + (l'−1)/2),
l²): the rate, the token means, the memory sum m (THEORY 2, engine convention) and the quadratic
part of prefill time (THEORY 1.3). The trace is cut into strata of similar lengths, each stratum is
represented by its mean lengths in whole tokens, and the stratum sizes c are changed as little as
possible, min Σ (w − c)²/c over w ≥ 0, so that Σ w·φ equals the sum over the trace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.traces.digest import FIGURES, Digest, moments
from fluid.workload import RequestClass, Workload

TOLERANCE = 0.02
# Weight of the figures against the change of stratum sizes: 1e4 leaves relative errors near 1e-7.
_FIGURES_FIRST = 1e4
_CLASSES_TRIED = 64


def workload_of_digest(
    trace: Digest, name: str, max_classes: int = 24, source: str | None = None
) -> Workload:
    """A workload of at most `max_classes` classes with the trace's `FIGURES` within 2 %.

    Classes are sorted by falling rate and named after their lengths, e.g. ``p374-d44``.

    Raises:
        InputError: `max_classes` is below 1, or the trace has no rate.
        InfeasibleError: That few classes miss a figure by more than 2 %; names the worst one and
            the nearest number of classes that suffices.
    """
    if max_classes < 1:
        raise InputError("max_classes", max_classes, "at least 1 class")
    workload = _summary(trace, name, max_classes, source)
    errors = summary_errors(workload, trace)
    worst = max(errors, key=lambda figure: errors[figure])
    if errors[worst] <= TOLERANCE:
        return workload
    enough = _enough_classes(trace, max_classes)
    raise InfeasibleError(
        f"{max_classes} classes miss the trace's {worst} by {errors[worst]:.1%}"
        f" (at most {TOLERANCE:.0%})",
        worst,
        f"use {enough} classes" if enough else f"more than {_CLASSES_TRIED} classes are needed",
    )


def summary_errors(workload: Workload, trace: Digest) -> dict[str, float]:
    """Relative error of each of `FIGURES` of a workload against a trace."""
    classes = workload.classes
    rates = np.array([one.rate_per_s for one in classes])
    ours = (
        moments([one.prefill_tokens for one in classes], [one.decode_tokens for one in classes]).T
        @ rates
        / np.array([1.0, *[rates.sum()] * 4])
    )
    theirs = trace.means * np.array([trace.rate(), 1.0, 1.0, 1.0, 1.0])
    return dict(zip(FIGURES, np.abs(ours / theirs - 1).tolist(), strict=True))


def _summary(trace: Digest, name: str, max_classes: int, source: str | None) -> Workload:
    counts = trace.sums[:, 0]
    strata = _strata(trace.sums[:, 1:3] / counts[:, None], counts, max_classes)
    sums = np.array([trace.sums[members, :3].sum(axis=0) for members in strata])
    means = np.rint(sums[:, 1:] / sums[:, :1]).astype(int)
    representatives, place = np.unique(means, axis=0, return_inverse=True)
    sizes = np.asarray(np.bincount(place.ravel(), weights=sums[:, 0]), dtype=float)
    totals = trace.sums.sum(axis=0)
    weights = _reweighted(moments(*representatives.T), sizes, totals)
    rates = weights * trace.rate() / totals[0]
    classes = [
        RequestClass(
            name=f"p{prompt}-d{output}",
            rate_per_s=float(f"{rate:.6g}"),
            prefill_tokens=int(prompt),
            decode_tokens=int(output),
        )
        for rate, (prompt, output) in zip(rates, representatives, strict=True)
        if rate > 0
    ]
    classes.sort(key=lambda one: one.rate_per_s, reverse=True)
    return Workload(name=name, classes=tuple(classes), source=source)


def _reweighted(
    moments: NDArray[np.float64], sizes: NDArray[np.float64], totals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weights w ≥ 0 near `sizes` with Σ w·moments = totals, in least squares where impossible.

    Shapes: moments (K, 5), sizes (K,), totals (5,); result (K,), in requests.
    """
    root = np.sqrt(sizes)
    figures = (moments.T * root) / totals[:, None]
    # Unknown v = w/√c: distance rows (v − √c)/√n, figure rows relative to the trace's totals.
    matrix = np.vstack([np.eye(len(sizes)) / root.sum(), _FIGURES_FIRST * figures])
    target = np.concatenate([root / root.sum(), np.full(len(totals), _FIGURES_FIRST)])
    from scipy.optimize import nnls

    solution, _ = nnls(matrix, target)
    return np.asarray(solution * root)


def _strata(
    lengths: NDArray[np.float64], counts: NDArray[np.float64], max_classes: int
) -> list[NDArray[np.int64]]:
    """Cut groups of requests into strata: always the cut that removes most variance within.

    Lengths are scaled by their root mean squares, so that prompts and outputs weigh alike.
    Returns the members of each stratum, as positions in `lengths` (n, 2) and `counts` (n,).
    """
    scaled = lengths / np.sqrt(counts @ lengths**2 / counts.sum())
    strata = [np.arange(len(lengths))]
    cuts = [_best_cut(scaled, counts)]
    while len(strata) < max_classes:
        chosen = int(np.argmax([gain for gain, _ in cuts]))
        gain, upper = cuts[chosen]
        if gain <= 0:
            break
        members = strata[chosen]
        parts = [members[~upper], members[upper]]
        strata[chosen : chosen + 1] = parts
        cuts[chosen : chosen + 1] = [_best_cut(scaled[part], counts[part]) for part in parts]
    return strata


def _best_cut(
    points: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[float, NDArray[np.bool_]]:
    """Largest fall of the summed squared distances to the means, and who lies above the cut."""
    best, best_upper = 0.0, np.zeros(len(points), dtype=bool)
    weighted = points * counts[:, None]
    total, count = weighted.sum(axis=0), counts.sum()
    for axis in range(points.shape[1]):
        order = np.argsort(points[:, axis], kind="stable")
        values = points[order, axis]
        places = np.flatnonzero(np.diff(values) > 0) + 1
        if len(places) == 0:
            continue
        below = np.cumsum(weighted[order], axis=0)[places - 1]
        count_below = np.cumsum(counts[order])[places - 1]
        count_above = np.maximum(count - count_below, 0.0)
        heavy = count_above > 0  # or rounding has lost what lies above
        if not heavy.any():
            continue
        places, below = places[heavy], below[heavy]
        count_below, count_above = count_below[heavy], count_above[heavy]
        shift = below / count_below[:, None] - (total - below) / count_above[:, None]
        gains = count_below * count_above / count * (shift**2).sum(axis=1)
        top = int(np.argmax(gains))
        if gains[top] > best:
            best = float(gains[top])
            best_upper = points[:, axis] >= values[places[top]]
    return best, best_upper


def _enough_classes(trace: Digest, too_few: int) -> int | None:
    for classes in range(too_few + 1, _CLASSES_TRIED + 1):
        errors = summary_errors(_summary(trace, "trial", classes, None), trace)
        if max(errors.values()) <= TOLERANCE:
            return classes
    return None
