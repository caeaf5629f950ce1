"""THEORY 6.5 under vLLM's rules with spread-out output lengths, within two points.

Largest completed rate ÷ fluid limit (token-granular): 6 % above the limit offered, as completions
saturate there.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from fluid.server import Server, load_server
from fluid.stages import class_stages
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from validation.experiments.simulate import simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

OFFERED = 1.06


def completed_shares(workload: Workload, server: Server, requests: int) -> dict[str, float]:
    tokens = server.model_copy(update={"block_tokens": 1})
    boundary = stability(workload, tokens)
    limit_per_s = boundary.max_scale * workload.rate_per_s
    pace = boundary.boundary_per_stage.sum()
    population = sum(
        one * class_stages(request, tokens).count
        for one, request in zip(boundary.boundary_per_stage, workload.classes, strict=True)
    )
    settings = {
        "stock": "",
        "watermark": ",watermark=0.05",
        "cap": f",cap={round(population)}",
        "pace": f",pace={pace}",
        "both": f",pace={1.1 * pace},watermark=0.05",
    }
    found = simulate(
        poisson_model(workload, server),
        ["vllm-v1:max_num_seqs=100000" + one for one in settings.values()],
        Runs(5, requests),
        OFFERED * limit_per_s,
    )
    return dict(zip(settings, (one.completed_per_s / limit_per_s for one in found), strict=True))


def test_chat_lengths(shared_data: Path) -> None:
    with (shared_data / "lmsys_chat_length_buckets.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    classes = tuple(
        RequestClass(
            name=row["decode_from_tokens"],
            rate_per_s=float(row["share"]),
            prefill_tokens=round(float(row["mean_prefill_tokens"])),
            decode_tokens=round(float(row["mean_decode_tokens"])),
        )
        for row in rows
    )
    server = load_server("engine-long-decode").model_copy(update={"kv_capacity_tokens": 20_000})
    shares = completed_shares(Workload(name="chat", classes=classes), server, 20_000)
    expected = {"stock": 0.89, "watermark": 0.96, "cap": 0.92, "pace": 0.93, "both": 0.93}
    assert shares == pytest.approx(expected, abs=0.02)


def test_geometric_lengths() -> None:
    """Output lengths geometric with mean 1,000, as 200 equally likely quantiles."""
    quantiles = [(index + 0.5) / 200 for index in range(200)]
    lengths = [math.ceil(math.log1p(-q) / math.log1p(-1 / 1000)) for q in quantiles]
    classes = tuple(
        RequestClass(name=f"g{k}", rate_per_s=1.0, prefill_tokens=512, decode_tokens=length)
        for k, length in enumerate(lengths)
    )
    workload = Workload(name="geometric", classes=classes)
    shares = completed_shares(workload, load_server("engine-long-decode"), 10_000)
    expected = {"stock": 0.94, "watermark": 0.98, "cap": 0.97, "pace": 0.97, "both": 0.98}
    assert shares == pytest.approx(expected, abs=0.02)
