"""Schedulers by name, as far as the latency laws know them."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from fluid.errors import InputError, not_a_name
from fluid.server import Server
from fluid.steady.latency.rule import BatchRule

SCHEDULERS: dict[str, Callable[..., BatchRule]] = {
    "greedy": BatchRule.greedy,
    "vllm-v1": BatchRule.vllm_v1,
    "sarathi": BatchRule.sarathi,
}
"""Names and parameters are those of the policies that simulate them."""

DEFAULT_SCHEDULER = "greedy"
"""Of a server whose file names no engine: whole prompts as soon as they fit."""

_OF_ENGINE = {"vllm": "vllm-v1", "trtllm": "vllm-v1", "sglang": "greedy"}
"""The law that is nearest to an engine's own rule; SGLang's, prompts alone, has none."""

_LIMITS = {
    "greedy": {"cap": "max_num_seqs"},
    "vllm-v1": {
        "max_num_batched_tokens": "max_num_batched_tokens",
        "max_num_seqs": "max_num_seqs",
    },
    "sarathi": {"cap": "max_num_seqs"},
}
"""Parameters whose default is a field of the server, where it has it."""

_WHOLE = ("max_num_batched_tokens", "max_num_seqs", "chunk", "cap")


def default_scheduler(server: Server) -> str:
    """Whose latencies are predicted unless another is asked for: the engine's of the server.

    >>> import fluidwait as fw
    >>> from fluid.steady.latency.scheduler import default_scheduler
    >>> default_scheduler(fw.Server.named("paper-lmsys"))
    'greedy'
    """
    return DEFAULT_SCHEDULER if server.engine is None else _OF_ENGINE[server.engine]


def batch_rule(text: str, server: Server | None = None) -> BatchRule:
    """Read ``NAME[:key=value,…]``: ``greedy:watermark=0.01``, ``vllm-v1:max_num_seqs=64``.

    Args:
        server: Whose limits are the defaults; None for the scheduler's own.

    Raises:
        InputError: A scheduler that no law describes (lists those that one does), a parameter that
            it does not have, or a value out of range.

    >>> from fluid.steady.latency.scheduler import batch_rule
    >>> batch_rule("vllm-v1:max_num_seqs=64").seats
    64
    """
    name, _, rest = text.partition(":")
    if name not in SCHEDULERS:
        raise not_a_name("scheduler", name, SCHEDULERS)
    make = SCHEDULERS[name]
    known = list(inspect.signature(make).parameters)
    values: dict[str, float] = {}
    for key, field in _LIMITS[name].items():
        limit = None if server is None else getattr(server, field)
        if limit is not None:
            values[key] = limit
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in known:
            raise InputError("scheduler", f"{name}:{part}", f"{', '.join(known)} as key=value")
        values[key] = _number(f"{name}:{part}", key, value)
    try:
        return make(**values)
    except InputError as error:
        raise InputError("scheduler", text, f"{error.field} {error.allowed}") from None


def rule_for(text: str, server: Server) -> BatchRule:
    """The same, on a server where the scheduler can run.

    Raises:
        InputError: As `batch_rule`, or chunks of prompts where prefill emits no token.
    """
    rule = batch_rule(text, server)
    try:
        rule.require_suits(server)
    except InputError:
        allowed = f'greedy, as first_token of server {server.name} is not "prefill"'
        raise InputError("scheduler", text, allowed) from None
    return rule


def _number(part: str, key: str, value: str) -> float:
    try:
        return int(value) if key in _WHOLE else float(value)
    except ValueError:
        kind = "whole number" if key in _WHOLE else "number"
        raise InputError("scheduler", part, f"{key} as a {kind}") from None
