"""What a policy of your own is made of (docs/own-policy.md).

A rule is a function `form_batch(model, lane, params, thresholds)` under `kernel`, in which the
functions below evict, admit and advance; `Policy` names it and its `Parameter`s.

>>> import fluidwait as fw
>>> kit = fw.policy_kit
>>> @kit.kernel
... def one_at_a_time(model, lane, params, thresholds):
...     scalars = lane.scalars[0]
...     for slot in range(scalars.residents):
...         kit.advance(model, lane.residents[slot])
...     if scalars.residents == 0 and scalars.waiting > 0:
...         kit.admit(model, lane, 0)
>>> kit.Policy("one-at-a-time", "no batches", (), one_at_a_time, kit.queue_of).configure().label
'one-at-a-time'
"""

from validation.policies.greedy import queue_of
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import active_slot, parked_need
from validation.simulator.engine import (
    admit,
    advance,
    advance_all,
    choose_victim,
    evict,
    head_tokens,
)
from validation.simulator.kv import block_rounded
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

__all__ = ["EVICTION_PARAMETERS", "Parameter", "Policy", "active_slot", "admit", "advance"]
__all__ += ["advance_all", "block_rounded", "choose_victim", "evict", "head_tokens", "inlined"]
__all__ += ["kernel", "parked_need", "queue_of"]
