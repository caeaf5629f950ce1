"""How a request ends, whether answered, refused or given up: what all of them have in common."""

from __future__ import annotations

from validation.simulator.compiling import inlined, kernel
from validation.simulator.traffic.clients import send_next
from validation.simulator.window import in_cohort

# mypy: disable-error-code="no-untyped-def"

MET = 3
"""Row of `Lane.sums` that counts requests with limits, and of these those that met them all."""


@inlined
def end_request(model, lane, index, ended_at_s):
    """Count a request that was in the system as gone, and let its client go on."""
    scalars = lane.scalars[0]
    arrived_at_s = lane.requests[index].arrived_at_s
    scalars.sojourn_s += ended_at_s - arrived_at_s
    scalars.arrivals_present_s -= arrived_at_s
    scalars.last_completion = scalars.iterations
    _leave(model, lane, index, ended_at_s)


@kernel
def refuse(model, lane, index):
    """Turn a request away that arrives now."""
    scalars = lane.scalars[0]
    arrived_at_s = lane.requests[index].arrived_at_s
    lane.clients[index].left_at_s = arrived_at_s
    if in_cohort(scalars, index):
        if model.shapes[lane.requests[index].shape].too_long:
            scalars.too_long += 1
        else:
            scalars.refused += 1
    record_met(model, lane, index, 0.0)
    _leave(model, lane, index, arrived_at_s)


@inlined
def _leave(model, lane, index, at_s):
    scalars = lane.scalars[0]
    if in_cohort(scalars, index):
        scalars.cohort_left -= 1
    if lane.clients.size > 0:
        send_next(model, lane, index, at_s)


@inlined
def record_met(model, lane, index, met):
    """Count whether a request of the cohort met all limits of its class, if it has any."""
    shape = model.shapes[lane.requests[index].shape]
    if shape.limited and in_cohort(lane.scalars[0], index):
        lane.sums[shape.report_class, MET, 0] += 1.0
        lane.sums[shape.report_class, MET, 1] += met
        lane.sums[shape.report_class, MET, 2] += met
