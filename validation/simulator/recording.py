"""What is kept of requests and their tokens: sums and log-spaced histograms, in constant memory."""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.state import HISTOGRAM_BINS, HISTOGRAM_LOWEST_S, HISTOGRAM_RATIO
from validation.simulator.traffic.ends import record_met
from validation.simulator.window import in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

LATENCY, TTFT, TPOT, GAP = range(4)

_LOG_LOWEST, _BINS_PER_LOG = math.log(HISTOGRAM_LOWEST_S), 1.0 / math.log(HISTOGRAM_RATIO)
_EDGE = 1e-9
"""Share of a bin's edge within which rounding could say another bin."""


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
    met = (
        ttft_s <= shape.ttft_limit_s
        and tpot_s <= shape.tpot_limit_s
        and latency_s <= shape.latency_limit_s
    )
    record_met(model, lane, index, 1.0 if met else 0.0)


@inlined
def record(lane, report_class, metric, seconds):
    """One more value of LATENCY, TTFT or TPOT."""
    lane.sums[report_class, metric, 0] += 1.0
    lane.sums[report_class, metric, 1] += seconds
    lane.sums[report_class, metric, 2] += seconds * seconds
    lane.histogram[report_class, metric, _bin_of(seconds)] += 1


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
    if not scalars.gap_bin_low_s <= seconds <= scalars.gap_bin_high_s:
        remember_bin(scalars, seconds)
    lane.histogram[0, GAP, scalars.gap_bin] += count


@kernel
def remember_bin(scalars, seconds):
    """Neighbouring iterations take about as long, which spares them a logarithm each."""
    scalars.gap_bin = _bin_of(seconds)
    low_s = HISTOGRAM_LOWEST_S * HISTOGRAM_RATIO**scalars.gap_bin
    scalars.gap_bin_low_s = low_s * (1.0 + _EDGE)
    scalars.gap_bin_high_s = low_s * HISTOGRAM_RATIO * (1.0 - _EDGE)


@kernel
def _bin_of(seconds):
    index = 0
    if seconds > HISTOGRAM_LOWEST_S:
        index = int((math.log(seconds) - _LOG_LOWEST) * _BINS_PER_LOG)
    return min(index, HISTOGRAM_BINS - 1)
