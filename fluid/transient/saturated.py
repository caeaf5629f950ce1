"""What greedy admission completes once memory has filled, by rule: the predicted loss (THEORY 11).

A flood fills memory with one generation, and the backlog behind it does not end: the state into
which the fluid then settles is the collapsed one of `fluid.transient.metastable`. Here it is
computed as fast as a command needs it. Memory counts tokens, of which a server with blocks has
fewer, by what the mix's blocks leave empty; then an iteration costs a step per class, not per
stage. Completions come in bursts, a generation at a time: they are counted in a window that fades
in and out, so that it does not matter where in a cycle it begins.

The limit beside it is that of the mean composition (method "mean" of THEORY 2.5), which is what the
fluid computes with; for affine servers it is the limit of THEORY 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.stages import class_stages, memory_sums
from fluid.steady.bounds import full_memory_time_s
from fluid.steady.stability import largest_scale, stability
from fluid.transient.admission import Admission
from fluid.transient.inputs import Coming, costs_of
from fluid.workload import Workload

Floats = NDArray[np.float64]

_SETTLE, _END = 2, 6
"""When the window begins and ends, in times that the longest request takes at full memory."""

_FEWEST_STAGES = 20
"""Shorter requests are followed as long as one of so many: single iterations vary."""

_EVERY = 10

WATERMARK = 0.05
"""The watermark that stands beside no restraint."""

UNRESTRAINED = "no restraint"

LEAST_MEMORY_SHARE = 0.01
"""Memory's share of the boundary load from which on it is said to bind at all."""


@dataclass(frozen=True)
class RuleLoss:
    """What one rule of admission completes under a backlog that does not end.

    Attributes:
        lost_share: By how much that is less than the fluid limit, as a share of it; 0 at least.
    """

    name: str
    rule: Admission
    completed_per_s: float
    lost_share: float


@dataclass(frozen=True, repr=False)
class PredictedLoss(Result):
    """What admission loses once memory has filled, by rule; it does not depend on the rate.

    Attributes:
        limit_per_s: Largest stable total rate of the mix.
        rules: Without restraint first, then a watermark, then those asked about.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(2.4, prompt=512, output=1000))
    >>> found = fw.predicted_loss(load, fw.Server.named("paper-long-decode"))
    >>> [f"{one.name}: {one.lost_share:.2f}" for one in found.rules]
    ['no restraint: 0.37', '5 % watermark: 0.37']
    """

    workload: Workload
    server: Server
    limit_per_s: float
    rules: tuple[RuleLoss, ...]

    @property
    def recovers(self) -> bool | None:
        """Whether greedy admission without restraint completes what arrives even then.

        None where that hangs on what chance costs, see `BY_CHANCE`.
        """
        plain, rate_per_s = self.rules[0], self.workload.rate_per_s
        if plain.completed_per_s < rate_per_s:
            return False
        return True if rate_per_s <= (1 - BY_CHANCE) * self.limit_per_s else None

    @property
    def sentence(self) -> str:
        """The loss in one sentence, with what follows at the workload's rate."""
        plain, *others = self.rules
        beside = "".join(f", {percent(one.lost_share, 0)} with {_named(one)}" for one in others)
        arriving = f"less than the {number(self.workload.rate_per_s)} /s that arrive"
        then = {True: "a backlog would still clear", False: arriving, None: f"perhaps {arriving}"}
        return (
            f"Once memory has filled, greedy admission without a table loses about "
            f"{unrestrained_words(plain.lost_share)} of the limit{beside} {HOW_SURE}: without one "
            f"it completes {number(plain.completed_per_s)} /s, {then[self.recovers]}."
        )

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each rule."""
        return {
            "rule": [one.name for one in self.rules],
            "completed_per_s": [one.completed_per_s for one in self.rules],
            "lost_share": [one.lost_share for one in self.rules],
        }

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"{self.workload.name} on {self.server.name} once memory has filled",
            ("admission", "completed /s", "lost of the limit"),
            tuple(
                (one.name, number(one.completed_per_s), percent(one.lost_share))
                for one in self.rules
            ),
        )
        yield Note(BELIEF)
        yield self.sentence

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "limit_per_s": self.limit_per_s,
            "recovers": self.recovers,
            "believe": BELIEF,
            "rules": [
                {
                    "name": one.name,
                    "watermark_fraction": one.rule.watermark,
                    "cap_requests": None if math.isinf(one.rule.cap) else one.rule.cap,
                    "pace_per_iteration": None if math.isinf(one.rule.pace) else one.rule.pace,
                    "completed_per_s": one.completed_per_s,
                    "lost_share": one.lost_share,
                }
                for one in self.rules
            ],
        }


MOST_KINDS = 1000
"""Different requests (prompt, context and output) in one fluid."""

HOW_SURE = "(±5 points; less where evicted requests keep their tokens, as in vLLM)"
"""In a sentence; `BELIEF` says more."""

BY_CHANCE = 0.08
"""What spread lengths lose without a watermark in simulation, where the fluid loses nothing."""

BELIEF = (
    "from the fluid behind a flood, where an evicted request loses its progress: mostly within 5 "
    "points of simulation; without a watermark chance fills memory too, which costs spread lengths "
    "about 8 %; an engine that keeps the tokens of what it evicts, as vLLM, loses less"
)
"""How far the prediction may be believed (``python -m tests.benchmarks.predicted_loss``)."""


def predicted_loss(
    workload: Workload, server: Server, rules: Mapping[str, Admission] | None = None
) -> PredictedLoss | None:
    """Throughput of greedy admission with full memory, against the fluid limit (THEORY 11.4, 11.5).

    Args:
        rules: More rules of admission by name, beside no restraint and a watermark of 5 %.

    Returns:
        None where memory hardly binds: unlimited memory would raise the limit by less than 1 %;
        and for more than `MOST_KINDS` different requests, whose fluid takes minutes.

    Raises:
        InputError: A class of which no request fits into memory.

    >>> import fluidwait as fw
    >>> chat = fw.Workload.of(chat=fw.Requests(7.0, prompt=2048, output=20))
    >>> found = fw.predicted_loss(chat, fw.Server.named("engine-long-decode"))
    >>> found.recovers
    True
    """
    require_fits(workload, server)
    edge = stability(workload, server)
    if edge.memory_share < LEAST_MEMORY_SHARE or len(workload.columns.kinds[0]) > MOST_KINDS:
        return None
    limit_per_s = edge.max_scale * workload.rate_per_s
    mean_per_s = limit_per_s
    if not server.iteration_time.is_affine:
        mean_per_s = largest_scale(workload, server, "mean") * workload.rate_per_s
    asked = {
        UNRESTRAINED: Admission(),
        f"{100 * WATERMARK:g} % watermark": Admission(WATERMARK),
        **(rules or {}),
    }
    found = []
    for name, rule in asked.items():
        share = min(saturated_rate_per_s(workload, server, rule) / mean_per_s, 1.0)
        found.append(RuleLoss(name, rule, share * limit_per_s, 1 - share))
    return PredictedLoss(workload, server, limit_per_s, tuple(found))


def saturated_rate_per_s(workload: Workload, server: Server, rule: Admission) -> float:
    """Completions per second after a flood, under a backlog of the workload's mix without end."""
    from fluid.transient import kernel  # numba is slow to import

    tokens = server.model_copy(update={"block_tokens": 1})
    shares = workload.shares
    in_blocks = float(shares @ memory_sums(workload, server))
    capacity = server.usable_kv_tokens * float(shares @ memory_sums(workload, tokens)) / in_blocks
    first, kind = workload.columns.kinds
    mix = np.bincount(kind, weights=shares).astype(float)
    stages = [class_stages(workload.classes[index], tokens) for index in first.tolist()]
    longest = max(one.count for one in stages)
    unit_s = max(longest, _FEWEST_STAGES) * full_memory_time_s(workload, server)
    costs = costs_of(stages, tokens)
    iterations = math.ceil(_END * unit_s / costs.overhead_s) + 2
    # Nobody can complete so many: each iteration would have to fill memory anew.
    flood = iterations * capacity / min(float(one.kv_tokens[0]) for one in stages)
    coming = Coming(
        starts_s=np.zeros(1),
        rates=np.zeros((1, len(stages))),
        burst_times_s=np.zeros(1),
        burst_masses=(flood * mix)[None],
    )
    gate = rule.gate(server)._replace(capacity=capacity, admission=capacity * (1 - rule.watermark))
    series = np.empty((iterations // _EVERY + 3, 8))
    rows = kernel.simulate(
        *(costs, coming, gate, np.zeros((longest, len(stages))), np.zeros(len(stages))),
        *(_END * unit_s, _EVERY, series, np.empty(0), np.empty((0, longest, len(stages)))),
    )
    time_s, completed = series[:rows, 0], series[:rows, 6]
    inside = time_s >= _SETTLE * unit_s
    return _faded_rate(time_s[inside], completed[inside])


def _faded_rate(time_s: Floats, count: Floats) -> float:
    """Rate of a count that comes in bursts, in a window that fades in and out (Hann's)."""
    since = (time_s - time_s[0]) / (time_s[-1] - time_s[0])
    weight = np.sin(np.pi * (since[1:] + since[:-1]) / 2) ** 2
    return float(weight @ np.diff(count) / (weight @ np.diff(time_s)))


def unrestrained_words(lost_share: float) -> str:
    """The loss without a watermark, or its range where chance makes up most of it."""
    if lost_share >= BY_CHANCE:
        return percent(lost_share, 0)
    return f"{100 * lost_share:.0f} to {percent(BY_CHANCE, 0)}"


def _named(one: RuleLoss) -> str:
    return f"a {one.name}" if one.name.endswith("watermark") else one.name
