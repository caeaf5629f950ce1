"""vllm-v1: its parameters, and who goes first and who has to go, with priorities and without.

By priority (`victim=latest-arrival`) the victim is the least urgent of running: of the largest
priority, then the latest arrival, and of those that arrived together the *first* in running. It
waits in its place by priority, time of arrival and number. Classes with priorities of their own
have a queue each, so that its head is the most urgent of it.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import evict
from validation.simulator.policy import RECOMPUTE_PARAMETERS, Parameter

# mypy: disable-error-code="no-untyped-def"

BUDGET, SEQUENCES, WATERMARK, RESERVE, CAP, PACE, VICTIM, REQUEUE, PROGRESS, ASYNC = range(10)
ACTIVE, LONG_PREFILL, CACHING = range(10, 13)

PARAMETERS = (
    Parameter(
        "max_num_batched_tokens",
        2048,
        1,
        1e9,
        "tokens computed per iteration",
        limit="vllm_batched_tokens",
    ),
    Parameter("max_num_seqs", 256, 1, math.inf, "most running requests", limit="vllm_seqs"),
    Parameter("watermark", 0.0, 0.0, 0.99, "share of memory kept free at admission"),
    Parameter("reserve_full_prompt", 1, 0, 1, "1: the whole sequence must fit, 0: its chunk"),
    Parameter("cap", math.inf, 1, math.inf, "most running requests, beside max_num_seqs"),
    Parameter("pace", math.inf, 0.0, math.inf, "first admissions per iteration"),
    *RECOMPUTE_PARAMETERS,
    Parameter("async_scheduling", 0, 0, 1, "1: a step is scheduled while the one before runs"),
    Parameter("max_num_active_seqs", math.inf, 1, math.inf, "as cap, by vLLM's name"),
    Parameter(
        "long_prefill_token_threshold",
        0,
        0,
        1e9,
        "most tokens of a request and iteration while there are others; 0: no such limit",
    ),
    Parameter("prefix_caching", 0, 0, 1, "1: blocks keep what they hold, and are found again"),
)
"""Of vllm-v1, in the order of the positions above."""


@inlined
def earn_credit(lane, params):
    """What an iteration with somebody in the system earns of admissions; returns what was there.

    Where the batch turns out empty there is no iteration, and nothing is earned.
    """
    scalars = lane.scalars[0]
    before = scalars.credit
    if scalars.waiting + scalars.residents > 0:
        scalars.credit = min(before + params[PACE], 1.0 + params[PACE])
    return before


@kernel
def seats_of(params):
    """Requests that may run at once."""
    return min(params[SEQUENCES], params[CAP], params[ACTIVE])


@kernel
def chunk_limit(lane, params):
    """Tokens that a request may compute in this step, beside the budget."""
    scalars = lane.scalars[0]
    if params[LONG_PREFILL] > 0.0 and scalars.residents + scalars.waiting > 1:
        return int(params[LONG_PREFILL])
    return 1 << 40


@kernel
def next_queue(lane, priorities):
    """The queue whose head goes first: the only one, or that of the most urgent head."""
    best = 0
    for queue in range(1, priorities.size):
        if lane.queues[queue].length == 0:
            continue
        ahead = priorities[queue] - priorities[best]
        if ahead == 0.0:
            ahead = float(lane.queues[queue].head - lane.queues[best].head)
        if lane.queues[best].length == 0 or ahead < 0.0:
            best = queue
    return best


@kernel
def victim_of(model, lane, by_priority, priorities):
    """Slot to preempt: the last of running, or the first of its least urgent."""
    last = lane.scalars[0].residents - 1
    if by_priority == 0.0:
        return last
    victim = 0
    for slot in range(1, last + 1):
        later = _priority(model, lane, slot, priorities) - _priority(
            model, lane, victim, priorities
        )
        if later == 0.0:
            later = _arrived_at_s(lane, slot) - _arrived_at_s(lane, victim)
        if later > 0.0:
            victim = slot
    return victim


@kernel
def preempt(model, lane, slot, params, priorities):
    """Drop a resident's KV; by priority it waits in its place."""
    resident = lane.residents[slot]
    ends = resident.left == 0
    queue = 0
    if priorities.size > 0:
        queue = model.shapes[lane.requests[resident.request].shape].report_class
    evict(model, lane, slot, queue, params[REQUEUE], params[PROGRESS])
    if params[VICTIM] != 0.0 and params[REQUEUE] == 0.0 and not ends:
        _sink(lane, queue)


@kernel
def _priority(model, lane, slot, priorities):
    """The smaller, the later it is preempted."""
    if priorities.size == 0:
        return 0.0
    request = lane.requests[lane.residents[slot].request]
    return priorities[model.shapes[request.shape].report_class]


@kernel
def _arrived_at_s(lane, slot):
    return lane.requests[lane.residents[slot].request].arrived_at_s


@kernel
def _sink(lane, queue_index):
    """Let the head of a queue pass those that came before it."""
    queue = lane.queues[queue_index]
    head = queue.head
    before, after = -1, lane.requests[head].next
    while after >= 0 and after < head:
        before, after = after, lane.requests[after].next
    if before < 0:
        return
    queue.head = lane.requests[head].next
    lane.requests[head].next = after
    lane.requests[before].next = head
    if after < 0:
        queue.tail = head
