"""Sound loads and servers of any scale, and what every answer about them keeps."""

from __future__ import annotations

import json
import math
import random
import traceback
import warnings

from fluid.errors import FluidwaitError, InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.packing import packing
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from thresholds.fleet import ServerType, fleet
from thresholds.solvers.registry import SOLVERS
from thresholds.solvers.wait.objectives import WAIT_OBJECTIVES
from thresholds.table import ThresholdTable

QUESTIONS = (
    *("equilibrium", "fleet", *SOLVERS),
    *(f"wait {objective}" for objective in WAIT_OBJECTIVES if objective != "latency"),
)
"""What is asked; a solver's name asks for its table."""

_NEAR = 1e-6
"""Relative distance from the boundary within which rounding may say either."""


def any_scale(rng: random.Random) -> tuple[Workload, Server]:
    """A load on a server, every figure log-uniform over twenty decades or what is allowed.

    Most loads are then put near the boundary: otherwise nearly all would be far outside.
    """
    while True:
        try:
            server, load = _server(rng), _load(rng)
            if rng.random() < 0.8:
                share = rng.choice((rng.uniform(0.01, 1.2), 1 - 10 ** rng.uniform(-9, -1)))
                load = load.at_rate(load.rate_per_s * stability(load, server).max_scale * share)
        except FluidwaitError:
            continue
        return load, server


def wrong(question: str, load: Workload, server: Server) -> str | None:
    """What is wrong with the answer to a question, if anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return _wrong(question, load, server)
        except InputError:
            return None
        except InfeasibleError as error:
            scale = error.max_scale
            return None if scale is None or 0 <= scale < math.inf else f"carries {scale} times"


def told(question: str, load: Workload, server: Server) -> str | None:
    """The same, with an exception that is none of ours as something wrong."""
    try:
        return wrong(question, load, server)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _wrong(question: str, load: Workload, server: Server) -> str | None:
    if question == "equilibrium":
        return _wrong_equilibrium(load, server)
    if question == "fleet":
        found = fleet(load, [ServerType(server)])
        json.dumps(found.document(), allow_nan=False)
        loads = [one.load for one in found.replicas]
        return None if max(loads) <= 1 and found.cost >= found.cost_at_least else f"loads {loads}"
    policy, _, objective = question.partition(" ")
    solver = SOLVERS[policy](**({"objective": objective} if objective else {}))
    return _wrong_table(solver.solve(load, server))


def _wrong_equilibrium(load: Workload, server: Server) -> str | None:
    found, bound = equilibrium(load, server), packing(load, server)
    json.dumps(found.document(), allow_nan=False)
    if not str(found).strip() or not 0 < found.max_scale < math.inf:
        return f"carries {found.max_scale} times the rates"
    if abs(found.max_scale - 1) > _NEAR and found.stable != (found.max_scale > 1):
        return f"stable {found.stable} at 1/{found.max_scale} of the boundary"
    if not bound.certain_scale <= bound.fluid_scale * (1 + _NEAR):
        return f"{bound.certain_scale} is certain, {bound.fluid_scale} the bound"
    if not found.stable or found.iteration_time_s is None:
        return None
    least_s = server.iteration_time.overhead_s * (1 - _NEAR)
    if not least_s <= found.iteration_time_s < math.inf:
        return f"iterations of {found.iteration_time_s} s"
    return None if found.utilisation < 1 + _NEAR else f"utilisation {found.utilisation}"


def _wrong_table(table: ThresholdTable) -> str | None:
    json.dumps(table.document(), allow_nan=False)
    if not str(table).strip() or not all(one.holds for one in table.certificate):
        return f"certificate {table.certificate}"
    memory = table.memory
    if not 0 < memory.required_tokens <= memory.capacity_tokens * (1 + _NEAR):
        return f"{memory.required_tokens} of {memory.capacity_tokens} tokens"
    if any(not 0 < one.threshold < math.inf for one in table.thresholds):
        return f"thresholds {table.thresholds}"
    return None


def _log(rng: random.Random, low: float, high: float) -> float:
    return float(10 ** rng.uniform(low, high))


def _server(rng: random.Random) -> Server:
    def coefficient() -> float:
        return 0.0 if rng.random() < 0.4 else _log(rng, -18, 2)

    tokens, seconds = [0.0], [_log(rng, -11, 9)]
    for _ in range(rng.choice((0, 1, 1, 3, 5))):
        jump = len(tokens) > 1 and tokens[-1] > 0 and rng.random() < 0.3
        jump = jump and tokens[-1] != tokens[-2]
        tokens.append(tokens[-1] + (0.0 if jump else math.ceil(_log(rng, 0, 6))))
        seconds.append(seconds[-1] * (1 + _log(rng, -9, 1)))
    if len(tokens) > 1 and tokens[-1] == tokens[-2]:
        tokens.append(tokens[-1] + 1)
        seconds.append(seconds[-1] * 1.5)
    return Server(
        name="s",
        source="any scale",
        kv_capacity_tokens=int(_log(rng, 1, 12)),
        block_tokens=rng.choice((1, 1, 16, 32)),
        first_token=rng.choice(("prefill", "decode")),
        iteration_time=IterationTime(
            tokens_knots=tuple(tokens),
            seconds_knots=tuple(seconds),
            per_kv_token_s=coefficient(),
            per_prefill_token_s=coefficient(),
            per_decode_request_s=coefficient(),
        ),
    )


def _load(rng: random.Random) -> Workload:
    classes = [
        RequestClass(
            name=f"c{index}",
            rate_per_s=_log(rng, -10, 10),
            prefill_tokens=int(_log(rng, 0, 7)),
            decode_tokens=int(_log(rng, 0, 4)),
        )
        for index in range(rng.choice((1, 1, 2, 3)))
    ]
    return Workload(name="w", classes=tuple(classes))
