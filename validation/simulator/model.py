"""What a simulation runs on: workload and server flattened to arrays that kernels read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server, fit_of, peak_kv_tokens, require_fits
from fluid.service_levels import promises
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from validation.simulator.arrivals import ARRIVALS, PIECE, Arrivals, as_arrivals, rate_pieces
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.state import TRAFFIC, UNLIMITED
from validation.simulator.traffic.traffic import Traffic

SHAPE = np.dtype(
    [
        ("share_cumulative", "f8"),  # probability of this shape or an earlier one
        ("prompt_tokens", "i8"),  # prefill and context tokens known on arrival
        ("context_tokens", "i8"),  # of these, KV already present on arrival
        ("output_tokens", "i8"),
        ("prompt_rank", "i8"),  # position of the prompt among the distinct prompts, ascending
        ("volume_rank", "i8"),  # the same for KV tokens held, summed over all stages
        ("report_class", "i8"),  # class under which requests of this shape are reported
        ("too_long", "i8"),  # 1: never fits into memory, so that it is refused at submission
        ("limited", "i8"),  # 1: its class has limits,
        ("ttft_limit_s", "f8"),  # inf where there is none
        ("tpot_limit_s", "f8"),
        ("latency_limit_s", "f8"),
        ("promise", "i8"),  # whose limits they are, in the order of `promises`; -1: none
        ("quantile", "f8"),  # share of its requests that has to meet them; 0: their means
        ("work_s", "f8"),  # server seconds that a request takes of a full batch
    ],
    align=True,
)
"""A distinct (prompt, context, output) of a request."""

TAPE_ROW = np.dtype([("arrived_at_s", "f8"), ("shape", "i8")], align=True)

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
        ("max_num_batched_tokens", "i8"),  # what the engine can run at most, 0 where not known:
        ("max_num_seqs", "i8"),  # defaults of policies
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
    """

    constants: NDArray[np.void]
    shapes: NDArray[np.void]
    knots: NDArray[np.void]
    tape: NDArray[np.void]
    arrivals: NDArray[np.void]
    profile: NDArray[np.void]

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
        return Traffic.of_numbers(self.constants[0], bool(self.shapes["too_long"].any()))

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
    shapes = _shapes(workload, server, behaviour)
    record = as_arrivals(arrivals).record(workload)
    if behaviour.job is not None and behaviour.job.at_once:
        record["burst_requests"] = UNLIMITED
    model = _model(server, shapes, np.zeros(0, TAPE_ROW), workload.rate_per_s, behaviour)
    profile = _over_shapes(rate_pieces(workload), shapes)
    return model._replace(arrivals=record, profile=profile)


def _over_shapes(profile: NDArray[np.void], shapes: NDArray[np.void]) -> NDArray[np.void]:
    """PIECE records of the classes, for all shapes of each class in their proportions."""
    if profile.shape[1] == len(shapes):
        return profile
    owner = shapes["report_class"]
    shares = np.diff(shapes["share_cumulative"], prepend=0.0)
    within = shares / np.bincount(owner, shares)[owner]
    here = np.diff(profile["share_cumulative"], axis=1, prepend=0.0)[:, owner] * within
    found = profile[:, owner].copy()
    found["share_cumulative"] = np.cumsum(here, axis=1)
    found["share_cumulative"] /= found["share_cumulative"][:, -1:]
    return found


def _shapes(workload: Workload, server: Server, traffic: Traffic) -> NDArray[np.void]:
    """SHAPE records: one for every class, or for every output length of it."""
    parts = []
    promise_of = {
        index: (number, one.slo.quantile)
        for number, one in enumerate(promises(workload))
        for index in one.classes
    }
    for index, (one, share) in enumerate(zip(workload.classes, workload.shares, strict=True)):
        lengths, within = np.array([one.decode_tokens]), np.ones(1)
        if traffic.outputs is not None:
            longest = _longest_output(one, server)
            lengths, within = traffic.outputs.lengths(one.decode_tokens, longest)
        part = np.zeros(len(lengths), SHAPE)
        part["share_cumulative"] = share * within
        part["prompt_tokens"] = one.prefill_tokens + one.context_tokens
        part["context_tokens"] = one.context_tokens
        part["output_tokens"] = lengths
        part["report_class"] = index
        number, quantile = promise_of.get(index, (-1, "mean"))
        part["promise"], part["quantile"] = number, 0 if quantile == "mean" else quantile
        slo = one.slo or workload.slo
        part["limited"] = slo is not None
        for limit in ("ttft", "tpot", "latency"):
            asked_s = getattr(slo, f"{limit}_s", None)
            part[f"{limit}_limit_s"] = math.inf if asked_s is None else asked_s
        parts.append(part)
    shapes = np.concatenate(parts)
    shapes["share_cumulative"] = np.cumsum(shapes["share_cumulative"])
    shapes["share_cumulative"] /= shapes["share_cumulative"][-1]
    return shapes


def _longest_output(one: RequestClass, server: Server) -> int:
    """Output tokens of the longest request of a class that fits; its own where not even that."""
    outputs = np.arange(1, server.usable_kv_tokens + 2)
    peak = peak_kv_tokens(
        one.prefill_tokens,
        outputs,
        one.context_tokens,
        first_token=server.first_token,
        block_tokens=server.block_tokens,
    )
    return max(int((peak <= server.usable_kv_tokens).sum()), one.decode_tokens)


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
    return _model(server, shapes, rows, rate_per_s, behaviour)


def _model(
    server: Server,
    shapes: NDArray[np.void],
    tape: NDArray[np.void],
    rate_per_s: float,
    traffic: Traffic,
) -> Model:
    tau = server.iteration_time
    _mark_too_long(shapes, server)
    constants = np.zeros(1, CONSTANTS)
    shapes["prompt_rank"] = _ranks(shapes["prompt_tokens"])
    shapes["volume_rank"] = _ranks(_kv_volumes(shapes, server))
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
        **_work(tau, server.usable_kv_tokens),
        "max_num_batched_tokens": server.max_num_batched_tokens or 0,
        "max_num_seqs": server.max_num_seqs or 0,
        **traffic.numbers(),
        "listed": len(tape) > 0,
    }
    for name, value in values.items():
        constants[name] = value
    shapes["work_s"] = _work_s(constants[0], shapes)
    knots = np.zeros(len(tau.tokens_knots), KNOT)
    knots["tokens"], knots["seconds"] = tau.tokens_knots, tau.seconds_knots
    return Model(constants, shapes, knots, tape, np.zeros(1, ARRIVALS), np.zeros((0, 0), PIECE))


def _mark_too_long(shapes: NDArray[np.void], server: Server) -> None:
    """Mark what never fits; it never enters, so that its lengths may be those of what does.

    Raises:
        InputError: Nothing else is left.
    """
    context_tokens = shapes["context_tokens"]
    computed_tokens = shapes["prompt_tokens"] - context_tokens
    fit = fit_of(computed_tokens, shapes["output_tokens"], context_tokens, server)
    shapes["too_long"] = fit.too_large | fit.too_long
    if shapes["too_long"].all():
        allowed = f"some that fit into the {server.usable_kv_tokens} tokens of {server.name}"
        raise InputError("requests", "all too long for the KV cache", allowed)
    fitting = np.flatnonzero(shapes["too_long"] == 0)[0]
    for name in ("prompt_tokens", "context_tokens", "output_tokens"):
        shapes[name][shapes["too_long"] == 1] = shapes[name][fitting]


def _work(tau: IterationTime, capacity_tokens: int) -> dict[str, float]:
    """The last slope of f, and what prompt, output and KV tokens take of a full server.

    Token by token, as in the fluid model: the overhead of an iteration is shared by what fits into
    memory, in proportion to the KV tokens held.
    """
    token_s = tau.last_slope_s
    return {
        "token_s": token_s,
        "prefill_work_s": token_s + tau.per_prefill_token_s,
        "output_work_s": token_s + tau.per_decode_request_s,
        "kv_work_s": tau.per_kv_token_s + tau.overhead_s / capacity_tokens,
    }


def _work_s(constants: np.void, shapes: NDArray[np.void]) -> NDArray[np.float64]:
    prompts, outputs = shapes["prompt_tokens"], shapes["output_tokens"]
    work_s: NDArray[np.float64] = (
        constants["prefill_work_s"] * (prompts - shapes["context_tokens"])
        + constants["output_work_s"] * outputs
        + constants["kv_work_s"] * outputs * (prompts + 0.5 * outputs)
    )
    return work_s


def _ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each value among the distinct values, ascending, from 0."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _kv_volumes(shapes: NDArray[np.void], server: Server) -> NDArray[np.int64]:
    """m of each shape (THEORY 2): block-rounded KV tokens held, summed over its stages."""
    decode_only = shapes["prompt_tokens"] == shapes["context_tokens"]
    first = shapes["prompt_tokens"] + decode_only
    silent = (server.first_token == "decode") & ~decode_only
    last = first + shapes["output_tokens"] - 1 + silent
    return _rounded_sum(last, server.block_tokens) - _rounded_sum(first - 1, server.block_tokens)


def _rounded_sum(last: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Σ of 1 … last, each rounded up to whole blocks."""
    whole, rest = last // block, last % block
    return block * (block * (whole * (whole + 1) // 2) + rest * (whole + 1))
