"""Estimated servers against public measurements of serving engines (docs/silicon.md).

    python -m tests.benchmarks.silicon --data FILE [--out ROWS.csv] [--write] [WORD …]

For every group of rows (model, GPU, engine, numbers, parallelism) a server is estimated, then each
row is simulated: so many clients that wait for their answers, under the engine's own rule, vLLM and
TensorRT-LLM with mixed batches, SGLang with prompts alone. Words keep groups whose name contains
one. ``--write`` writes the page from the rows in ROWS.csv, without running anything.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

import fluidwait as fw
from fluid.errors import FluidwaitError
from fluid.server import Server
from tests.benchmarks.silicon_page import write_page
from tests.benchmarks.silicon_peer import Peer
from validation.servers.estimate import estimate_server
from validation.servers.gpus import engine_defaults, gpu_named
from validation.servers.kv_memory import gibibytes
from validation.servers.shape import read_shape
from validation.servers.tables import find_config

RANDOM = (0.8, 0.85, 0.9, 0.95, 1.0)
"""Lengths of prompts and outputs as shares of nominal: the serving benchmarks' random range."""
FIXED = (0.98, 0.99, 1.0, 1.01, 1.02)
"""Of a source that measured with lengths as they are; with one length all would stay in step."""
FIXED_SOURCES = ("auto-gap-analysis",)
WAVES = 10
RESERVED_GIB = 8.0
RULES = {"vllm": "vllm-v1", "trtllm": "vllm-v1", "sglang": "vllm-v0"}

MODELS = {
    ("Qwen/Qwen3-32B", "fp8"): ("Qwen/Qwen3-32B-FP8", None),
    ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8"): ("meta-llama/Llama-3.1-8B-Instruct", "fp8"),
    ("openai/gpt-oss-120b", "nvfp4"): ("openai/gpt-oss-120b", None),
    ("moonshotai/Kimi-K2.5", "int4_wo"): ("moonshotai/Kimi-K2.5", None),
    ("MiniMaxAI/MiniMax-M2.5", "fp8"): ("MiniMaxAI/MiniMax-M2.5", None),
}
"""Checkpoints whose numbers are the measured ones."""
WEIGHTS = {"": None, "fp8": "fp8", "fp8_block": None, "nvfp4": "fp4", "int4_wo": "int4"}


@dataclass(frozen=True)
class Group:
    """Rows of one server."""

    model: str
    gpu: str
    engine: str
    numbers: str
    tp: int
    ep: int


@dataclass(frozen=True)
class Row:
    """One measurement, and what was predicted; times in seconds, NaN where nothing was."""

    model: str
    gpu: str
    engine: str
    numbers: str
    tp: int
    ep: int
    prompt: int
    output: int
    clients: int
    measured_ttft_s: float
    measured_tpot_s: float
    ttft_s: float
    tpot_s: float
    peer_ttft_s: float
    peer_tpot_s: float


def groups_of(path: Path) -> dict[Group, list[dict[str, str]]]:
    """Rows of a public file by server; without data-parallel attention, within one node."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(one for one in lines if not one.startswith("#"))
    found: dict[Group, list[dict[str, str]]] = {}
    for row in rows:
        tp, ep = int(float(row["tp_size"])), int(float(row["moe_ep_size"] or 1)) or 1
        parts = (int(float(row["moe_tp_size"] or 1)) or 1) * ep
        alone = row["attention_dp_size"] in ("", "0.0", "1.0")
        if not alone or parts not in (1, tp) or tp > 8 or row["gemm_quant_mode"] not in WEIGHTS:
            continue
        group = Group(
            row["model_path"], row["system"], row["backend"], row["gemm_quant_mode"], tp, ep
        )
        found.setdefault(group, []).append(row)
    return found


def server_of(group: Group) -> Server:
    """The server of a group, with its engine's defaults and what memory leaves for KV."""
    model, weights = MODELS.get((group.model, group.numbers), (group.model, WEIGHTS[group.numbers]))
    config, card = find_config(model), gpu_named(group.gpu)
    shape = read_shape(config.path, config.name, weights)
    free = 0.9 * card.memory_gib - RESERVED_GIB - gibibytes(shape.weight_bytes) / group.tp
    token = 2 * shape.head_dim * max(1, shape.kv_heads // group.tp) * 2 * len(shape.kinds)
    if shape.latent is not None:
        token = (shape.latent.rank + shape.latent.rope_dim) * 2 * len(shape.kinds)
    limits = engine_defaults(group.engine, group.gpu, card.memory_gib)
    return estimate_server(
        model,
        gpu=group.gpu,
        tp=group.tp,
        ep=group.ep,
        engine=group.engine,
        weights=weights,
        kv_tokens=max(int(max(free, 4.0) * 2**30 / token), 32_768),
        # More than the largest concurrency of these rows changes nothing but the fit's range.
        max_num_seqs=min(limits.max_num_seqs, 1024),
        accept_fit=True,
    ).server


def simulated(
    server: Server, spread: tuple[float, ...], prompt: int, output: int, clients: int
) -> tuple[float, float]:
    """TTFT and TPOT of so many clients, in seconds."""
    mix = {
        f"{a:g} {b:g}": fw.Requests(1.0, math.ceil(a * prompt), math.ceil(b * output))
        for a, b in itertools.product(spread, spread)
    }
    engine = server.engine or "vllm"
    policy = RULES[engine]
    if policy == "vllm-v0":
        budget = max(
            server.max_num_batched_tokens or 0, math.ceil(max(spread) * (prompt + output)) + 1
        )
        policy += f":watermark=0,max_batched_tokens={budget}"
    found = fw.compare(
        fw.Workload.of("silicon", **mix),
        server,
        policy,
        traffic=fw.Traffic(clients=fw.Clients(clients)),
        runs=fw.Runs(1, max(WAVES * clients, 100)),
    ).results[0]
    assert found.ttft_s is not None
    assert found.tpot_s is not None
    return found.ttft_s.mean, found.tpot_s.mean


def rows_of(group: Group, measured: list[dict[str, str]]) -> Iterator[Row]:
    """Predictions of a group; one simulation for each length and number of clients."""
    server, peer = server_of(group), Peer.of(group)
    known: dict[tuple[tuple[float, ...], int, int, int], tuple[float, ...]] = {}
    for one in measured:
        case = int(one["isl"]), int(one["osl"]), int(float(one["concurrency"]))
        spread = FIXED if one["source"] in FIXED_SOURCES else RANDOM
        if (spread, *case) not in known:
            known[spread, *case] = (*simulated(server, spread, *case), *peer.times_s(*case))
        times_s = [float(one[f"silicon_{name}_ms"]) / 1e3 for name in ("ttft", "tpot")]
        figures = _figures(times_s, known[spread, *case])
        yield Row(**asdict(group), **dict(zip(CASE, case, strict=True)), **figures)


CASE = ("prompt", "output", "clients")


def _figures(measured_s: Iterable[float], said_s: Iterable[float]) -> dict[str, float]:
    names = [one.name for one in fields(Row)][-6:]
    return dict(zip(names, [*measured_s, *said_s], strict=True))


def read_rows(path: Path) -> list[Row]:
    """Rows written by a run."""
    with path.open(encoding="utf-8") as stream:
        kinds = {
            one.name: {"str": str, "int": int, "float": float}[str(one.type)] for one in fields(Row)
        }
        return [
            Row(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(stream)
        ]


def main() -> None:
    """Run the groups that are asked for, adding to what the file of rows already has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("silicon-rows.csv"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    known = read_rows(options.out) if options.out.is_file() else []
    if options.write:
        write_page(known)
        return
    done = {Group(one.model, one.gpu, one.engine, one.numbers, one.tp, one.ep) for one in known}
    with options.out.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [one.name for one in fields(Row)])
        if stream.tell() == 0:
            writer.writeheader()
        for group, measured in groups_of(options.data).items():
            name = " ".join(map(str, asdict(group).values()))
            if group in done or not all(word in name for word in options.words):
                continue
            began_s = time.monotonic()
            try:
                rows = list(rows_of(group, measured))
            except FluidwaitError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            writer.writerows(asdict(one) for one in rows)
            stream.flush()
            tpot = np.array([one.tpot_s / one.measured_tpot_s - 1 for one in rows])
            print(
                f"{name}: {len(rows)} rows, TPOT {100 * np.abs(tpot).mean():.1f} % "
                f"({100 * tpot.mean():+.1f} %), {time.monotonic() - began_s:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
