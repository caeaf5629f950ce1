"""Service levels as promises: whose requests, which limits, and the least that a server can do.

A promise with a quantile q is kept where at least a share q of its requests meets all of its
limits; one on means where each mean is within its limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.workload import RequestClass, Slo, Workload

WORDS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "latency_s": "latency"}
"""What the limits are called in tables."""

TOGETHER = "all"
"""Name of the promise of a workload's own service levels."""


@dataclass(frozen=True)
class Promise:
    """What is promised to the requests of one class, or of all that share a workload's levels.

    Attributes:
        name: Of the class; `TOGETHER` for several.
        classes: Their positions in the workload.
    """

    name: str
    classes: tuple[int, ...]
    slo: Slo


def promises(workload: Workload) -> tuple[Promise, ...]:
    """All promises of a workload: one for each class with levels, one for all others together.

    >>> import fluidwait as fw
    >>> from fluid.service_levels import promises
    >>> slo = fw.Slo(ttft_s=1.0)
    >>> load = fw.Workload.of(a=fw.Requests(1.0, 64, 20, slo=slo), b=fw.Requests(1.0, 64, 20))
    >>> [(one.name, one.classes) for one in promises(load)]
    [('a', (0,))]
    """
    found = [
        Promise(one.name, (index,), one.slo)
        for index, one in enumerate(workload.classes)
        if one.slo is not None and one.slo.limits_s
    ]
    if workload.slo is not None and workload.slo.limits_s:
        others = tuple(index for index, one in enumerate(workload.classes) if one.slo is None)
        name = workload.classes[0].name if len(workload.classes) == 1 else TOGETHER
        if others:
            found.append(Promise(name, others, workload.slo))
    return tuple(found)


def required_promises(workload: Workload) -> tuple[Promise, ...]:
    """The same.

    Raises:
        InputError: There are none.
    """
    found = promises(workload)
    if not found:
        allowed = "limits of a class or of the workload, as slo: {ttft_s: 1.0, tpot_s: 0.05}"
        raise InputError("slo", None, allowed)
    return found


def least_s(one: RequestClass, server: Server) -> dict[str, float]:
    """The least TTFT, TPOT and latency that a request of a class can have, alone on the server.

    Its prompt is one iteration, and every output another one: chunks, and others beside it, only
    add to that. No TPOT where it has one output.

    >>> import fluidwait as fw
    >>> from fluid.service_levels import least_s
    >>> chat = fw.Requests(1.0, prompt=512, output=120).named("chat")
    >>> round(least_s(chat, fw.Server.named("engine-long-decode"))["ttft_s"], 4)
    0.0336
    """
    tau = server.iteration_time
    prompt, outputs = one.prefill_tokens, one.decode_tokens
    first_s = 0.0
    if prompt:
        first_s = float(tau(prompt, prefill_tokens=prompt, prefill_tokens_sq=prompt**2))
    emitted = int(prompt > 0 and server.first_token == "prefill")
    read = prompt + one.context_tokens + np.arange(outputs - emitted) + 1
    each_s = tau(1, kv_tokens=read, decode_requests=1)
    ttft_s = first_s if emitted else first_s + float(each_s[0])
    found = {"ttft_s": ttft_s, "latency_s": first_s + float(each_s.sum())}
    if outputs > 1:
        found["tpot_s"] = (found["latency_s"] - ttft_s) / (outputs - 1)
    return found


def require_possible(workload: Workload, server: Server) -> None:
    """Refuse limits that no scheduler can keep on an empty server.

    Raises:
        InfeasibleError: Naming class and limit, and the least that is possible.
    """
    for promise in promises(workload):
        for index in promise.classes:
            least = least_s(workload.classes[index], server)
            for name, limit_s in promise.slo.limits_s.items():
                if name in least and limit_s < least[name] and len(promise.classes) == 1:
                    raise InfeasibleError(
                        f"{WORDS[name]} of {promise.name} within {limit_s:g} s on {server.name}",
                        "iteration time",
                        f"the least possible is {least[name]:.4g} s, alone on the server",
                    )
