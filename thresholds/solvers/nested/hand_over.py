"""Nested WAIT from one window of a schedule to the next: what holds in between (THEORY 5.1).

A hand-over travels with the requests: n_1 changes with the clock, and the threshold of segment k
when the first batch that a new n_{k−1} has formed is about to reach it. Every run of segment k − 1
then passes on at most Binomial(n_{k−1}, sup p_k) to a queue that loses n_k of the same window, the
supremum over all windows, as whoever waits may have arrived in any: Theorem 2 holds with the least
θ_k of the windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from fluid.server import Server
from thresholds.fields import Condition, TableFields
from thresholds.solvers.certificate import condition
from thresholds.solvers.nested.requirement import boundary_exponent, log_term, ratios
from thresholds.solvers.nested.segments import Floats, Segments, distinct_lengths


def memory_over_windows(server: Server, tables: Sequence[TableFields]) -> Condition | None:
    """M(max n) + buffers ≤ C, the least θ_k of all windows in the buffers.

    Instead p_k < n_k/n_{k−1} at all times where that fails. None where the windows cut differently,
    or where a table has no overflow probability.
    """
    pairs = _windows(server, tables)
    chances = [one.memory.overflow_probability for one in tables]
    chance = min((one for one in chances if one is not None), default=None)
    if pairs is None or chance is None or None in chances:
        return None
    most = np.max([n for n, _ in pairs], axis=0)
    held = float(most @ np.max([one.memory_tokens for _, one in pairs], axis=0))
    horizon_s = tables[0].memory.horizon_s
    if len(most) > 1 and horizon_s is not None:
        survivals = np.max([one.survivals for _, one in pairs], axis=0)
        least = np.min([ratios(n) for n, _ in pairs], axis=0)
        if not (survivals < least).all():
            k = int((least - survivals).argmin())
            text = f"boundary {k + 2} at all times: p_k < n_k/n_k−1"
            return condition(text, float(survivals[k]), float(least[k]), strict=True)
        tokens = np.max([one.boundary_tokens for _, one in pairs], axis=0)
        log = log_term(len(most), horizon_s, server.iteration_time.overhead_s, chance)
        held += float(
            most[1:] @ tokens + log * (tokens / boundary_exponent(least, survivals)).sum()
        )
    text = "memory over all hand-overs: M(max n) + buffers ≤ C"
    return condition(text, held, server.usable_kv_tokens)


def arrivals_over_windows(
    server: Server, tables: Sequence[TableFields], is_periodic: bool
) -> Condition | None:
    """A(t, ΔT) < n_1 in iterations that begin before a hand-over or serve residents from before.

    None where the windows cut differently.
    """
    pairs = _windows(server, tables)
    if pairs is None or len(pairs) == 1:
        return None
    following = [*itertools.pairwise(pairs), *([(pairs[-1], pairs[0])] if is_periodic else [])]
    worst = max(load for before, after in following for load in _loads(before, after))
    text = "arrivals over all hand-overs: A(t, ΔT) < n_1"
    return condition(text, worst, 1.0, strict=True)


def _loads(before: tuple[Floats, Segments], after: tuple[Floats, Segments]) -> Iterator[float]:
    """Arrivals ÷ n_1 of an iteration that the hand-over falls into, and of one with both tables."""
    (old, first), (new, second) = before, after
    rate = max(float(first.rates_per_s[0]), float(second.rates_per_s[0]))
    mixed = np.maximum(old, new)
    mixed[0] = new[0]
    for n, arriving in ((old, rate), (mixed, float(second.rates_per_s[0]))):
        seconds = max(float(one.iteration_time_s(n)) for one in (first, second))
        yield arriving * seconds / float(n[0])


def _windows(server: Server, tables: Sequence[TableFields]) -> list[tuple[Floats, Segments]] | None:
    """Thresholds and segments of each window; None where they are not cut at the same lengths."""
    cuts = [one.up_to_tokens for one in tables[0].thresholds]
    found = []
    for table in tables:
        lengths = distinct_lengths(table.workload, server)
        ends = np.searchsorted(lengths.outputs, np.array(cuts, dtype=np.int64))
        if [one.up_to_tokens for one in table.thresholds] != cuts or ends[-1] >= len(
            lengths.outputs
        ):
            return None
        segments = lengths.segments(ends)
        if segments.cuts.tolist() != cuts:
            return None
        found.append((np.array([float(one.threshold) for one in table.thresholds]), segments))
    return found
