"""What a simulation runs on: workload and server flattened to arrays that kernels read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.server import Server, fit_of, require_fits
from fluid.traces.tape import Tape
from fluid.workload import Workload
from validation.simulator.arrivals import ARRIVALS, PIECE, Arrivals, as_arrivals, rate_pieces
from validation.simulator.prefix.content import RUN, runs_of
from validation.simulator.shapes import (
    SHAPE,
    kv_volumes,
    mark_too_long,
    over_shapes,
    ranks_of,
    shapes_of,
    shared_runs,
    starts_of,
    work_of,
    work_parts,
)
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.state import TRAFFIC, UNLIMITED
from validation.simulator.traffic.traffic import Traffic

TAPE_ROW = np.dtype(
    [
        ("arrived_at_s", "f8"),
        ("shape", "i8"),
        ("first_run", "i8"),  # as in SHAPE, whose own do not count here
        ("runs", "i8"),
    ],
    align=True,
)

KNOT = np.dtype([("tokens", "f8"), ("seconds", "f8")], align=True)

CONSTANTS = np.dtype(
    [
        ("rate_per_s", "f8"),  # total arrival rate before scaling
        ("kv_capacity_tokens", "i8"),  # usable: whole blocks
        ("block_tokens", "i8"),
        ("silent_prefill", "i8"),  # 1 under the paper convention: prefill emits no token
        ("some_decode_only", "i8"),  # 1: a request may come with all of its prompt in KV
        ("per_kv_token_s", "f8"),
        ("per_prefill_token_s", "f8"),
        ("per_decode_request_s", "f8"),
        ("per_prefill_token_sq_s", "f8"),
        ("per_prefill_context_token_s", "f8"),
        ("token_s", "f8"),  # last slope of f: what a token costs in a large batch
        ("prefill_work_s", "f8"),  # parts of `work_s`: per prompt token,
        ("output_work_s", "f8"),  # per output token,
        ("kv_work_s", "f8"),  # per KV token held for one iteration
        ("starts_share", "f8"),  # of the rate: requests that do not follow an earlier turn
        ("conversations", "i8"),  # 1: some requests are followed by the next turn
        ("max_num_batched_tokens", "i8"),  # what the engine can run at most, 0 where not known:
        ("max_num_seqs", "i8"),  # defaults of policies,
        ("vllm_batched_tokens", "i8"),  # and under vLLM, with its own defaults for the GPU
        ("vllm_seqs", "i8"),
        *TRAFFIC,
    ],
    align=True,
)


LEAST_ROUNDS = 10
"""Requests for each client of a closed loop: the window then begins after two rounds."""


class Model(NamedTuple):
    """Read-only input of a kernel.

    Attributes:
        constants: One record of CONSTANTS, shape (1,).
        shapes: SHAPE records, shape (shapes,).
        knots: KNOT records of f, shape (knots,).
        tape: TAPE_ROW records of recorded arrivals, shape (requests,); empty if they are drawn.
        arrivals: One record of ARRIVALS, shape (1,).
        profile: PIECE records of the rate profile, shape (pieces, shapes).
        runs: RUN records: what prompts of a shape have in common with others.
    """

    constants: NDArray[np.void]
    shapes: NDArray[np.void]
    knots: NDArray[np.void]
    tape: NDArray[np.void]
    arrivals: NDArray[np.void]
    profile: NDArray[np.void]
    runs: NDArray[np.void]

    @property
    def service(self) -> Service:
        """What the loop reads once the arrivals are laid out."""
        return Service(self.constants, self.shapes, self.knots)

    @property
    def rate_per_s(self) -> float:
        """Total arrival rate before scaling; NaN where requests come at no rate."""
        constants = self.constants[0]
        return float(constants["rate_per_s"]) if constants["at_a_rate"] else math.nan

    @property
    def traffic(self) -> Traffic:
        """What clients do."""
        return Traffic.of_numbers(self.constants[0], self.shapes)

    def rate_scale(self, rate_per_s: float | None) -> float:
        """A total rate in multiples of the model's own, as the simulator's jobs have it.

        Args:
            rate_per_s: None for the model's own.

        Raises:
            InputError: It is not positive and finite.
        """
        if rate_per_s is None:
            return 1.0
        if math.isnan(self.rate_per_s):
            if math.isnan(rate_per_s):
                return 1.0
            raise InputError("rate_per_s", rate_per_s, "none: clients and jobs come at no rate")
        if not 0 < rate_per_s < math.inf:
            raise InputError("rate_per_s", rate_per_s, "requests per second > 0")
        return rate_per_s / self.rate_per_s

    def offered(self, rates_per_s: Iterable[float] | None) -> list[float]:
        """The total rates that are asked for, or the model's own.

        Raises:
            InputError: None at all, or one that is not positive and finite.
        """
        if rates_per_s is None:
            return [self.rate_per_s]
        rates = [float(one) for one in rates_per_s]
        if not rates:
            raise InputError("rates", "none", "at least one")
        for one in rates:
            self.rate_scale(one)
        return rates

    def require_rounds(self, requests: int) -> None:
        """Refuse a run too short for its clients to be measured between two of its arrivals.

        Raises:
            InputError: The window would begin before every client has had an answer.
        """
        clients = int(self.constants[0]["clients"])
        if not self.constants[0]["whole_run"] and requests < LEAST_ROUNDS * clients:
            allowed = f"at least {LEAST_ROUNDS} for each client, or a finite job"
            raise InputError("requests", requests, allowed)

    @property
    def classes(self) -> int:
        """Number of report classes."""
        return int(self.shapes["report_class"].max()) + 1

    @property
    def most_residents(self) -> int:
        """An upper bound on requests that hold KV at the same time.

        All but one hold at least their prompt; the newest may hold only its first chunk.
        """
        constants = self.constants[0]
        block = int(constants["block_tokens"])
        least = -(-int(self.shapes["prompt_tokens"].min()) // block) * block
        return int(constants["kv_capacity_tokens"]) // least + 1


class Service(NamedTuple):
    """The part of a `Model` that the loop reads, under the same names.

    The arrays of a tuple are passed by value in every call of a kernel: with three more of them
    the loop is measurably slower.
    """

    constants: NDArray[np.void]
    shapes: NDArray[np.void]
    knots: NDArray[np.void]


def model_of(
    load: Workload | Tape,
    server: Server,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
) -> Model:
    """What to simulate: a workload that arrives as told, or a recording as it is.

    Raises:
        InputError: As `poisson_model` or `tape_model`, or a kind of arrivals beside a recording.
    """
    if isinstance(load, Workload):
        return poisson_model(load, server, arrivals, traffic)
    if arrivals is not None:
        allowed = "none beside a tape, which has its own"
        raise InputError("arrivals", as_arrivals(arrivals).label, allowed)
    return tape_model(load, server, traffic)


def poisson_model(
    workload: Workload,
    server: Server,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
) -> Model:
    """Arrivals of the workload's classes, Poisson unless told otherwise; a shape for every class.

    The workload's rate profile applies to every kind of arrivals.

    Args:
        arrivals: As `Arrivals`, or as text that `parse_arrivals` reads.
        traffic: What clients do; they come and wait where None.

    Raises:
        InputError: A request of some class can never fit into memory, or arrivals that nobody
            waits for, as clients or a job come in another way.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> fw.poisson_model(load, fw.Server.named("paper-long-decode")).rate_per_s
    2.0
    """
    behaviour = traffic or Traffic()
    if not behaviour.refuse_too_long:
        require_fits(workload, server)
    if arrivals is not None and not behaviour.at_a_rate:
        allowed = "none beside clients or a job at once, which do not arrive at a rate"
        raise InputError("arrivals", as_arrivals(arrivals).label, allowed)
    shapes = shapes_of(workload, server, behaviour)
    converses = any(one.conversation is not None for one in workload.classes)
    if converses:
        _require_open(behaviour)
    starts = starts_of(workload) if converses else workload
    record = as_arrivals(arrivals).record(starts)
    if behaviour.job is not None and behaviour.job.at_once:
        record["burst_requests"] = UNLIMITED
    model = _model(server, shapes, np.zeros(0, TAPE_ROW), workload.rate_per_s, behaviour)
    model.constants["conversations"] = converses
    model.constants["reacts"] |= converses
    model.constants["starts_share"] = starts.rate_per_s / workload.rate_per_s
    profile = over_shapes(rate_pieces(starts), shapes)
    return model._replace(arrivals=record, profile=profile, runs=shared_runs(workload, server))


def _require_open(traffic: Traffic) -> None:
    """Refuse what says otherwise when the turns of a conversation come, or whether.

    Raises:
        InputError: Naming it.
    """
    allowed = "none beside conversations, whose turns come when they were answered"
    for field, given in (("clients", traffic.clients), ("patience", traffic.patience)):
        if given is not None:
            raise InputError(field, str(given), allowed)
    if traffic.job is not None and traffic.job.at_once:
        raise InputError("job", "at-once", "as-recorded beside conversations")


def tape_model(tape: Tape, server: Server, traffic: Traffic | None = None) -> Model:
    """Recorded arrivals, reported as one class; a finite job where all come at one instant.

    Args:
        traffic: What clients do; they come as recorded, and wait, where None.

    Raises:
        InputError: A recorded request can never fit into memory.
    """
    behaviour = traffic or Traffic()
    if behaviour.outputs is not None:
        raise InputError("outputs", behaviour.outputs.law, "none beside a tape, which has its own")
    if behaviour.at_a_rate and tape.arrived_at_s[-1] == tape.arrived_at_s[0]:
        behaviour = replace(behaviour, job=FiniteJob(at_once=True))
    pairs = np.stack([tape.num_prefill_tokens, tape.num_decode_tokens], axis=1)
    if not behaviour.refuse_too_long:
        fit = fit_of(pairs[:, 0], pairs[:, 1], 0, server)
        fit.require(server, lambda row: f"row {row + 1} of the tape", "longer requests")
    distinct, shape_of = np.unique(pairs, axis=0, return_inverse=True)
    shapes = np.zeros(len(distinct), SHAPE)
    shapes["prompt_tokens"], shapes["output_tokens"] = distinct.T
    shapes["promise"] = -1
    for limit in ("ttft", "tpot", "latency"):
        shapes[f"{limit}_limit_s"] = math.inf
    rows = np.zeros(len(pairs), TAPE_ROW)
    rows["arrived_at_s"] = tape.arrived_at_s
    if behaviour.job is not None and behaviour.job.at_once:
        rows["arrived_at_s"] = 0.0
    rows["shape"] = shape_of.reshape(-1)
    rate_per_s = tape.rate_per_s if behaviour.at_a_rate else math.nan
    model = _model(server, shapes, rows, rate_per_s, behaviour)
    if tape.blocks is None:
        return model
    runs, first = runs_of(tape.blocks, tape.num_prefill_tokens, server.block_tokens)
    model.tape["first_run"], model.tape["runs"] = first[:-1], np.diff(first)
    return model._replace(runs=runs)


def _model(
    server: Server,
    shapes: NDArray[np.void],
    tape: NDArray[np.void],
    rate_per_s: float,
    traffic: Traffic,
) -> Model:
    tau = server.iteration_time
    mark_too_long(shapes, server)
    constants = np.zeros(1, CONSTANTS)
    shapes["prompt_rank"] = ranks_of(shapes["prompt_tokens"])
    shapes["volume_rank"] = ranks_of(kv_volumes(shapes, server))
    values = {
        "rate_per_s": rate_per_s,
        "kv_capacity_tokens": server.usable_kv_tokens,
        "block_tokens": server.block_tokens,
        "silent_prefill": server.first_token == "decode",
        "some_decode_only": bool((shapes["prompt_tokens"] == shapes["context_tokens"]).any()),
        "per_kv_token_s": tau.per_kv_token_s,
        "per_prefill_token_s": tau.per_prefill_token_s,
        "per_decode_request_s": tau.per_decode_request_s,
        "per_prefill_token_sq_s": tau.per_prefill_token_sq_s,
        "per_prefill_context_token_s": tau.per_prefill_context_token_s,
        **work_parts(tau, server.usable_kv_tokens),
        "max_num_batched_tokens": server.max_num_batched_tokens or 0,
        "max_num_seqs": server.max_num_seqs or 0,
        "vllm_batched_tokens": server.vllm_limits[0] or 0,
        "vllm_seqs": server.vllm_limits[1] or 0,
        **traffic.numbers(),
        "starts_share": 1.0,
        "listed": len(tape) > 0,
    }
    for name, value in values.items():
        constants[name] = value
    shapes["work_s"] = work_of(constants[0], shapes)
    knots = np.zeros(len(tau.tokens_knots), KNOT)
    knots["tokens"], knots["seconds"] = tau.tokens_knots, tau.seconds_knots
    nobody, nothing = np.zeros(1, ARRIVALS), np.zeros(0, RUN)
    return Model(constants, shapes, knots, tape, nobody, np.zeros((0, 0), PIECE), nothing)
