"""The small servers and loads of the bench, and how its runs are read.

Arrivals sped up by ζ with time constants divided by ζ over a horizon
T are, after a change of
clock, the unscaled system over the horizon ζT. The bench therefore keeps
the constants and lets the number of requests N ∝ ζT grow. A run starts empty and is watched until
request N arrives; a quarter as many follow, so that nothing ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from validation.policies import ConfiguredPolicy
from validation.simulator.cpu import Job, run_reading
from validation.simulator.model import Model
from validation.simulator.policy import Policy
from validation.simulator.recording import LATENCY
from validation.simulator.state import Lane
from validation.simulator.window import WINDOW_END
from validation.theorems.statement import Effort, Floats

UNLIMITED_TOKENS = 10_000_000

Reader = Callable[[Lane], tuple[float, ...]]


def paper_server(d0_s: float, d1_s: float, capacity_tokens: int = UNLIMITED_TOKENS) -> Server:
    """Eq. (1) of the paper; prefill emits the first token, so that every policy runs on it."""
    return Server(
        name="paper",
        source="theorem bench",
        kv_capacity_tokens=capacity_tokens,
        block_tokens=1,
        first_token="prefill",
        iteration_time=IterationTime.paper(d0_s, d1_s),
    )


def load(*classes: tuple[float, int, int]) -> Workload:
    """Classes of (rate per second, prompt, output)."""
    return Workload(
        name="theorem bench",
        classes=tuple(
            RequestClass(name=f"c{k}", rate_per_s=rate, prefill_tokens=prompt, decode_tokens=output)
            for k, (rate, prompt, output) in enumerate(classes)
        ),
    )


def simulated(
    model: Model,
    policy: ConfiguredPolicy,
    requests: int,
    replications: int,
    effort: Effort,
    read: Reader,
    *,
    series_rows: int = 0,
    sample: int = 0,
) -> Floats:
    """What `read` finds when request number `requests` arrives, shape (replications, figures).

    Args:
        sample: Number of a set of replications, independent of the sets of other numbers: arrivals
            of the same set are the same whatever the policy and the horizon.
    """
    numbers = range(sample * replications, (sample + 1) * replications)
    jobs = [Job(policy, number, seed=effort.seed) for number in numbers]
    rows = run_reading(
        model,
        jobs,
        round(requests / WINDOW_END),
        read,
        series_rows=series_rows,
        threads=effort.threads,
    )
    return np.array(rows)


def watched(lane: Lane) -> tuple[int, float]:
    """Requests that arrive while a run is watched, and the time at which it ends, in seconds."""
    scalars = lane.scalars[0]
    return int(scalars["cohort_end"]), float(scalars["window_end_s"])


def gap_and_latency(model: Model) -> Reader:
    """Share of the arrived output tokens whose request is not complete; mean latency in seconds.

    The first is the throughput gap: the expected tokens that arrive in [0, T] are T·Σ λ l'. The
    latency is that of the requests of the last three quarters.
    """
    outputs = model.shapes["output_tokens"]

    def read(lane: Lane) -> tuple[float, float]:
        arrived, end_s = watched(lane)
        requests = lane.requests[:arrived]
        tokens = outputs[requests["shape"]]
        done = requests["completed_at_s"] <= end_s  # NaN, never completed, compares as False
        count, total_s = lane.sums[:, LATENCY, :2].sum(axis=0)
        return float(tokens[~done].sum() / tokens.sum()), float(total_s / count)

    return read


def completed_rates(model: Model) -> Reader:
    """Completions per second of each class since the empty start."""
    class_of_shape = model.shapes["report_class"]

    def read(lane: Lane) -> tuple[float, ...]:
        arrived, end_s = watched(lane)
        requests = lane.requests[:arrived]
        done = requests["shape"][requests["completed_at_s"] <= end_s]
        counts = np.bincount(class_of_shape[done], minlength=model.classes)
        return tuple((counts / end_s).tolist())

    return read


def whole_prompts(policy: Policy, thresholds: tuple[int, ...]) -> ConfiguredPolicy:
    """A policy with budgets so large that no prompt is chunked, thresholds where it needs them."""
    budgets = {
        one.name: min(1e6, one.highest)
        for one in policy.parameters
        if one.name in ("chunk", "budget_tokens", "max_num_batched_tokens", "max_batched_tokens")
    }
    return policy.configure(budgets, thresholds if policy.per_class or policy.per_segment else ())


def one_class() -> Workload:
    """One request per second, one token of prompt, two stages."""
    return load((1.0, 1, 2))
