"""Loops over the graph of `graph`, compiled.

All kernels read the same two packs:

    arcs = (survival, wait_s, boundary)    p of entering at h2 from h, (m, m); seconds per request
                                           in a queue; KV of one who waits to enter at h, (m,)
    grid = (first, low, high, place, inverse)
                                           first[h] … first[h+1] are the states of length h, which
                                           stand for thresholds low … high; `inverse` holds 1/θ of
                                           each pair of states, from place[h, h2] on, and −1 where
                                           the chain of THEORY 4.3 forbids it

and weights of a path's four resources: seconds of waiting, tokens, seconds of work, KV tokens.
"""

from __future__ import annotations

import heapq
import math

import numpy as np

from fluid.compiled import compiled
from thresholds.solvers.nested.requirement import NEAR, STRICT, TINY

# mypy: disable-error-code="no-untyped-def"


@compiled(error_model="numpy")
def inverse_exponent(ratio, survival):
    """1/θ as in `requirement.boundary_exponent`, for p < r < 1."""
    small = 2 * (ratio - survival) / (survival * (1 - survival))
    if small < NEAR:
        return 1 / (small - (1 - 2 * survival) * small**2 / 3)
    theta = min(-math.log(survival), 2 * (ratio - survival) / survival) / (1 - ratio)
    for _ in range(50):
        decayed = (1 - survival) * math.exp(-theta)
        value = theta * (1 - ratio) + math.log1p((1 - survival) * math.expm1(-theta))
        slope = (1 - ratio) - decayed / (survival + decayed)
        if survival < TINY:
            value = theta * (1 - ratio) + math.log(survival + decayed)
            if theta < -math.log(survival):
                grown = survival * math.expm1(theta)
                value = math.log1p(grown) - theta * ratio
                slope = (survival + grown) / (1 + grown) - ratio
        step = value / slope
        theta -= step
        if abs(step) <= 1e-9 * theta:
            break
    return 1 / theta


@compiled(from_python=False, error_model="numpy")
def largest_ratio(low, high, high2):
    """Above n'/n for whole n in low … high and n' ≤ high2, n' < n."""
    return min(high2 / low, (high - 1.0) / high)


@compiled(error_model="numpy")
def fill_inverse(survival, first, low, high, place, inverse):
    """1/θ of every pair of states into `inverse`, at the ratio where it is least."""
    m = len(first) - 1
    for h in range(m):
        for h2 in range(h + 1, m):
            p, k = survival[h, h2], place[h, h2]
            for s in range(first[h], first[h + 1]):
                for s2 in range(first[h2], first[h2 + 1]):
                    r = largest_ratio(low[s], high[s], high[s2])
                    allowed = r > p and low[s2] <= high[s] - 1
                    inverse[k] = inverse_exponent(r, p) if allowed else -1.0
                    k += 1


@compiled(from_python=False, error_model="numpy")
def boundary_cost(n, n2, ratio, p, wait_s, tokens, log, inverse, weights):
    """What the boundary before n2 adds to a weighted sum: its queue's delay and its KV."""
    seconds = wait_s * ((n2 - 1 + p * n) / 2 + (1 - p) / 2 * p / (ratio - p))
    return weights[0] * seconds + weights[3] * tokens * (n2 + log * inverse)


@compiled(error_model="numpy")
def completions(arcs, grid, spans, weights, log, layers):
    """Least weighted sum from each state to the end, (states, max(layers, 1)).

    Column c: with exactly c + 1 segments; where `layers` is 0 with any number of them.
    """
    survival, wait_s, boundary = arcs
    first, low, high, place, inverse = grid
    m, columns = len(first) - 1, max(layers, 1)
    values = np.full((len(low), columns), np.inf)
    for h in range(m - 1, -1, -1):
        for s in range(first[h], first[h + 1]):
            values[s, 0] = low[s] * spans[h, m - 1]
        for h2 in range(h + 1, m):
            p, k = survival[h, h2], place[h, h2]
            for s in range(first[h], first[h + 1]):
                filled = low[s] * spans[h, h2 - 1]
                for s2 in range(first[h2], first[h2 + 1]):
                    k += 1
                    if inverse[k - 1] < 0:
                        continue
                    r = largest_ratio(low[s], high[s], high[s2])
                    cost = filled + boundary_cost(
                        low[s], low[s2], r, p, wait_s, boundary[h2], log, inverse[k - 1], weights
                    )
                    if layers == 0:
                        values[s, 0] = min(values[s, 0], cost + values[s2, 0])
                    for c in range(1, columns):
                        values[s, c] = min(values[s, c], cost + values[s2, c - 1])
    return values


@compiled(error_model="numpy")
def arrivals(arcs, grid, spans, weights, log, start):
    """Least weighted sum from the start to each state, of any number of segments; (states,).

    `start` is the sum at the states of length 0.
    """
    survival, wait_s, boundary = arcs
    first, low, high, place, inverse = grid
    m = len(first) - 1
    values = np.full(len(low), np.inf)
    values[: first[1]] = start
    for h in range(m):
        for h2 in range(h + 1, m):
            p, k = survival[h, h2], place[h, h2]
            for s in range(first[h], first[h + 1]):
                filled = values[s] + low[s] * spans[h, h2 - 1]
                for s2 in range(first[h2], first[h2 + 1]):
                    k += 1
                    if inverse[k - 1] < 0:
                        continue
                    r = largest_ratio(low[s], high[s], high[s2])
                    cost = boundary_cost(
                        low[s], low[s2], r, p, wait_s, boundary[h2], log, inverse[k - 1], weights
                    )
                    values[s2] = min(values[s2], filled + cost)
    return values


@compiled(error_model="numpy")
def best_path(arcs, grid, spans, weights, log, layers, values, state, column):
    """States of the path behind values[state, column], as an array."""
    survival, wait_s, boundary = arcs
    first, low, high, place, inverse = grid
    m = len(first) - 1
    path = [state]
    h = 0
    while True:
        s = path[-1]
        # The last segment ends the path where nothing that follows is better.
        best = low[s] * spans[h, m - 1] if column == 0 else np.inf
        chosen, at = -1, h
        for h2 in range(h + 1, m if (layers == 0 or column > 0) else 0):
            p = survival[h, h2]
            k = place[h, h2] + (s - first[h]) * (first[h2 + 1] - first[h2])
            for s2 in range(first[h2], first[h2 + 1]):
                k += 1
                if inverse[k - 1] < 0:
                    continue
                r = largest_ratio(low[s], high[s], high[s2])
                cost = low[s] * spans[h, h2 - 1] + boundary_cost(
                    low[s], low[s2], r, p, wait_s, boundary[h2], log, inverse[k - 1], weights
                )
                cost += values[s2, column - 1 if layers else 0]
                if cost < best:
                    best, chosen, at = cost, s2, h2
        if chosen < 0:
            return np.array(path)
        path.append(chosen)
        h = at
        column = column - 1 if layers else 0


@compiled(error_model="numpy")
def token_seconds(tokens, knots, seconds):
    """f as in `fluid.iteration.IterationTime.token_seconds`."""
    if len(knots) == 1:
        return seconds[0]
    right = 1
    while right < len(knots) - 1 and knots[right] < tokens:
        right += 1
    width = knots[right] - knots[right - 1]
    if width <= 0:
        return seconds[right - 1]
    share = (tokens - knots[right - 1]) / width
    return seconds[right - 1] + share * (seconds[right] - seconds[right - 1])


@compiled(from_python=False, error_model="numpy")
def path_value(kind, n, used, rate, first_output, capacity, tau):
    """The objective of a whole path, infinite where a condition fails; `tau` holds f.

    Kinds: 0 a delay, 1 memory, 2 the load.
    """
    time_s = token_seconds(used[1], tau[0], tau[1]) + used[2]
    load = rate * time_s / n
    if kind != 2 and load > 1 - STRICT:
        return np.inf
    if kind == 1:
        return used[3]
    if used[3] > capacity:
        return np.inf
    if kind == 2:
        return load
    collected = (n - 1) / 2 + first_output * n
    return used[0] + time_s + (collected + load / (2 * (1 - load))) / rate


@compiled(error_model="numpy")
def search(
    arcs, index, parts, log, layers, weights, values, starts, scales, proves, goal, target,
    steps,
):  # fmt: skip
    """The best path of exactly `layers` segments below `target`: best first, by several bounds.

    Args:
        index: State of threshold n at length h, −1 where it is ruled out, (m, N + 1).
        parts: The four resources of one unit of n in lengths h … i, (4, m, m).
        weights, values, starts, scales: Of each bound: weights (b, 4), completions (b, states,
            layers), the constant at n_1, (b, N + 1), and the share of the target at n_1, which the
            sum of the three must stay below, (b, N + 1).
        proves: Whether a bound is one on the objective, (b,); the others are on feasibility.
        goal: As `path_value` needs it.
        steps: So many thresholds are tried, some tens of nanoseconds each.

    Returns:
        The target or the value of the best path; its lengths and thresholds; a bound on every path;
        whether the search came to an end. Empty arrays where no path is below the target.
    """
    survival, wait_s, boundary = arcs
    kind, rate, first_output, capacity, tau = goal
    m, bounds = len(boundary), len(weights)
    size = 1024
    node = np.empty((size, 5), dtype=np.int64)  # length, threshold, segments left, n_1, parent
    used = np.empty((size, 4))
    count = 0
    heap = [(0.0, -1)]
    heap.pop()
    best_end, best_value = -1, target
    now, extra = np.empty(4), np.empty(4)
    # The start is a segment that has not been filled: its length and n are chosen by its end.
    for n in range(1, index.shape[1]):
        s = index[0, n]
        if s < 0:
            continue
        least, open_ = -np.inf, True
        for b in range(bounds):
            value = values[b, s, layers - 1] + starts[b, n]
            if value >= best_value * scales[b, n]:
                open_ = False
                break
            if proves[b]:
                least = max(least, value / scales[b, n])
        if open_:
            if count == size:
                node, used, size = _doubled(node, used)
            node[count, 0], node[count, 1], node[count, 2] = 0, n, layers
            node[count, 3], node[count, 4] = n, -1
            used[count] = 0.0
            heapq.heappush(heap, (least, count))
            count += 1
    done = 0
    while len(heap) > 0:
        lowest, one = heap[0]
        if lowest >= best_value:
            break
        if done >= steps:
            return best_value, _traced(node, best_end), lowest, False
        heapq.heappop(heap)
        h, n, left, n1 = node[one, 0], node[one, 1], node[one, 2], node[one, 3]
        if left == 1:
            for x in range(4):
                now[x] = used[one, x] + n * parts[x, h, m - 1]
            value = path_value(kind, n1, now, rate, first_output, capacity, tau)
            if value < best_value:
                best_value, best_end = value, one
            continue
        for h2 in range(h + 1, m - left + 2):
            p, tokens = survival[h, h2], boundary[h2]
            for x in range(4):
                now[x] = used[one, x] + n * parts[x, h, h2 - 1]
            done += n - int(p * n)
            for n2 in range(int(p * n), n):
                s2 = index[h2, n2]
                if s2 < 0 or n2 / n <= p:
                    continue
                r = n2 / n
                extra[:] = now
                extra[0] += wait_s * ((n2 - 1 + p * n) / 2 + (1 - p) / 2 * p / (r - p))
                # What the queue may exceed n2 by comes last, as it is dear: first without it.
                extra[3] += tokens * n2
                open_ = _is_open(
                    extra, weights, values, starts, scales, s2, left - 2, n1, best_value
                )
                if not open_:
                    continue
                extra[3] += tokens * log * inverse_exponent(r, p)
                open_ = _is_open(
                    extra, weights, values, starts, scales, s2, left - 2, n1, best_value
                )
                if not open_:
                    continue
                least = lowest
                for b in range(bounds):
                    if proves[b]:
                        value = values[b, s2, left - 2] + starts[b, n1]
                        for x in range(4):
                            value += weights[b, x] * extra[x]
                        least = max(least, value / scales[b, n1])
                if count == size:
                    node, used, size = _doubled(node, used)
                node[count, 0], node[count, 1], node[count, 2] = h2, n2, left - 1
                node[count, 3], node[count, 4] = n1, one
                used[count] = extra
                heapq.heappush(heap, (least, count))
                count += 1
    return best_value, _traced(node, best_end), best_value, True


@compiled(from_python=False, error_model="numpy")
def _is_open(used, weights, values, starts, scales, state, column, n1, target):
    """Whether no bound excludes that a path through here is below the target."""
    for b in range(len(weights)):
        value = values[b, state, column] + starts[b, n1]
        for x in range(4):
            value += weights[b, x] * used[x]
        if value >= target * scales[b, n1]:
            return False
    return True


@compiled(from_python=False)
def _doubled(node, used):
    size = 2 * len(node)
    more, more_used = np.empty((size, 5), dtype=np.int64), np.empty((size, 4))
    more[: len(node)], more_used[: len(node)] = node, used
    return more, more_used, size


@compiled(from_python=False)
def _traced(node, end):
    """Length and threshold of each segment of the path that ends here, from the first on."""
    count, one = 0, end
    while one >= 0:
        count, one = count + 1, node[one, 4]
    path = np.empty((count, 2), dtype=np.int64)
    one = end
    for k in range(count - 1, -1, -1):
        path[k, 0], path[k, 1] = node[one, 0], node[one, 1]
        one = node[one, 4]
    return path
