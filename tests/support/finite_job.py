"""Finite jobs under vLLM's rules, request by request and iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.server import Server
from fluid.traces.tape import Tape
from validation.policies import parse_policy
from validation.simulator.cpu import Job, run_traced
from validation.simulator.model import tape_model

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FiniteJob:
    """A finite job that was simulated to its end.

    Attributes:
        completed_at_s, first_token_at_s, evictions: Of each request.
        clock_s, kv_tokens, in_service, waiting: At the start of each iteration.
    """

    completed_at_s: Floats
    first_token_at_s: Floats
    evictions: NDArray[np.int32]
    clock_s: Floats
    kv_tokens: Floats
    in_service: Floats
    waiting: Floats

    @property
    def makespan_s(self) -> float:
        """From the first arrival, at 0, to the last completion."""
        return float(self.completed_at_s.max())

    @property
    def decoding(self) -> NDArray[np.int64]:
        """Requests that decode in each iteration."""
        begun = np.searchsorted(np.sort(self.first_token_at_s), self.clock_s, side="right")
        return begun - np.searchsorted(np.sort(self.completed_at_s), self.clock_s, side="right")

    def decoded_per_s(self, begin_s: float, end_s: float) -> float:
        """Output tokens per second of what is past its prompt, between two times."""
        ends_s = np.append(self.clock_s[1:], self.makespan_s)
        within = (ends_s > begin_s) & (ends_s <= end_s)
        return float(self.decoding[within].sum() / (end_s - begin_s))


_NEVER_S = 1e7


def simulated(
    server: Server,
    policy: str,
    prompts: ArrayLike,
    outputs: ArrayLike,
    arrived_at_s: ArrayLike | None = None,
) -> FiniteJob:
    """Requests under vLLM's rules, all at once unless told otherwise.

    The simulator ends with the requests of the middle of its arrivals: a third as many one-token
    requests, long after, let all of the others complete.
    """
    prompt_tokens, output_tokens = np.asarray(prompts), np.asarray(outputs)
    requests = len(prompt_tokens)
    after = requests // 3 + 10
    times_s = np.arange(requests) * 1e-6 if arrived_at_s is None else np.asarray(arrived_at_s)
    tape = Tape(
        np.append(times_s, _NEVER_S + np.arange(after)),
        np.append(prompt_tokens, np.ones(after, dtype=int)),
        np.append(output_tokens, np.ones(after, dtype=int)),
    )
    found = run_traced(tape_model(tape, server), Job(parse_policy(policy), 0), len(tape))
    series = found.series[found.series[:, 0] < _NEVER_S / 2]
    return FiniteJob(
        found.completed_at_s[:requests],
        found.first_token_at_s[:requests],
        found.evicted_times[:requests],
        *series.T,
    )
