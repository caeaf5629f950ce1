"""What a policy of your own is made of (docs/own-policy.md): the kernels that a rule may call.

A rule is a function `form_batch(model, lane, params, thresholds)` under `kernel`, in the subset of
Python that numba compiles; `Policy` gives it a name and its `Parameter`s.
"""

from __future__ import annotations

from validation.policies.greedy import queue_of
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, advance, choose_victim, evict, head_tokens
from validation.simulator.policy import Parameter, Policy

__all__ = [
    "Parameter",
    "Policy",
    "admit",
    "advance",
    "choose_victim",
    "evict",
    "head_tokens",
    "kernel",
    "queue_of",
]
