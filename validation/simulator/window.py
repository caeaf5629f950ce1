"""The measured window: between two shares of the arrivals, or the whole of a finite job."""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel

# mypy: disable-error-code="no-untyped-def"

WINDOW_START, WINDOW_END = 0.2, 0.8
"""Rates, verdict and latencies are measured between these shares of the arrivals."""


@kernel
def set_window(model, lane):
    """Say which requests are measured, and between what times where these are known."""
    scalars = lane.scalars[0]
    constants = model.constants[0]
    requests = lane.requests.size
    scalars.cohort_start, scalars.cohort_end = 0, requests
    scalars.window_start_s, scalars.window_end_s = math.inf, math.inf
    if constants.whole_run:
        scalars.window_start_s = lane.requests[0].arrived_at_s
    else:
        scalars.cohort_start = int(WINDOW_START * requests)
        scalars.cohort_end = max(int(WINDOW_END * requests), scalars.cohort_start + 1)
        if constants.clients == 0 and not constants.conversations:
            last = min(scalars.cohort_end, requests - 1)
            scalars.window_start_s = lane.requests[scalars.cohort_start].arrived_at_s
            scalars.window_end_s = lane.requests[last].arrived_at_s
    scalars.cohort_left = scalars.cohort_end - scalars.cohort_start


@inlined
def mark_window(model, lane, index):
    """Where times of arrival are not known before, it begins and ends as a request joins."""
    scalars = lane.scalars[0]
    constants = model.constants[0]
    if (constants.clients == 0 and not constants.conversations) or constants.whole_run:
        return
    if index == scalars.cohort_start:
        scalars.window_start_s = scalars.clock_s
    if index == min(scalars.cohort_end, lane.requests.size - 1):
        scalars.window_end_s = scalars.clock_s


@inlined
def is_measuring(model, scalars):
    """Whether a run goes on: until the window is over and all that arrived in it have ended."""
    whole = model.constants[0].whole_run
    return scalars.cohort_left > 0 or (not whole and scalars.clock_s < scalars.window_end_s)


@inlined
def in_window(scalars):
    """Whether the clock stands in the measured window."""
    return scalars.window_start_s < scalars.clock_s <= scalars.window_end_s


@inlined
def in_cohort(scalars, index):
    """Whether a request is one of those that are measured."""
    return scalars.cohort_start <= index < scalars.cohort_end
