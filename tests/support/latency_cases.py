"""Pairs of a load and a server on which predicted latencies are compared with simulated ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.stability import largest_scale
from fluid.workload import RequestClass, Workload

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

LEVELS = (0.3, 0.5, 0.7, 0.85, 0.95)
"""Shares of the fluid limit."""

AMPLE = 20
"""Memory of the roomy twin of each server, as a multiple."""


@dataclass(frozen=True)
class LatencyCase:
    """A load at a share of its fluid limit on a server."""

    name: str
    level: float
    workload: Workload
    server: Server


def mix(name: str, *classes: tuple[int, int, float]) -> Workload:
    """Classes of (prompt, output, rate per second)."""
    made = tuple(
        RequestClass(
            name=f"p{prompt}-d{output}-{index}",
            rate_per_s=rate,
            prefill_tokens=prompt,
            decode_tokens=output,
        )
        for index, (prompt, output, rate) in enumerate(classes)
    )
    return Workload(name=name, classes=made)


def seven_loads() -> dict[str, Workload]:
    """Four synthetic mixes and three recorded ones."""
    return {
        "512/20": mix("512/20", (512, 20, 1.0)),
        "512/200": mix("512/200", (512, 200, 1.0)),
        "200/1000": mix("200/1000", (200, 1000, 1.0)),
        "mix": mix("mix", (512, 120, 0.7), (2048, 250, 0.1), (100, 600, 0.2)),
        "azure-conv": Workload.read(EXAMPLES / "azure-conv-2023.yaml"),
        "azure-code": Workload.read(EXAMPLES / "azure-code-2023.yaml"),
        "lmsys": Workload.read(EXAMPLES / "lmsys-chat.yaml"),
    }


def at_level(name: str, level: float, workload: Workload, server: Server) -> LatencyCase:
    """The mix at this share of its fluid limit."""
    return LatencyCase(
        name, level, workload.scaled(level * largest_scale(workload, server)), server
    )


def a100_cases(memory: int = 1) -> Iterator[LatencyCase]:
    """Seven loads at five levels on the built-in A100, its memory multiplied."""
    server = load_server("a100-80gb-llama-2-7b")
    server = server.model_copy(update={"kv_capacity_tokens": memory * server.kv_capacity_tokens})
    mark = "" if memory == 1 else f" x{memory}"
    for name, workload in seven_loads().items():
        for level in LEVELS:
            yield at_level(name + mark, level, workload, server)


def drawn_case(seed: int) -> LatencyCase:
    """A random load of 1–6 classes on a random server, affine or a staircase, at a random level."""
    rng = np.random.default_rng([19, seed])
    count = int(rng.integers(1, 7))
    classes = [
        (int(_log_uniform(rng, 30, 4000)), int(_log_uniform(rng, 5, 800)), rng.exponential())
        for _ in range(count)
    ]
    server = _drawn_server(rng)
    return at_level(f"r{seed}", float(rng.choice(LEVELS)), mix(f"r{seed}", *classes), server)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _drawn_server(rng: np.random.Generator) -> Server:
    overhead_s = _log_uniform(rng, 5e-3, 3e-2)
    per_token_s = _log_uniform(rng, 1e-5, 1.5e-4)
    tokens, seconds = _affine_knots(overhead_s, per_token_s)
    if rng.random() < 0.6:
        tokens, seconds = _stair_knots(rng, overhead_s, per_token_s)
    return Server(
        name="drawn",
        source="drawn at random",
        kv_capacity_tokens=int(_log_uniform(rng, 6e4, 2e6)),
        block_tokens=int(rng.choice([1, 16])),
        first_token="prefill" if rng.random() < 0.8 else "decode",
        iteration_time=IterationTime(
            tokens_knots=tokens,
            seconds_knots=seconds,
            per_kv_token_s=_log_uniform(rng, 2e-8, 5e-7),
            per_decode_request_s=float(rng.choice([0.0, 2e-5])),
            per_prefill_token_sq_s=float(rng.choice([0.0, 5e-9])),
        ),
    )


def _affine_knots(
    overhead_s: float, per_token_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (0.0, 1.0), (overhead_s, overhead_s + per_token_s)


def _stair_knots(
    rng: np.random.Generator, overhead_s: float, per_token_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Steps of one width around the straight line; a share of each rise is a jump at its end."""
    width = int(rng.choice([64, 128, 256, 512]))
    in_jump = rng.uniform(0.0, 0.9)
    tokens, seconds = [0.0], [overhead_s]
    for step in range(1, int(rng.integers(4, 16))):
        ends_at = step * width
        tokens += [ends_at, ends_at]
        rise = per_token_s * width
        seconds += [seconds[-1] + (1 - in_jump) * rise, seconds[-1] + rise]
    tokens.append(tokens[-1] + width)
    seconds.append(seconds[-1] + per_token_s * width)
    return tuple(tokens), tuple(seconds)
