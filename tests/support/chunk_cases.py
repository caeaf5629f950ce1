"""Loads whose prompts are computed in chunks, for limits that a simulation can check."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.chunks import budget_limit
from fluid.workload import Workload
from tests.support.builders import server, workload
from validation.experiments.simulate import simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

OFFERED = 1.25
"""Of the limit: behind a queue, completions are the limit itself."""


@dataclass(frozen=True)
class ChunkCase:
    workload: Workload
    server: Server
    budget_tokens: int


def _server(tokens: int, overhead_s: float, **coefficients: float) -> Server:
    tau = IterationTime(
        tokens_knots=(0.0, 1.0),
        seconds_knots=(overhead_s, overhead_s + coefficients.pop("per_token_s", 0.0)),
        **coefficients,
    )
    return server(tau, "prefill", tokens)


_SQUARES = {"per_prefill_token_sq_s": 1e-8}
_LONG = workload((1.0, 4000, 10))
_MIXED = workload((1.0, 3000, 50), (3.0, 500, 150))
_A100 = workload((1.0, 2048, 50), (2.0, 512, 20))

CASES = {
    "squares": ChunkCase(_LONG, _server(36_000, 0.01, **_SQUARES), 1000),
    "squares, half": ChunkCase(_LONG, _server(400_000, 0.01, **_SQUARES), 500),
    "squares, large": ChunkCase(_LONG, _server(400_000, 0.01, **_SQUARES), 2500),
    "contexts": ChunkCase(
        _LONG,
        _server(400_000, 0.01, per_token_s=2e-6, per_prefill_context_token_s=5e-9, **_SQUARES),
        1500,
    ),
    "contexts only": ChunkCase(
        _LONG, _server(400_000, 0.01, per_token_s=2e-6, per_prefill_context_token_s=4e-9), 1000
    ),
    "many decodes": ChunkCase(
        workload((1.0, 2000, 200)),
        _server(200_000, 0.01, per_token_s=2e-5, per_kv_token_s=2e-7),
        2048,
    ),
    "two classes": ChunkCase(
        _MIXED,
        _server(300_000, 0.01, per_token_s=2e-5, per_kv_token_s=2e-7, per_prefill_token_sq_s=2e-9),
        512,
    ),
    "a100, 512": ChunkCase(_A100, Server.named("a100-80gb-llama-2-7b"), 512),
    "a100, 2048": ChunkCase(_A100, Server.named("a100-80gb-llama-2-7b"), 2048),
    "costly overhead": ChunkCase(
        workload((1.0, 4000, 60)),
        _server(200_000, 0.02, per_token_s=1e-6, per_kv_token_s=1e-8, per_prefill_token_sq_s=1e-9),
        1000,
    ),
}


def simulated_share(case: ChunkCase, runs: Runs) -> float:
    """Completions per second behind a queue ÷ the limit of the budget."""
    found = budget_limit(case.workload, case.server, case.budget_tokens)
    limit_per_s = found.scale * case.workload.rate_per_s
    policy = f"sarathi:chunk={case.budget_tokens},cap=1e6,watermark=0"
    model = poisson_model(case.workload, case.server)
    (one,) = simulate(model, [policy], runs, OFFERED * limit_per_s)
    return one.completed_per_s / limit_per_s
