"""The real model under arrivals in real time, beside the simulator on the server that was fitted.

On a card the engine replays CUDA graphs, and the server is that of the sweep with graphs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.stability import largest_scale
from fluid.traces.tape_csv import Tape
from fluid.workload import RequestClass, Workload
from tests.gpu.fit import server_path
from tests.gpu.result import Aim, Result, Row, Table
from tests.gpu.settings import Settings
from tests.gpu.sweep import EAGER, GRAPHS
from tests.gpu.sweep import REAL as SWEEP_REAL
from tests.gpu.sweep import TOY as SWEEP_TOY
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import boundary_load
from validation.measure.batching import simulated_policy
from validation.measure.closed_loop import ClosedLoop, ServedModel, closed_loop, poisson_tape
from validation.measure.model import random_decoder

WITHIN = 0.1
"""The aim: measured ÷ simulated latency within so much of 1, in every run."""

GREEDY = Limits(watermark_fraction=0.01)


@dataclass(frozen=True)
class Sizes:
    """Requests and rates of the runs.

    Attributes:
        shares: Of the largest stable rate.
        requests: Of a run, at most and at least; between them as many as its time allows.
        clock: Of the loop; the processor's own at toy size, as other programs run beside it.
    """

    prompt: int
    output: int
    shares: tuple[float, ...]
    requests: tuple[int, int]
    clock: Callable[[], float]


REAL = Sizes(256, 64, (0.3, 0.5, 0.7), (100, 400), time.perf_counter)
TOY = Sizes(32, 8, (0.3, 0.5, 0.7), (20, 20), time.process_time)


def measure(settings: Settings) -> Iterator[Result]:
    """Greedy and a table at three rates, each on a tape of its own."""
    sizes, model = (TOY, SWEEP_TOY) if settings.toy else (REAL, SWEEP_REAL)
    path = server_path(settings.out, EAGER if settings.toy else GRAPHS)
    if not path.is_file():
        raise InputError("server", "no file", "the server of `--only sweep --only fit`", str(path))
    if settings.toy:
        torch.set_num_threads(1)
    server = roomy(Server.read(path), sizes)
    edge_per_s = largest_scale(load(1.0, sizes), server)
    decoder = random_decoder(model.shape, torch.device(settings.device), model.dtype)
    runs = [(share, name) for share in sizes.shares for name in ("greedy", "table")]
    rows: list[Row] = []
    result = summary(rows, settings)
    most = tape_of(sizes, edge_per_s, max(sizes.requests))
    served = ServedModel.ready_for(decoder, server, most, cuda_graphs=not settings.toy)
    # Kernels of every size of batch are loaded at their first use.
    closed_loop(served, server, tape_of(sizes, edge_per_s, min(sizes.requests)), GREEDY)
    yield result
    for share, name in settings.while_time(runs):
        rate_per_s = share * edge_per_s
        limits = GREEDY if name == "greedy" else table_limits(rate_per_s, server, sizes)
        run_s = settings.left_s() / (len(runs) - len(rows))
        requests = requests_within(run_s, rate_per_s, server, sizes)
        tape = tape_of(sizes, rate_per_s, requests)
        launched = served.runner.launched
        loop = closed_loop(served, server, tape, limits, clock=sizes.clock)
        rows.append(row(name, share, loop, served.runner.launched - launched))
        result = summary(rows, settings)
        yield result
    yield result.ended(len(rows), len(runs), "runs")


"""+"""


def load(rate_per_s: float, sizes: Sizes) -> Workload:
    """Alike requests at a rate."""
    one = RequestClass(
        name="alike",
        rate_per_s=rate_per_s,
        prefill_tokens=sizes.prompt,
        decode_tokens=sizes.output,
    )
    return Workload(name="closed loop", classes=(one,))


def roomy(server: Server, sizes: Sizes) -> Server:
    """With less KV, as every slot of the engine is as long as the longest request."""
    share = 0.9 * sizes.prompt / (sizes.prompt + sizes.output)
    return server.model_copy(update={"kv_capacity_tokens": int(share * server.kv_capacity_tokens)})


def table_limits(rate_per_s: float, server: Server, sizes: Sizes) -> Limits:
    """The practical table's pace, cap and watermark in closed form."""
    return boundary_load(load(rate_per_s, sizes), server).closed_form()


def requests_within(run_s: float, rate_per_s: float, server: Server, sizes: Sizes) -> int:
    """As many as arrive and complete within so many seconds, by the fluid model."""
    times = equilibrium(load(rate_per_s, sizes), server).first_order
    latency_s = 0.0 if times is None else times.latency_s
    least, most = sizes.requests
    return min(max(int(rate_per_s * (0.8 * run_s - 2 * latency_s)), least), most)


def tape_of(sizes: Sizes, rate_per_s: float, requests: int) -> Tape:
    """The same for every policy at a rate."""
    return poisson_tape(rate_per_s, requests, sizes.prompt, sizes.output, seed=1)


def row(name: str, share: float, loop: ClosedLoop, launched: int) -> Row:
    """Measured beside simulated."""
    measured, simulated = loop.measured, loop.simulated
    return {
        "policy": name,
        "limits": simulated_policy(loop.limits),
        "rate_share": share,
        "rate_per_s": loop.rate_per_s,
        "requests": len(loop.requests),
        "iterations": len(loop.admitted),
        "launched": launched,
        "latency_s": measured.latency_s,
        "latency_half_width_s": measured.latency_half_width_s,
        "simulated_latency_s": simulated.latency_s,
        "latency_ratio": measured.latency_s / simulated.latency_s,
        "ttft_s": measured.ttft_s,
        "simulated_ttft_s": simulated.ttft_s,
        "ttft_ratio": measured.ttft_s / simulated.ttft_s,
    }


def summary(rows: list[Row], settings: Settings) -> Result:
    """All runs, and the one that is furthest from its simulation."""
    ratios = [float(one["latency_ratio"] or 0.0) for one in rows]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1), default=None)
    aim = Aim(
        "measured ÷ simulated latency, the run furthest from 1",
        f"within {WITHIN:.0%}",
        worst,
        None if worst is None else settings.met(abs(worst - 1) <= WITHIN),
    )
    tables = (Table("Runs", tuple(rows)),) if rows else ()
    return Result("loop", tables=tables, aims=(aim,))
