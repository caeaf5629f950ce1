"""Random workloads and servers for the property tests of the fluid model."""

from __future__ import annotations

from hypothesis import strategies as st

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload

ROOMY_TOKENS = 200_000
"""Capacity into which every class of `workloads` fits."""

conventions = st.sampled_from(["prefill", "decode"])


@st.composite
def workloads(draw, max_classes: int = 4, longest: int = 400) -> Workload:
    """Up to `max_classes` classes, some decode-only, names c0, c1, …"""
    classes = []
    for index in range(draw(st.integers(1, max_classes))):
        length = draw(st.integers(1, longest))
        cached = draw(st.integers(0, 4)) == 0
        classes.append(
            RequestClass(
                name=f"c{index}",
                rate_per_s=draw(st.floats(0.05, 5.0)),
                prefill_tokens=0 if cached else length,
                context_tokens=length if cached else 0,
                decode_tokens=draw(st.integers(1, longest)),
            )
        )
    return Workload(name="random", classes=tuple(classes))


@st.composite
def affine_times(draw) -> IterationTime:
    """Affine iteration times of the size of real ones."""
    return IterationTime.affine(
        overhead_s=draw(st.floats(1e-3, 5e-2)),
        per_token_s=draw(st.sampled_from([0.0, 1e-5, 4.5e-5])),
        per_kv_token_s=draw(st.floats(0, 5e-7)),
        per_prefill_token_s=draw(st.floats(0, 5e-5)),
        per_decode_request_s=draw(st.floats(0, 5e-5)),
    )


@st.composite
def general_times(draw) -> IterationTime:
    """Piecewise linear times with a few knots, jumps and falls after them, and all linear terms."""
    tokens, seconds, jump = [0.0], [draw(st.floats(1e-3, 2e-2))], 0.0
    for _ in range(draw(st.integers(2, 5))):
        run, slope = draw(st.integers(10, 300)), draw(st.floats(0, 1e-4))
        tokens.append(tokens[-1] + run)
        falls = jump > 0 and draw(st.booleans())
        seconds.append(seconds[-1] + (-jump * draw(st.floats(0, 1)) if falls else slope * run))
        jump = 0.0
        if draw(st.booleans()):
            jump = draw(st.floats(0, 5e-3))
            tokens.append(tokens[-1])
            seconds.append(seconds[-1] + jump)
    tokens.append(tokens[-1] + 100)
    seconds.append(seconds[-1] + 100 * draw(st.floats(1e-6, 1e-4)))
    return IterationTime(
        tokens_knots=tuple(tokens),
        seconds_knots=tuple(seconds),
        per_kv_token_s=draw(st.floats(0, 5e-7)),
        per_decode_request_s=draw(st.floats(0, 5e-5)),
        per_prefill_token_sq_s=draw(st.floats(0, 1e-8)),
    )


@st.composite
def servers(draw, times) -> Server:
    """Servers with a time drawn from `times`, either convention and any block size."""
    return Server(
        name="random",
        source="test",
        kv_capacity_tokens=draw(st.integers(2_000, ROOMY_TOKENS)),
        block_tokens=draw(st.sampled_from([1, 16])),
        first_token=draw(conventions),
        iteration_time=draw(times),
    )


def roomy(server: Server) -> Server:
    """The same server with memory for every class of `workloads`."""
    return server.model_copy(update={"kv_capacity_tokens": ROOMY_TOKENS})
