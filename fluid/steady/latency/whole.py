"""Whole prompts: the chain of iteration times (THEORY 9.3).

Given an iteration of t seconds the next one admits Poisson(λ_j t) prompts of each class, whose
seconds are compound Poisson on a lattice, and meets decoders whose law given t is that of the
linear theory. Their sum is the next iteration time; its mass goes to the two nodes beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fluid.gamma import Gamma
from fluid.steady.latency.chain import (
    Lattice,
    costs_of,
    regressed,
    same_mean,
    spaced_nodes,
)
from fluid.steady.latency.decoders import Decoders, given_time
from fluid.steady.latency.kernels import Costs, Nodes, added_seconds, balance, moved, whole_step
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import LONGEST_WAVES, Slopes, Slow, SlowTheory
from fluid.steady.latency.solved import Solved, idleness
from fluid.steady.latency.waits import two_iteration_laws, whole_prompt_laws

Floats = NDArray[np.float64]

_MOST_POINTS = 2048
_BEND = 4.0
_ROUNDS, _LAYOUTS, _CALLS = 6, 3, 8
_TOLERANCE = 5e-4
_RARE = 1e-7


@dataclass(frozen=True)
class Resolution:
    """How many nodes, points of the lattice up to the last node, and points of transforms."""

    nodes: int = 110
    points: int = 400
    waves: int = LONGEST_WAVES


FINE, COARSE = Resolution(), Resolution(64, 256, 1 << 12)
"""The latter is enough for a first guess."""


@dataclass(frozen=True)
class Layout:
    """Nodes, lattice, and what lies at its points; good for slopes near those it was made for.

    Attributes:
        prompts: Law of the lattice point given each node, shape (m, M).
        tokens, fixed_s: Prompt tokens and seconds apart from f at a point, shape (M,).
    """

    nodes: Nodes
    lattice: Lattice
    prompts: Floats
    tokens: Floats
    fixed_s: Floats


@dataclass(frozen=True)
class Step:
    """One iteration of the chain, and its balance."""

    decoders: Decoders
    matrix: Floats
    moments: Floats
    law: Floats

    def mean_s(self, nodes: Nodes) -> float:
        """μ."""
        return float(self.law @ nodes.at)


def lay_out(load: Load, slow: Slow, resolution: Resolution) -> Layout:
    """Nodes up to the rare end of a gamma law with the linear mean and variance."""
    overhead_s = load.tau.overhead_s
    sd_s = max(math.sqrt(slow.variance_s2), 1e-4 * overhead_s)
    above = max(slow.mean_s - overhead_s, 1e-3 * overhead_s)
    tail = Gamma(above, sd_s).isf(_RARE)
    cost_s = slow.slopes.token_s * load.first_tokens + load.first_s
    most_s = max(overhead_s + tail + sd_s, slow.mean_s + 2.2 * float(cost_s.max()))
    nodes = spaced_nodes(overhead_s, most_s, resolution.nodes, _BEND)
    width = most_s - overhead_s
    step = width / resolution.points
    if 0 < cost_s.max() <= cost_s.min() * (1 + 1e-7):
        step = float(cost_s[0]) / max(1, math.ceil(cost_s[0] / step))
    points = min(int(width / step) + 2, _MOST_POINTS)
    lattice = Lattice(cost_s, load.rates_per_s, step, points)
    worths = np.stack([load.first_tokens, load.first_s])
    tokens, fixed_s = lattice.given_value(worths, slow.mean_s, overhead_s, sd_s)
    return Layout(nodes, lattice, lattice.laws(nodes.at), tokens, fixed_s)


def take_step(load: Load, slow: Slow, layout: Layout, costs: Costs, mean_s: float) -> Step:
    """The chain with the decoders of this mean iteration time."""
    decoders = given_time(load, slow, layout.nodes.at, mean_s)
    matrix, moments = whole_step(
        layout.nodes,
        layout.prompts,
        layout.tokens,
        layout.fixed_s,
        decoders.requests,
        decoders.kv_tokens,
        decoders.weights,
        costs,
    )
    return Step(decoders, matrix, moments, balance(matrix))


def first_guess(load: Load, start_s: float) -> Slopes:
    """The secant of f at the mean composition."""
    tokens = start_s * (load.prompt_tokens_per_s + load.decodes_per_s)
    rise = float(load.token_seconds(np.array(tokens))) - load.tau.overhead_s
    slope = max(rise / max(tokens, 1.0), 1e-9)
    return Slopes(slope, slope)


def solve_whole(load: Load, start_s: float, resolution: Resolution = FINE) -> Solved:
    """The chain in balance with its own mean and slopes.

    Args:
        start_s: A guess at the mean iteration time.
    """
    theory, costs = SlowTheory(load, longest=resolution.waves), costs_of(load)
    slopes, mean_s, converged = first_guess(load, start_s), start_s, False
    gain: float | None = None
    for turn in range(_ROUNDS):
        slow = theory.at(slopes, mean_s)
        if turn < _LAYOUTS:
            layout = lay_out(load, slow, resolution)
        kept: list[Step] = []

        def chain_mean(guess_s: float) -> float:
            kept.append(take_step(load, slow, layout, costs, guess_s))  # noqa: B023
            return kept[-1].mean_s(layout.nodes)  # noqa: B023

        gain = slow.gain if gain is None else gain
        mean_s, calls, gain = same_mean(
            chain_mean, mean_s, gain, _CALLS, _TOLERANCE, load.tau.overhead_s
        )
        step = kept[-1]
        found = regressed(load, step.law @ step.moments)
        token_same = abs(found.token_s - slopes.token_s) <= 3e-3 * slopes.token_s
        decode_same = abs(found.decode_s - slopes.decode_s) <= 3e-2 * slopes.decode_s
        slopes, converged = found, calls <= _CALLS
        if token_same and decode_same and calls <= 2:
            break
    return _read(load, theory.at(slopes, mean_s), layout, step, costs, mean_s, converged)


def _read(
    load: Load, slow: Slow, layout: Layout, step: Step, costs: Costs, mean_s: float, converged: bool
) -> Solved:
    seconds = layout.nodes.at
    palm = step.law * seconds / (step.law @ seconds)
    decoders = step.decoders
    added_s = load.first_s + added_seconds(
        palm,
        layout.prompts,
        layout.tokens,
        decoders.requests,
        decoders.weights,
        load.first_tokens,
        costs,
    )
    next_s = step.matrix @ seconds
    alone_s = load.token_seconds(load.first_tokens) + load.first_s
    idle = idleness(load, slow, seconds, step.law, mean_s)
    overhead_s = load.tau.overhead_s
    chain_empty_s = overhead_s / 2 + alone_s + slow.prompt_work * overhead_s
    ttft_s = float(palm @ (seconds / 2 + next_s)) + added_s
    first_stage_s = idle.corrected(ttft_s, alone_s, chain_empty_s)
    return Solved(
        load=load,
        slow=slow,
        seconds=seconds,
        law=step.law,
        step=step.matrix,
        mean_s=mean_s,
        idle=idle,
        first_stage_s=first_stage_s,
        alone_s=alone_s,
        starts=moved(layout.nodes, palm @ step.matrix, added_s),
        after_s=slow.after_prefill_s(),
        make_first_stage=partial(
            whole_prompt_laws, seconds, step.matrix, palm, first_stage_s, alone_s, idle.share
        ),
        make_first_token=partial(
            two_iteration_laws,
            seconds,
            step.matrix,
            palm,
            added_s,
            alone_s=alone_s + float(load.table_s[1]),
            idle_share=idle.share,
        ),
        converged=converged,
    )
