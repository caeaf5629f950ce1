"""Workloads and servers from the few figures that a test is about."""

from __future__ import annotations

from typing import Any

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload


def workload(*classes: tuple[float, int, int], name: str = "test") -> Workload:
    """Classes c0, c1, … of (rate per s, prompt, output)."""
    return Workload(
        name=name,
        classes=tuple(
            RequestClass(name=f"c{k}", rate_per_s=rate, prefill_tokens=prompt, decode_tokens=output)
            for k, (rate, prompt, output) in enumerate(classes)
        ),
    )


def one_class(rate_per_s: float, prompt: int, output: int, context: int = 0) -> Workload:
    """A workload of a single class "only"."""
    only = RequestClass(
        name="only",
        rate_per_s=rate_per_s,
        prefill_tokens=prompt,
        decode_tokens=output,
        context_tokens=context,
    )
    return Workload(name="one", classes=(only,))


def server(
    iteration_time: IterationTime,
    first_token: str = "prefill",
    kv_capacity_tokens: int = 137_000,
    block_tokens: int = 1,
    **fields: Any,
) -> Server:
    """A server with this iteration time; `fields` are those of `Server`."""
    document = {
        "name": "test",
        "source": "test",
        "kv_capacity_tokens": kv_capacity_tokens,
        "first_token": first_token,
        "block_tokens": block_tokens,
        "iteration_time": iteration_time.document(),
    }
    return Server.from_document(document | fields)


def one_second_server(
    kv_capacity_tokens: int = 10_000, first_token: str = "prefill", block_tokens: int = 1
) -> Server:
    """A server on which every iteration takes one second."""
    return server(IterationTime.affine(1.0), first_token, kv_capacity_tokens, block_tokens)
