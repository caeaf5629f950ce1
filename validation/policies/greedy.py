"""Greedy: every resident advances; admit in order of arrival while the prompt fits.

Parameters turn it into the practical forms of WAIT: `cap` bounds the residents, `pace` limits
admissions by the credit counter of THEORY 3.5, `watermark` keeps a share of memory free.
Under the paper's eviction rule the last admitted goes first, loses all progress and returns to
the front of the queue.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import (
    admit,
    advance,
    advance_all,
    choose_victim,
    evict,
    head_tokens,
)
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

WATERMARK, CAP, PACE, VICTIM, REQUEUE, PROGRESS = range(6)


@inlined
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def form_batch(model, lane, params, thresholds):
    """Grow the residents, evicting where memory runs out; then admit in order."""
    scalars = lane.scalars[0]
    capacity = model.constants[0].kv_capacity_tokens
    need = 0
    for slot in range(scalars.residents):
        need += advance(model, lane.residents[slot])
    while need > capacity:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    admit_in_order(model, lane, params, need)


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same while memory suffices."""
    need = advance_all(model, lane)
    if need > model.constants[0].kv_capacity_tokens:
        return False
    admit_in_order(model, lane, params, need)
    if lane.scalars[0].credit >= 1.0 + params[PACE]:
        lane.scalars[0].undisturbed_tokens = model.constants[0].kv_capacity_tokens
    return True


@inlined
def admit_in_order(model, lane, params, need):
    """Admit beside residents that need so much, while cap, credit and memory last."""
    scalars = lane.scalars[0]
    if scalars.waiting + scalars.residents > 0:
        scalars.credit = min(scalars.credit + params[PACE], 1.0 + params[PACE])
    limit = model.constants[0].kv_capacity_tokens * (1.0 - params[WATERMARK])
    while scalars.waiting > 0 and scalars.residents < params[CAP]:
        if scalars.residents > 0 and (
            scalars.credit < 1.0 or need + head_tokens(model, lane, 0) > limit
        ):
            break
        need += admit(model, lane, 0)
        scalars.credit = max(scalars.credit - 1.0, 0.0)


GREEDY = Policy(
    name="greedy",
    summary="admit in order while the prompt fits; cap, pace and watermark restrain it",
    parameters=(
        Parameter("watermark", 0.0, 0.0, 0.99, "share of memory kept free at admission"),
        Parameter("cap", math.inf, 1, math.inf, "most residents", limit="max_num_seqs"),
        Parameter("pace", math.inf, 0.0, math.inf, "admissions per iteration"),
        *EVICTION_PARAMETERS,
    ),
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
)
