"""The real model under arrivals in real time, beside the simulator on the same tape."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.server import Server
from fluid.traces.tape import Tape
from validation.compare import PolicyResult, compare
from validation.measure.engine import Engine, Limits, Request
from validation.measure.kv_cache import KVCache
from validation.measure.model import Decoder
from validation.policies import parse_policy
from validation.simulator.engine import WINDOW_END, WINDOW_START
from validation.simulator.model import tape_model


@dataclass(frozen=True)
class Figures:
    """Means over the requests that arrive in the measured window (20 to 80 % of the arrivals).

    Attributes:
        completed_per_s: Requests completed per second of the window.
    """

    latency_s: float
    ttft_s: float
    completed_per_s: float


@dataclass(frozen=True)
class ClosedLoop:
    """One run of a tape.

    Attributes:
        requests: In order of arrival, all of them complete.
        admitted: Admissions of each iteration.
    """

    limits: Limits
    requests: tuple[Request, ...]
    admitted: tuple[int, ...]
    measured: Figures
    simulated: PolicyResult

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: measured beside simulated."""
        simulated = self.simulated
        return {
            "policy": self.limits.policy,
            "rate_per_s": simulated.rate_per_s,
            "requests": len(self.requests),
            "iterations": len(self.admitted),
            "evictions_per_request": sum(one.evictions for one in self.requests)
            / len(self.requests),
            "measured": {
                "latency_s": self.measured.latency_s,
                "ttft_s": self.measured.ttft_s,
                "completed_per_s": self.measured.completed_per_s,
            },
            "simulated": {
                "latency_s": simulated.latency_s.mean if simulated.latency_s else None,
                "ttft_s": simulated.ttft_s.mean if simulated.ttft_s else None,
                "completed_per_s": simulated.completed_per_s,
            },
        }


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


def closed_loop(
    decoder: Decoder,
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
        InputError: A request can never fit into the server's KV, the server's first token does not
            come from the prefill, or the slots do not fit into the device's memory.
    """
    if server.first_token != "prefill":
        raise InputError("first_token", server.first_token, "prefill, as the engine works")
    model = tape_model(tape, server)
    (simulated,) = compare(model, [parse_policy(limits.policy)], replications=1, requests=len(tape))
    engine = _engine(decoder, server, tape, limits)
    requests = _requests(decoder, tape, seed)
    _serve(engine, requests, on_done, clock)
    return ClosedLoop(
        limits, tuple(requests), tuple(engine.admitted), _figures(requests), simulated
    )


def _engine(decoder: Decoder, server: Server, tape: Tape, limits: Limits) -> Engine:
    """An engine with a slot for everyone who can be resident, warmed up."""
    import torch

    longest = int((tape.num_prefill_tokens + tape.num_decode_tokens).max())
    shortest = server.block_rounded(int(tape.num_prefill_tokens.min()))
    slots = int(min(limits.cap, len(tape), server.usable_kv_tokens // shortest + 1))
    weight = decoder.lm_head.weight
    try:
        cache = KVCache(decoder.shape, slots, longest, weight.device, weight.dtype)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        value = f"{slots} slots of {longest} tokens"
        raise InputError(
            "cap", value, "a lower cap: the slots need more memory than is free"
        ) from (error)
    for _ in range(3):
        warm = Engine(decoder, cache, server.usable_kv_tokens, server.block_tokens, Limits())
        warm.waiting.append(Request(0.0, [0] * int(tape.num_prefill_tokens[0]), 2))
        for _ in range(2):
            warm.form_batch()
            warm.run()
    return Engine(decoder, cache, server.usable_kv_tokens, server.block_tokens, limits)


def _requests(decoder: Decoder, tape: Tape, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    vocabulary = decoder.shape.vocabulary
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


def _figures(requests: list[Request]) -> Figures:
    start = int(WINDOW_START * len(requests))
    end = max(int(WINDOW_END * len(requests)), start + 1)
    cohort = requests[start:end]
    since, until = cohort[0].arrived_at_s, requests[min(end, len(requests) - 1)].arrived_at_s
    finished = [one.completed_at_s or 0.0 for one in requests]
    latencies = [(one.completed_at_s or 0.0) - one.arrived_at_s for one in cohort]
    firsts = [(one.first_token_at_s or 0.0) - one.arrived_at_s for one in cohort]
    completed = sum(since < one <= until for one in finished)
    return Figures(
        float(np.mean(latencies)), float(np.mean(firsts)), completed / max(until - since, 1e-9)
    )
