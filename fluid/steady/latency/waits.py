"""Laws of the time to the end of prefill: the rest of an iteration, then others (THEORY 9.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency.solved import Cdfs
from fluid.steady.latency.walks import blurred

Floats = NDArray[np.float64]

_POINTS = 800


def deposited(rows: int, points: int, row: NDArray[np.intp], value: Floats, mass: Floats) -> Floats:
    """Masses at values on the points 0, 1, …, each split between its two neighbours, per row."""
    place = np.clip(value, 0, points - 2)
    low = place.astype(np.int64)
    share = place - low
    index = (row * points + low).ravel()
    size = rows * points
    found: Floats = np.zeros(size)
    found += np.bincount(index, (mass * (1 - share)).ravel(), size)
    found += np.bincount(index + 1, (mass * share).ravel(), size)
    return found.reshape(rows, points)


def after_uniform(masses: Floats, width: Floats) -> Floats:
    """P(value + U ≤ x) summed over rows, U uniform on (0, width of the row) points; shape (n,)."""
    return np.asarray(blurred(masses, np.maximum(width, 1e-6)))


def whole_prompt_laws(
    seconds: Floats,
    step: Floats,
    palm: Floats,
    means_s: Floats,
    alone_s: Floats,
    idle_share: float,
) -> Cdfs:
    """Rest of the iteration of arrival and the next one, moved to each class's mean.

    Args:
        seconds, step, palm: Nodes, Q, and the law of the node that an arrival sees.
        means_s, alone_s: Mean time of each class, and what it is on an idle server, shape (m,).
    """
    next_law = palm[:, None] * step
    heaviest = int(np.searchsorted(np.cumsum(palm), 1 - 1e-5))
    most_s = max(3 * seconds[min(heaviest, len(seconds) - 1)], 6 * float(means_s.max()))
    dx = most_s / _POINTS
    rows = np.arange(len(seconds))[:, None]
    landed = np.broadcast_to(seconds / dx, step.shape)
    masses = deposited(len(seconds), _POINTS, np.broadcast_to(rows, step.shape), landed, next_law)
    below = after_uniform(masses, seconds / dx)
    points = dx * np.arange(_POINTS)
    return moved_to_means(Cdfs(points, below[None]), means_s, alone_s, idle_share)


def two_iteration_laws(
    seconds: Floats,
    step: Floats,
    palm: Floats,
    added_s: Floats,
    means_s: Floats,
    alone_s: Floats,
    idle_share: float,
) -> Cdfs:
    """The same with the iteration after, in which a request decodes its first token.

    Args:
        added_s: Seconds by which a request of each class prolongs the iteration of its prompt, and
            with it the number of those who come into the next, shape (classes,).
    """
    heaviest = int(np.searchsorted(np.cumsum(palm), 1 - 1e-5))
    most_s = max(4 * seconds[min(heaviest, len(seconds) - 1)], 6 * float(means_s.max()))
    dx = most_s / _POINTS
    next_law = palm[:, None] * step
    rows = np.broadcast_to(np.arange(len(seconds))[:, None], step.shape)
    points = dx * np.arange(_POINTS)
    found = []
    for j, added in enumerate(added_s):
        longer = seconds + added
        low = np.clip(np.searchsorted(seconds, longer) - 1, 0, len(seconds) - 2)
        share = np.clip((longer - seconds[low]) / (seconds[low + 1] - seconds[low]), 0.0, 1.0)
        following = step[low] * (1 - share[:, None]) + step[low + 1] * share[:, None]
        landed = (longer[:, None] + seconds) / dx
        masses = next_law @ deposited(len(seconds), _POINTS, rows, landed, following)
        law = Cdfs(points, after_uniform(masses, seconds / dx)[None])
        one = slice(j, j + 1)
        found.append(moved_to_means(law, means_s[one], alone_s[one], idle_share).below[0])
    return Cdfs(points, np.array(found))


def moved_to_means(laws: Cdfs, means_s: Floats, alone_s: Floats, idle_share: float) -> Cdfs:
    """Each class's law as the shifted (one row for all) law while busy, mixed with idling."""
    points = laws.points_s
    found = []
    for j, (mean_s, alone) in enumerate(zip(means_s, alone_s, strict=True)):
        row = laws.below[min(j, len(laws.below) - 1)]
        has_s = laws.mean_s()[min(j, len(laws.below) - 1)]
        busy_s = (mean_s - idle_share * alone) / (1 - idle_share)
        busy = np.interp(points - (busy_s - has_s), points, row, left=0.0)
        found.append((1 - idle_share) * busy + idle_share * (points >= alone))
    return Cdfs(points, np.array(found))
