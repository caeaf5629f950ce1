"""Flow control (Dong and Cao, arXiv 2604.11001): per-slot activation caps b_k, one per class.

A slot is an iteration. Every resident advances; where memory runs out residents are evicted. Then
up to b_k requests of each class are admitted, class by class, while their prompts fit; the first
that does not fit ends admission. With Σ b_k m_k ≤ C memory never runs out (THEORY 2, 7).
"""

from __future__ import annotations

from validation.policies.wait import class_of, fits, queue_of
from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import admit, advance, advance_all, choose_victim, evict
from validation.simulator.policy import EVICTION_PARAMETERS, Policy

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS = range(3)


@kernel
def form_batch(model, lane, params, thresholds):
    """Advance everybody, evicting where memory runs out; admit up to b_k of each class."""
    scalars = lane.scalars[0]
    need = 0
    for slot in range(scalars.residents):
        need += advance(model, lane.residents[slot])
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        resident = lane.residents[victim]
        need -= resident.held
        queue = class_of(model, lane, resident)
        evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    admit_up_to_caps(model, lane, thresholds, need)


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same while memory suffices."""
    need = advance_all(model, lane)
    if need > model.constants[0].kv_capacity_tokens:
        return False
    admit_up_to_caps(model, lane, thresholds, need)
    lane.scalars[0].undisturbed_tokens = model.constants[0].kv_capacity_tokens
    return True


@inlined
def admit_up_to_caps(model, lane, thresholds, need):
    """Admit class by class beside residents that need so much."""
    for index in range(thresholds.size):
        for _ in range(min(int(thresholds[index]), lane.queues[index].length)):
            if not fits(model, lane, need, index):
                return
            need += admit(model, lane, index)


FLOW_CONTROL = Policy(
    name="flow-control",
    summary="every resident advances; at most b_k admissions of class k per iteration",
    parameters=EVICTION_PARAMETERS,
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
    per_class=True,
)
