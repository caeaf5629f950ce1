"""What the kernel of the transient model reads, and how it follows from load and server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.server import Server
from fluid.stages import Stages
from fluid.transient.inflow import Burst, RateProfile
from fluid.workload import Workload

Floats = NDArray[np.float64]


class Costs(NamedTuple):
    """Stages and iteration time of a workload on a server.

    Attributes:
        counts: S_j, shape (classes,).
        held: KV occupied, shape (stages, classes); read: KV read by decodes, alike.
        prompts: l_j, shape (classes,); 0 for decode-only classes, whose first stage decodes.
        token_granular: Whether blocks are of one token.
        knots: Tokens and seconds of the knots of f, shape (2, knots).
        overhead_s: d0.
        per_unit_s: c_kv, c_pre, c_seq, c_sq, shape (4,).
    """

    counts: NDArray[np.int64]
    held: Floats
    read: Floats
    prompts: Floats
    token_granular: bool
    knots: Floats
    overhead_s: float
    per_unit_s: Floats


class Coming(NamedTuple):
    """Arrivals: rates[k] (per class) from starts_s[k] on, and masses at burst times."""

    starts_s: Floats
    rates: Floats
    burst_times_s: Floats
    burst_masses: Floats


class Gate(NamedTuple):
    """What admission asks: C, C·(1 − watermark), most residents, credit per iteration."""

    capacity: float
    admission: float
    cap: float
    pace: float


def costs_of(stages: Sequence[Stages], server: Server) -> Costs:
    """What the kernel reads of stages and server."""
    shape = (max(one.count for one in stages), len(stages))
    held, read = np.zeros(shape), np.zeros(shape)
    for index, one in enumerate(stages):
        held[: one.count, index] = one.held_kv_tokens
        read[: one.count, index] = np.where(one.decodes, one.kv_tokens, 0)
    tau = server.iteration_time
    return Costs(
        counts=np.array([one.count for one in stages]),
        held=held,
        read=read,
        prompts=np.array([float(one.prefill_tokens) for one in stages]),
        token_granular=server.block_tokens == 1,
        knots=np.array([tau.tokens_knots, tau.seconds_knots], dtype=float),
        overhead_s=tau.overhead_s,
        per_unit_s=np.array(
            [
                tau.per_kv_token_s,
                tau.per_prefill_token_s,
                tau.per_decode_request_s,
                tau.per_prefill_token_sq_s,
            ]
        ),
    )


def coming_of(workload: Workload, profile: RateProfile, bursts: Sequence[Burst]) -> Coming:
    """Rates and bursts as the kernel reads them.

    Raises:
        InputError: Rates of another number of classes, or a burst of an unknown one.
    """
    classes = len(workload.classes)
    if profile.rates_per_s.shape[1] != classes:
        value = f"{profile.rates_per_s.shape[1]} classes"
        raise InputError("rate_profile", value, f"the {classes} classes of the workload")
    ordered = sorted(bursts, key=lambda one: one.time_s)
    return Coming(
        starts_s=profile.starts_s,
        rates=profile.rates_per_s,
        burst_times_s=np.array([one.time_s for one in ordered], dtype=float),
        burst_masses=np.array([one.masses(workload) for one in ordered]).reshape(-1, classes),
    )
