"""A simulated engine as a metrics page: what vLLM's would say at any time of a simulated run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.workload import Workload
from validation.live.scrape import Scrape
from validation.policies import parse_policy
from validation.simulator.cpu import Job, run_traced
from validation.simulator.model import poisson_model

Floats = NDArray[np.float64]

LENGTH_BUCKETS = tuple(
    float(digit * 10**power)
    for power in range(6)
    for digit in (1, 2, 5)
    if digit * 10**power <= 2e5
)
START_S = 1_800_000_000.0
"""When the engine started, seconds since 1970."""


@dataclass(frozen=True)
class SimulatedEngine:
    """A finished run; arrays of shape (requests,), but for the ends of its iterations.

    Attributes:
        token_at_s: When each iteration ended, each with a token for every request in decode.
        kv_tokens: Held at the start of each iteration.
    """

    arrived_at_s: Floats
    first_token_at_s: Floats
    completed_at_s: Floats
    prompts: NDArray[np.int64]
    outputs: NDArray[np.int64]
    starts_at_s: Floats
    token_at_s: Floats
    kv_tokens: Floats
    kv_capacity_tokens: int

    @classmethod
    def run(
        cls, load: Workload, server: Server, requests: int, seed: int = 0, policy: str = "greedy"
    ) -> SimulatedEngine:
        """Simulate a load, its rate profile included."""
        model = poisson_model(load, server)
        trace = run_traced(model, Job(parse_policy(policy), 0, seed), requests)
        shapes = model.shapes[trace.shape_index]
        done = trace.completed_at_s
        starts = trace.series[:, 0]
        ends = np.append(starts[1:], np.inf)
        # Where the engine was idle, an iteration ended before the next one began: at a completion.
        finished = np.sort(done[np.isfinite(done)])
        next_done = np.append(finished, np.inf)[np.searchsorted(finished, starts, side="right")]
        return cls(
            trace.arrived_at_s,
            trace.first_token_at_s,
            done,
            shapes["prompt_tokens"].astype(np.int64),
            shapes["output_tokens"].astype(np.int64),
            starts,
            np.minimum(ends, next_done),
            trace.series[:, 1],
            server.usable_kv_tokens,
        )

    @property
    def started_at_s(self) -> float:
        """Seconds since 1970."""
        return START_S

    @property
    def end_s(self) -> float:
        """Of the run."""
        return float(self.starts_at_s[-1])

    def tpot_s(self, start_s: float, end_s: float) -> float:
        """Mean time between tokens in a span."""
        (a, n), (b, m) = self.gaps(start_s), self.gaps(end_s)
        return (b - a) / (m - n)

    def gaps(self, at_s: float) -> tuple[float, float]:
        """Sum and number of the times between tokens so far."""
        place = np.searchsorted(self.token_at_s, at_s, side="right")
        last = self.token_at_s[place - 1] if place else 0.0
        begun = self.first_token_at_s <= last
        first = self.first_token_at_s[begun]
        to = np.minimum(np.where(np.isnan(self.completed_at_s), np.inf, self.completed_at_s), last)
        spans = to[begun] - first
        over = self.completed_at_s[begun] <= last
        running = np.searchsorted(self.token_at_s, first[~over] * (1 + 1e-15), side="right")
        tokens = (self.outputs[begun][over] - 1).sum() + (place - running).sum()
        return float(spans.sum()), float(tokens)

    def page(self, at_s: float) -> str:
        """The page at a time since the start."""
        done = self.completed_at_s <= at_s
        arrived = self.arrived_at_s <= at_s
        answered = self.first_token_at_s <= at_s
        gap_sum_s, gap_count = self.gaps(at_s)
        place = max(np.searchsorted(self.starts_at_s, at_s, side="right") - 1, 0)
        in_system = int(arrived.sum() - done.sum())
        running = int(answered.sum() - done.sum())
        kv = self.kv_tokens[place] / self.kv_capacity_tokens if in_system else 0.0
        ttft = (self.first_token_at_s - self.arrived_at_s)[answered].sum()
        lines = [
            *length_lines("vllm:request_prompt_tokens", self.prompts[done]),
            *length_lines("vllm:request_generation_tokens", self.outputs[done]),
            f"vllm:prompt_tokens_total{_LABELS} {self.prompts[answered].sum()}",
            f"vllm:num_preemptions_total{_LABELS} 0",
            f"vllm:inter_token_latency_seconds_sum{_LABELS} {gap_sum_s!r}",
            f"vllm:inter_token_latency_seconds_count{_LABELS} {gap_count!r}",
            f"vllm:time_to_first_token_seconds_sum{_LABELS} {float(ttft)!r}",
            f"vllm:time_to_first_token_seconds_count{_LABELS} {answered.sum()}",
            f"vllm:num_requests_running{_LABELS} {running}",
            f"vllm:num_requests_waiting{_LABELS} {in_system - running}",
            f"vllm:kv_cache_usage_perc{_LABELS} {float(kv)!r}",
            f"process_start_time_seconds {START_S}",
        ]
        return "\n".join(lines) + "\n"

    def scrapes(self, interval_s: float, start_s: float = 0.0) -> Iterator[Scrape]:
        """One after another until the run ends."""
        from fluid.traces.scrapes import samples_of

        for at_s in np.arange(start_s, self.end_s, interval_s):
            yield Scrape(samples_of(self.page(float(at_s)), "page"), START_S + float(at_s), "page")


_LABELS = '{engine="0",model_name="simulated"}'


def length_lines(name: str, lengths: Sequence[int] | NDArray[np.int64]) -> Iterator[str]:
    """A histogram of token lengths."""
    lengths = np.asarray(lengths)
    for end in LENGTH_BUCKETS:
        labels = f'{{engine="0",le="{end}",model_name="simulated"}}'
        yield f"{name}_bucket{labels} {(lengths <= end).sum()}"
    labels = '{engine="0",le="+Inf",model_name="simulated"}'
    yield f"{name}_bucket{labels} {len(lengths)}"
    yield f"{name}_sum{_LABELS} {lengths.sum()}"
    yield f"{name}_count{_LABELS} {len(lengths)}"
