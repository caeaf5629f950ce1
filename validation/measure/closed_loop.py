"""The real model under arrivals in real time, beside the simulator on the same tape."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number
from fluid.server import Server
from fluid.traces.tape import Tape
from thresholds.limits import Limits
from thresholds.table import ThresholdTable
from validation.measure.batching import Engine, Request, paced_limits, simulated_policy
from validation.measure.composition import Floats
from validation.measure.kv_cache import KVCache
from validation.measure.model import Decoder
from validation.measure.runner import EagerRunner, GraphRunner, Runner
from validation.measure.target import Target
from validation.policies import parse_policy
from validation.simulator.cpu import Job, run_traced
from validation.simulator.metrics import interval
from validation.simulator.model import tape_model
from validation.simulator.window import WINDOW_END, WINDOW_START


@dataclass(frozen=True)
class AlikeRequests:
    """Load of a closed loop: requests of one shape.

    Attributes:
        requests: Arrivals per run, at least 5.
        seed: Of arrivals and of the prompts' tokens.

    Raises:
        InputError: Naming the first field that is too small.
    """

    requests: int = 500
    prompt_tokens: int = 512
    output_tokens: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"requests": 5, "prompt_tokens": 1, "output_tokens": 1, "seed": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(name, getattr(self, name), f"at least {value}")


@dataclass(frozen=True)
class Figures:
    """Means over the requests that arrive in the measured window (20 to 80 % of the arrivals).

    What had not happened to all of them when the run ended is None.

    Attributes:
        latency_half_width_s: Of the 95 % interval of the mean latency, from ten batches of requests
            in order of arrival; None with fewer than 50 requests in the window.
        completed_per_s: Requests completed per second of the window.
    """

    latency_s: float | None
    latency_half_width_s: float | None
    ttft_s: float | None
    completed_per_s: float


@dataclass(frozen=True)
class ClosedLoop:
    """One run of a tape.

    Attributes:
        requests: In order of arrival, all of them complete.
        admitted: Admissions of each iteration.
    """

    limits: Limits
    rate_per_s: float
    requests: tuple[Request, ...]
    admitted: tuple[int, ...]
    measured: Figures
    simulated: Figures

    @property
    def evictions_per_request(self) -> float:
        """Evictions of the engine, divided by the requests."""
        return sum(one.evictions for one in self.requests) / len(self.requests)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: measured beside simulated."""
        return {
            "policy": simulated_policy(self.limits),
            "rate_per_s": self.rate_per_s,
            "requests": len(self.requests),
            "iterations": len(self.admitted),
            "evictions_per_request": self.evictions_per_request,
            "measured": asdict(self.measured),
            "simulated": asdict(self.simulated),
        }


@dataclass(frozen=True)
class NamedRun:
    """A run with what it was made for: a policy by name, and the rate that was asked for."""

    name: str
    offered_per_s: float
    loop: ClosedLoop


@dataclass(frozen=True, repr=False)
class ClosedLoopRuns(Result):
    """Measured beside simulated latency, a run per rate and policy.

    Attributes:
        server: On which the same tapes were simulated.
        command: What is told of how this was measured.
    """

    model: str
    device: str
    server: str
    command: str
    runs: tuple[NamedRun, ...]

    def blocks(self) -> Iterable[Block]:
        """A line per run."""
        yield Table(
            f"{self.model} on {self.device}, simulated with {self.server}",
            ("policy", "rate /s", "latency s", "±", "simulated", "TTFT s", "simulated", "evicted"),
            tuple(
                (
                    one.name,
                    number(one.offered_per_s),
                    number(one.loop.measured.latency_s),
                    number(one.loop.measured.latency_half_width_s),
                    number(one.loop.simulated.latency_s),
                    number(one.loop.measured.ttft_s),
                    number(one.loop.simulated.ttft_s),
                    number(one.loop.evictions_per_request),
                )
                for one in self.runs
            ),
            spare=("evicted", "±"),
        )

    def document(self) -> dict[str, Any]:
        """Each run with its measured and its simulated figures."""
        runs = [
            {"name": one.name, "offered_per_s": one.offered_per_s} | one.loop.as_dict()
            for one in self.runs
        ]
        return {
            "model": self.model,
            "device": self.device,
            "command": self.command,
            "runs": runs,
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row per run."""
        columns: dict[str, list[Any]] = {
            "policy": [one.name for one in self.runs],
            "offered_per_s": [one.offered_per_s for one in self.runs],
        }
        for side in ("measured", "simulated"):
            figures = [asdict(getattr(one.loop, side)) for one in self.runs]
            for name in ("latency_s", "latency_half_width_s", "ttft_s", "completed_per_s"):
                columns[f"{side}_{name}"] = [one[name] for one in figures]
        evictions = [one.loop.evictions_per_request for one in self.runs]
        return columns | {"evictions_per_request": evictions}


def poisson_tape(
    rate_per_s: float, requests: int, prompt_tokens: int, output_tokens: int, seed: int
) -> Tape:
    """Poisson arrivals of alike requests, the first at its own gap after 0."""
    gaps = np.random.default_rng(seed).exponential(1 / rate_per_s, requests)
    return Tape(
        np.cumsum(gaps),
        np.full(requests, prompt_tokens),
        np.full(requests, output_tokens),
    )


@dataclass(frozen=True)
class ServedModel:
    """A decoder with room for a closed loop, warmed up; one serves any number of runs.

    Attributes:
        cache: A slot for everyone who can be resident.
    """

    decoder: Decoder
    cache: KVCache
    runner: Runner

    @classmethod
    def ready_for(
        cls, decoder: Decoder, server: Server, tape: Tape, *, cuda_graphs: bool = False
    ) -> Self:
        """As many slots as the tape and the server's KV can ask for, each as long as its longest.

        Args:
            cuda_graphs: Replay CUDA graphs, as in the sweep from which the server comes.

        Raises:
            InputError: The slots do not fit into the device's memory.
        """
        import torch

        prompt_tokens = int(tape.num_prefill_tokens[0])
        longest = int((tape.num_prefill_tokens + tape.num_decode_tokens).max())
        shortest = server.block_rounded(int(tape.num_prefill_tokens.min()))
        slots = min(len(tape), server.usable_kv_tokens // shortest + 1)
        weight = decoder.lm_head.weight
        try:
            cache = KVCache(decoder.shape, slots, longest, weight.device, weight.dtype)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            value = f"{slots} slots of {longest} tokens"
            allowed = "fewer requests or less kv_capacity_tokens: so much memory is not free"
            raise InputError("slots", value, allowed) from error
        if cuda_graphs:
            graphs = GraphRunner(decoder, cache)
            graphs.prepare(prompt_tokens, longest)
            return cls(decoder, cache, graphs)
        found = cls(decoder, cache, EagerRunner(decoder, cache))
        for _ in range(3):
            warm = found.engine(server, Limits())
            warm.waiting.append(Request(0.0, [0] * prompt_tokens, 2))
            for _ in range(2):
                warm.form_batch()
                warm.run()
        return found

    def engine(self, server: Server, limits: Limits) -> Engine:
        """An empty engine on it."""
        return Engine(self.runner, self.cache, server.usable_kv_tokens, server.block_tokens, limits)


def closed_loop(
    model: ServedModel,
    server: Server,
    tape: Tape,
    limits: Limits,
    seed: int = 0,
    on_done: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> ClosedLoop:
    """Serve the tape in real time on the decoder, and simulate it on the server.

    Args:
        server: Calibrated from a sweep of this decoder on this device; its KV capacity bounds the
            engine as well.
        seed: Of the prompts' tokens.
        clock: `time.perf_counter` for real time; `time.process_time` leaves out what other programs
            take, and skips the idle time between arrivals.

    Raises:
        InputError: A request can never fit into the server's KV, or the server's first token does
            not come from the prefill.
    """
    if server.first_token != "prefill":
        raise InputError("first_token", server.first_token, "prefill, as the engine works")
    simulator = tape_model(tape, server)
    trace = run_traced(simulator, Job(parse_policy(simulated_policy(limits)), 0, 0, 1.0), len(tape))
    simulated = _figures(trace.arrived_at_s, trace.first_token_at_s, trace.completed_at_s)
    engine = model.engine(server, limits)
    requests = _requests(model.decoder.shape.vocabulary, tape, seed)
    _serve(engine, requests, on_done, clock)
    times = [(one.arrived_at_s, one.first_token_at_s, one.completed_at_s) for one in requests]
    measured = _figures(*np.array(times, dtype=float).T)
    return ClosedLoop(
        limits, tape.rate_per_s, tuple(requests), tuple(engine.admitted), measured, simulated
    )


def closed_loop_runs(
    target: Target,
    server: Server,
    rates_per_s: Sequence[float],
    table: ThresholdTable | None = None,
    load: AlikeRequests | None = None,
    *,
    cuda_graphs: bool = False,
    command: str = "",
    on_done: Callable[[], None] = lambda: None,
) -> ClosedLoopRuns:
    """Serve Poisson arrivals under a table and under greedy, beside the simulator.

    Args:
        rates_per_s: Arrivals per second, a run for each and policy.
        table: Thresholds of policy paced to serve under as well.
        cuda_graphs: As `ServedModel.ready_for`.
        on_done: Called after each request.

    Raises:
        InputError: A rate that is not positive, a table of another policy, graphs without CUDA, or
            as `ServedModel.ready_for` and `closed_loop`.
    """
    if cuda_graphs:
        target.require_cuda_graphs()
    for rate in rates_per_s:
        if not 0 < rate < math.inf:
            raise InputError("rates", rate, "requests per second > 0")
    load = load or AlikeRequests()
    policies = closed_loop_policies(table)
    tapes = [
        poisson_tape(rate, load.requests, load.prompt_tokens, load.output_tokens, load.seed)
        for rate in rates_per_s
    ]
    model = ServedModel.ready_for(target.decoder(), server, tapes[0], cuda_graphs=cuda_graphs)
    runs = []
    for rate, tape in zip(rates_per_s, tapes, strict=True):
        for name, limits in policies.items():
            found = closed_loop(model, server, tape, limits, load.seed, on_done)
            runs.append(NamedRun(name, rate, found))
    return ClosedLoopRuns(target.shape.name, str(target.device), server.name, command, tuple(runs))


def closed_loop_policies(table: ThresholdTable | None) -> dict[str, Limits]:
    """What the engine serves under, by name: the table's limits, if there is one, and greedy.

    Raises:
        InputError: A table of another policy than paced.
    """
    greedy = {"greedy": Limits(watermark_fraction=0.01)}
    return greedy if table is None else {"table": paced_limits(table)} | greedy


def _requests(vocabulary: int, tape: Tape, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [
        Request(arrived, rng.integers(0, vocabulary, prompt).tolist(), outputs)
        for arrived, prompt, outputs in zip(
            tape.arrived_at_s.tolist(),
            tape.num_prefill_tokens.tolist(),
            tape.num_decode_tokens.tolist(),
            strict=True,
        )
    ]


def _serve(
    engine: Engine,
    requests: list[Request],
    on_done: Callable[[], None],
    clock: Callable[[], float],
) -> None:
    """Arrivals join at the end of the iteration in which they come."""
    begin = clock()
    coming = 0
    while coming < len(requests) or engine.waiting or engine.residents:
        now = clock() - begin
        while coming < len(requests) and requests[coming].arrived_at_s <= now:
            engine.waiting.append(requests[coming])
            coming += 1
        if not engine.waiting and not engine.residents:
            idle_s = max(requests[coming].arrived_at_s - now, 0.0)
            if clock is time.perf_counter:
                time.sleep(idle_s)
            else:
                begin -= idle_s
            continue
        engine.form_batch()
        computed = list(engine.residents)
        done = engine.run()
        now = clock() - begin
        for request in computed:
            if request.first_token_at_s is None:
                request.first_token_at_s = now
        for request in done:
            request.completed_at_s = now
            on_done()


def _figures(arrived_s: Floats, first_s: Floats, completed_s: Floats) -> Figures:
    """Figures of one run; times are NaN where something had not happened when it ended."""
    start = int(WINDOW_START * len(arrived_s))
    end = max(int(WINDOW_END * len(arrived_s)), start + 1)
    since, until = arrived_s[start], arrived_s[min(end, len(arrived_s) - 1)]
    latencies = (completed_s - arrived_s)[start:end]
    half_width = None
    if len(latencies) >= 50:
        means = [part.mean() for part in np.array_split(latencies, 10)]
        half_width = _known(interval(means).half_width)
    completed = np.count_nonzero((since < completed_s) & (completed_s <= until))
    return Figures(
        latency_s=_known(latencies.mean()),
        latency_half_width_s=half_width,
        ttft_s=_known((first_s - arrived_s)[start:end].mean()),
        completed_per_s=completed / max(float(until - since), 1e-9),
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
