"""What is kept of requests and their tokens: sums and log-spaced histograms, in constant memory."""

from __future__ import annotations

import math

import numpy as np

from validation.simulator.compiling import called_kernel, inlined, kernel
from validation.simulator.state import HISTOGRAM_BINS, HISTOGRAM_LOWEST_S, HISTOGRAM_RATIO
from validation.simulator.traffic.ends import record_met
from validation.simulator.window import in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

LATENCY, TTFT, TPOT, GAP = range(4)

_EDGES_S = HISTOGRAM_LOWEST_S * HISTOGRAM_RATIO ** np.arange(HISTOGRAM_BINS + 1)
"""Of the bins; what lies below all of them counts as in the first, above as in the last."""
_EDGES_S[0], _EDGES_S[-1] = 0.0, math.inf

_CELL_SHIFT = np.int64(46)
_FIRST_CELL, _LAST_CELL = (int(one) for one in _EDGES_S[[1, -2]].view(np.int64) >> _CELL_SHIFT)
_CELLS_S = (np.arange(_FIRST_CELL, _LAST_CELL + 1) << _CELL_SHIFT).view(np.float64)
"""Where cells begin: numbers that share exponent and first six bits of the mantissa.

A cell is a sixty-fourth of an octave or less, narrower than a bin: it lies in one, or in two.
"""

_BIN_OF_CELL = (_EDGES_S[1:-1] <= _CELLS_S[:, None]).sum(axis=1).astype(np.uint16)
"""The first bin of each cell."""


@inlined
def measure(model, lane, index):
    """Record latency, TTFT and TPOT of a request that has just completed, and its limits."""
    request = lane.requests[index]
    shape = model.shapes[request.shape]
    latency_s = request.completed_at_s - request.arrived_at_s
    ttft_s = request.first_token_at_s - request.arrived_at_s
    tpot_s = 0.0
    record(lane, shape.report_class, LATENCY, latency_s)
    record(lane, shape.report_class, TTFT, ttft_s)
    if shape.output_tokens > 1:
        decoding_s = request.completed_at_s - request.first_token_at_s
        tpot_s = decoding_s / (shape.output_tokens - 1)
        record(lane, shape.report_class, TPOT, tpot_s)
    record_met(
        model,
        lane,
        index,
        ttft_s <= shape.ttft_limit_s,
        tpot_s <= shape.tpot_limit_s,
        latency_s <= shape.latency_limit_s,
    )


@inlined
def record(lane, report_class, metric, seconds):
    """One more value of LATENCY, TTFT or TPOT."""
    lane.sums[report_class, metric, 0] += 1.0
    lane.sums[report_class, metric, 1] += seconds
    lane.sums[report_class, metric, 2] += seconds * seconds
    lane.histogram[report_class, metric, bin_of(seconds)] += 1


@inlined
def record_gaps(lane, seconds, count):
    """So many requests get an output token this long after the one before it."""
    if in_window(lane.scalars[0]):
        count_gaps(lane, seconds, count)


@inlined
def count_gaps(lane, seconds, count):
    """The same, known to be in the window."""
    scalars = lane.scalars[0]
    scalars.gap_sum_s += seconds * count
    scalars.gap_max_s = max(scalars.gap_max_s, seconds)
    if not scalars.gap_bin_low_s <= seconds < scalars.gap_bin_high_s:
        remember_bin(scalars, seconds)
    lane.histogram[0, GAP, scalars.gap_bin] += count


@kernel
def remember_bin(scalars, seconds):
    """Neighbouring iterations take about as long, which spares them a look-up each."""
    scalars.gap_bin = bin_of(seconds)
    edges_s = _EDGES_S  # A device has a copy for each place that names it.
    scalars.gap_bin_low_s = edges_s[scalars.gap_bin]
    scalars.gap_bin_high_s = edges_s[scalars.gap_bin + 1]


@inlined
def bin_of(seconds):
    """Bin in which a value falls: by table, sooner than by a logarithm and exactly."""
    cell = (np.float64(seconds).view(np.int64) >> _CELL_SHIFT) - _FIRST_CELL
    lower = _BIN_OF_CELL[min(max(cell, 0), _BIN_OF_CELL.size - 1)]
    return lower + 1 if seconds >= _EDGES_S[lower + 1] else lower


@called_kernel
def find_quantiles(histogram, quantiles, bins):
    """Set `bins` to those in which the quantiles of each class fall, and then those of all.

    Shapes (classes, metrics, bins), (quantiles,), ascending, and (classes + 1, metrics, quantiles).
    What has no counts stays as it is.
    """
    classes = histogram.shape[0]
    for row in range(classes + 1):
        first, end = (row, row + 1) if row < classes else (0, classes)
        for metric in range(histogram.shape[1]):
            total = histogram[first:end, metric].sum()
            passed, index = 0, -1
            for number in range(quantiles.size if total > 0 else 0):
                while passed < math.ceil(quantiles[number] * total):
                    index += 1
                    for one in range(first, end):
                        passed += histogram[one, metric, index]
                bins[row, metric, number] = index
