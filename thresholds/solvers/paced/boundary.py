"""Pace, cap and watermark: what the practical table sets (THEORY 3.5, 6.5), and their closed form.

The pace is the boundary inventory n^C_j = α*λ_j·ΔT*(α*λ), summed over the classes: what one
iteration takes in when the same mix runs at the edge of its stable region. The cap is a multiple of
the fluid population Σ n^C_j S_j.

Requests that were admitted together, after a lull or an eviction, grow together, and complete
together where their lengths are alike: memory swings, overflows and never settles (THEORY 6.4).
Only a pace prevents that. Where lengths are spread out a generation dissolves by itself, ages
become independent, and a pace would only throttle: a watermark is enough.

It follows from independent ages. Once admission has closed, KV is a random walk: an iteration adds
a token for each of the Σ n_j S_j residents and takes the l_j + S_j tokens of each of the
Poisson(n_j) requests that complete; it drifts by −Σ n_j l_j. In continuous time it only ever jumps
downwards, and its highest later point is exponential with the rate β > 0 that solves

    β·Σ n_j S_j = Σ n_j (1 − e^{−β (l_j + S_j)})

and a watermark of w·C = ln(1/ε)/β lets a share ε of the closures end in an eviction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.stages import stage_sums
from fluid.steady.stability import stability
from fluid.workload import Workload
from thresholds.limits import Limits

Floats = NDArray[np.float64]

LEAST_WATERMARK = 0.01
"""Room for one iteration's growth: enough where a pace keeps the residents' ages regular."""

LARGEST_WATERMARK = 0.2

OVERSHOOT_PROBABILITY = 0.01
"""ε of the watermark: closures of admission that end in an eviction."""

IN_STEP = 0.09
"""Swing of memory above which a pace is needed, see `BoundaryLoad.swing`.

Tuned on 26 loads (``python tests/benchmarks/spread_lengths.py``), and judged on 20 others near it
(``--fresh``): at most 1.4 % of the limit lost by the choice (docs/practical-table.md).
"""

_CYCLES = np.linspace(0.75, 4.0, 1000)
"""Frequencies at which synchrony is looked for, in cycles per mean service."""


@dataclass(frozen=True)
class BoundaryLoad:
    """A mix at the edge of its stable region; it does not depend on the rate of the workload.

    Attributes:
        rate_per_s: α* Σ λ_j.
        per_stage: n^C_j, shape (m,).
        population: Σ n^C_j S_j, requests in service.
        required_tokens: Σ n^C_j m_j, KV tokens.
        watermark_fraction: w of the module's docstring, between `LEAST_WATERMARK` and
            `LARGEST_WATERMARK`.
        synchrony: Share of the requests that can stay in step: the largest |E e^{iωS}| over
            frequencies ω around one cycle per mean service and above; 1 for one length.
        growth: Part of a request's final KV that grew in service, Σ n_j S_j/Σ n_j (l_j + S_j).
    """

    rate_per_s: float
    per_stage: Floats
    population: float
    required_tokens: float
    watermark_fraction: float
    synchrony: float
    growth: float

    @property
    def pace_per_iteration(self) -> float:
        """Σ n^C_j."""
        return float(self.per_stage.sum())

    @property
    def swing(self) -> float:
        """How far memory can swing because requests stay in step: synchrony²·growth.

        The square is the share of the variance that one frequency holds. Spread-out lengths make
        it small, and so do outputs that are short beside their prompts.
        """
        return self.synchrony**2 * self.growth

    def closed_form(self) -> Limits:
        """A pace where memory swings in step, otherwise a watermark alone."""
        if self.swing <= IN_STEP:
            return Limits(watermark_fraction=self.watermark_fraction)
        return Limits(self.pace_per_iteration, watermark_fraction=LEAST_WATERMARK)


def boundary_load(workload: Workload, server: Server) -> BoundaryLoad:
    """The workload's mix at the edge of the stable region of the server (THEORY 3.5).

    Raises:
        InputError: A request does not fit into the cache.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(2.4, prompt=512, output=1000))
    >>> edge = fw.boundary_load(load, fw.Server.named("paper-long-decode"))
    >>> round(edge.rate_per_s, 3), round(edge.pace_per_iteration, 4)
    (2.742, 0.1352)
    """
    edge = stability(workload, server)
    per_stage = edge.boundary_per_stage
    sums = stage_sums(workload, server)
    first, last = sums.first_held_tokens, sums.last_held_tokens
    room_tokens = -math.log(OVERSHOOT_PROBABILITY) * overshoot_tokens(per_stage, first, last)
    return BoundaryLoad(
        rate_per_s=edge.max_scale * workload.rate_per_s,
        per_stage=per_stage,
        population=float(per_stage @ sums.count),
        required_tokens=float(per_stage @ sums.memory_sum),
        watermark_fraction=float(
            np.clip(room_tokens / server.usable_kv_tokens, LEAST_WATERMARK, LARGEST_WATERMARK)
        ),
        synchrony=_synchrony(workload.rates_per_s, sums.count),
        growth=1 - float(per_stage @ first) / float(per_stage @ last),
    )


def overshoot_tokens(per_stage: Floats, first: Floats, last: Floats) -> float:
    """1/β: KV above its level at the closure of admission, mean of the highest later point.

    Growth per request is counted between its first and last stage, so that blocks and conventions
    are those of the server. Infinite without prompts or contexts to release.

    Args:
        first, last: KV that a request of each class holds at its first and last stage, shape (m,).
    """
    from scipy.optimize import brentq

    if not (per_stage @ first) > 0:
        return math.inf
    grown = float(per_stage @ (last - first))
    if grown == 0:
        return 0.0

    def excess(inverse_tokens: float) -> float:
        """β·growth − Σ n_j(1 − e^{−β last_j}): negative just above β = 0, then positive."""
        return inverse_tokens * grown + float(per_stage @ np.expm1(-inverse_tokens * last))

    # A hair above Σ n_j/growth, so that the excess is positive there in spite of rounding.
    highest = float(per_stage.sum()) / grown * (1 + 1e-9)
    # By the quadratic expansion the root is above |drift|/variance.
    lowest = float(per_stage @ first) / float(per_stage @ last**2)
    return 1.0 / float(brentq(excess, lowest, highest))


def _synchrony(rates: Floats, stages: Floats) -> float:
    lengths, kind = np.unique(stages, return_inverse=True)
    shares = np.bincount(kind, weights=rates) / rates.sum()
    frequencies = 2 * math.pi * _CYCLES / float(shares @ lengths)
    return float(np.abs(np.exp(1j * np.outer(frequencies, lengths)) @ shares).max())
