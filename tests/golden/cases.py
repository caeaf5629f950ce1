"""Command lines whose output is kept, in the order in which they run in one folder.

A later case may read what an earlier one wrote. Sizes are small: what is kept is the form of the
output and figures that do not depend on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TRACES = REPOSITORY / "tests" / "data" / "traces"

_LONG = {"name": "a", "rate_per_s": 2.4, "prefill_tokens": 512, "decode_tokens": 1000}
_CHAT = {"name": "chat", "rate_per_s": 7.0, "prefill_tokens": 512, "decode_tokens": 120}
_CODE = {"name": "code", "rate_per_s": 1.0, "prefill_tokens": 2048, "decode_tokens": 250}
_SHORT = [
    {"name": "short", "rate_per_s": 3.0, "prefill_tokens": 64, "decode_tokens": 20},
    {"name": "longer", "rate_per_s": 1.0, "prefill_tokens": 64, "decode_tokens": 60},
]

WORKLOADS: dict[str, Any] = {
    "long.yaml": {"name": "long", "classes": [_LONG]},
    "two.yaml": {"name": "chat-and-code", "classes": [_CHAT, _CODE]},
    "short.yaml": {"name": "short-outputs", "classes": _SHORT},
    "mean-slo.yaml": {
        "name": "promised",
        "classes": [_SHORT[0] | {"slo": {"ttft_s": 2.0, "quantile": "mean"}}, _SHORT[1]],
    },
    "profile.yaml": {
        "name": "daily",
        "classes": [_LONG],
        "rate_profile": [
            {"start_s": 0, "multiplier": 0.5},
            {"start_s": 3600, "multiplier": 1.0},
        ],
        "period_s": 7200,
    },
    "overload.yaml": {
        "name": "too-much",
        "classes": [_LONG | {"weight": 2.0}, _CHAT | {"rate_per_s": 40.0}],
    },
}
"""Files that the cases read."""

_RUNS = "--replications 4 --requests 600"
_LONG_SERVER = "--server paper-long-decode"
_A100 = "--server a100-80gb-llama-2-7b"
_GREEDY = "--policy greedy:watermark=0.01 --policy greedy:pace=0.135,watermark=0.01"

CASES: dict[str, str] = {
    "equilibrium": f"equilibrium two.yaml {_A100}",
    "equilibrium-json": f"equilibrium two.yaml {_A100} --json",
    "equilibrium-evictions": f"equilibrium long.yaml {_LONG_SERVER} --evictions 0.01",
    "equilibrium-evictions-json": f"equilibrium long.yaml {_LONG_SERVER} --evictions 0.01 --json",
    "equilibrium-unstable": f"equilibrium long.yaml {_LONG_SERVER} --rate 9",
    "equilibrium-unstable-json": f"equilibrium long.yaml {_LONG_SERVER} --rate 9 --json",
    "equilibrium-clients": f"equilibrium two.yaml {_A100} --clients 40 --think-s 2",
    "equilibrium-clients-json": f"equilibrium long.yaml {_LONG_SERVER} --clients 400 --json",
    "equilibrium-plot": f"equilibrium two.yaml {_A100} --plot latency.svg",
    "equilibrium-stages": f"equilibrium two.yaml {_A100} --plot stages.svg --picture stages",
    "equilibrium-phase": f"equilibrium long.yaml {_LONG_SERVER} --plot phase.svg --picture phase",
    "region": f"region two.yaml {_A100}",
    "region-json": f"region two.yaml {_A100} --json",
    "region-affine-plot": f"region short.yaml {_LONG_SERVER} --plot region.svg",
    "region-outside": f"region two.yaml {_A100} --rate 30",
    "region-simulated": f"region short.yaml {_LONG_SERVER} --policy greedy --mixes 2 "
    "--replications 2 --requests 300",
    "region-simulated-json": f"region short.yaml {_LONG_SERVER} --policy paced --mixes 2 "
    "--replications 2 --requests 300 --json",
    **{
        f"capacity-{query}": f"capacity two.yaml {_A100} --query {query}"
        for query in ("rate", "kv_tokens", "overhead_s", "servers")
    },
    "capacity-bandwidth": f"capacity long.yaml {_LONG_SERVER} --query bandwidth",
    "capacity-output-json": f"capacity two.yaml {_A100} --query output --class code --json",
    "solve": f"solve two.yaml {_A100} -o table.json",
    "solve-json": f"solve long.yaml {_LONG_SERVER} -o long.json --json",
    "solve-wait": "solve short.yaml --server paper-lmsys --policy wait -o wait.json",
    "solve-wait-slo": "solve mean-slo.yaml --server paper-lmsys --policy wait --objective memory",
    "solve-wait-sharp": "solve short.yaml --server paper-lmsys --policy wait "
    "--objective sharp-latency",
    "solve-nested": "solve short.yaml --server paper-lmsys --policy nested-wait --segments 2 "
    "--overflow-probability 0.05 --horizon-s 600 --plot buffers.svg -o nested.json",
    "solve-nested-cap": "solve short.yaml --server paper-lmsys --policy nested-cap -o cap.json",
    "solve-schedule": f"solve profile.yaml {_LONG_SERVER} -o schedule.json",
    "solve-schedule-json": f"solve profile.yaml {_LONG_SERVER} --json",
    "solve-overload": "solve overload.yaml --server engine-long-decode --overload",
    "solve-unstable": f"solve long.yaml {_LONG_SERVER} --rate 9",
    "solve-bad-policy": f"solve long.yaml {_LONG_SERVER} --policy best",
    "solve-bad-objective": f"solve long.yaml {_LONG_SERVER} --objective speed",
    "replay": f"replay long.json {_RUNS} -o checked.json",
    "solve-short": f"solve short.yaml {_LONG_SERVER} -o short.json",
    "replay-decided": "replay short.json --replications 8 --requests 2000 -o short-checked.json",
    "replay-unstable": "replay long.json --replications 2 --requests 8000 --rate 4",
    "replay-json": f"replay long.json {_RUNS} --json",
    "replay-rate-plot": f"replay long.json {_RUNS} --rate 1.2 --plot replay.svg",
    "replay-tape": "replay long.json --tape {traces}/tape.csv --policy greedy",
    "replay-arrivals": f"replay long.json {_RUNS} --arrivals gamma:cv=2 --policy greedy",
    "replay-wait": f"replay wait.json {_RUNS}",
    "replay-nested": f"replay nested.json {_RUNS} --policy greedy",
    "replay-cap": f"replay cap.json {_RUNS} --policy greedy --json",
    "compare": f"compare long.yaml {_LONG_SERVER} {_GREEDY} --rates 1.2,2.4 {_RUNS}",
    "compare-json": f"compare long.yaml {_LONG_SERVER} {_GREEDY} --rates 1.2,2.4 {_RUNS} --json",
    "compare-plot": f"compare long.yaml {_LONG_SERVER} {_GREEDY} --rates 1:2:0.5 {_RUNS} "
    "--plot compare.svg --burst 20",
    "compare-capacity": f"compare short.yaml {_LONG_SERVER} --policy greedy --find-capacity "
    "--replications 2 --requests 300",
    "compare-tape-json": "compare --tape {traces}/tape.csv --server a100-80gb-llama-2-7b "
    "--policy vllm-v1 --json",
    "sweep": f"sweep long.yaml {_LONG_SERVER} --policy greedy:watermark=0:0.02:0.01 "
    f"--rates 1.2,2.4 {_RUNS} -o rows",
    "sweep-again-json": f"sweep long.yaml {_LONG_SERVER} --policy greedy:watermark=0:0.02:0.01 "
    f"--rates 1.2,2.4 {_RUNS} -o rows --json",
    "fleet": f"fleet two.yaml {_A100} --server engine-long-decode --cost engine-long-decode=0.4",
    "fleet-json": f"fleet two.yaml {_A100} --json",
    "export-vllm": "export table.json --to vllm",
    "export-vllm-json": "export table.json --to vllm --json",
    "export-sglang": "export table.json --to sglang",
    "export-trtllm": "export table.json --to trtllm",
    "export-env": "export table.json --to env",
    "export-nested": "export nested.json --to vllm",
    "report": "report checked.json -o report.html --replications 2 --requests 600",
    "report-decided": "report short-checked.json -o decided.html --replications 2 --requests 600",
    "server-list": "server list --model long-decode",
    "server-list-json": "server list --model long-decode --json",
    "server-show": "server show paper-lmsys",
    "trace": "workload from-trace {traces}/azure-2024.csv -o trace.yaml --tape-out trace.csv",
    "trace-too-few-classes": "workload from-trace {traces}/azure-2024.csv --classes 2",
    "trace-json": "workload from-trace {traces}/mooncake.jsonl --json",
    "trace-prometheus": "workload from-trace {traces}/metrics.prom --rate 2 --lengths heaviest",
    "floor": "measure floor --server a100-80gb-llama-2-7b --on a100-80gb",
    "floor-json": "measure floor --server a100-80gb-llama-2-7b --on a100-80gb --json",
    "calibrate": "calibrate rows.csv --name fitted --kv-tokens 50000 --workload two.yaml "
    "-o server.json --plot fit.svg",
    "calibrate-json": "calibrate rows.csv --name fitted --kv-tokens 50000 --json",
}
"""Command line by name; ``{traces}`` is the folder of sample traces."""


def prepare(folder: Path) -> None:
    """Write what the cases read."""
    for name, document in WORKLOADS.items():
        (folder / name).write_text(yaml.safe_dump(document, sort_keys=False))
    (folder / "rows.csv").write_text(_measured_rows())


def _measured_rows() -> str:
    """Iteration times of an invented device: 10 ms, 50 µs a token, 0.3 µs a KV token, and noise."""
    batches = [(0, n, n * c) for n in (1, 2, 4, 8, 16, 32, 64, 96, 128) for c in (64, 512, 2048)]
    batches += [(p, 0, 0) for p in (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)]
    batches += [(p, n, n * 512) for p in (64, 256, 512) for n in (4, 16, 64)]
    lines = [
        "prefill_tokens,prefill_context_tokens,decode_batch,decode_context_tokens_total,iteration_ms"
    ]
    for index, (prompt, decodes, context) in enumerate(batches):
        exact_ms = 10 + 50e-3 * (prompt + decodes) + 0.3e-3 * context
        noise = 1 + ((index * 7919) % 21 - 10) / 1000
        lines.append(f"{prompt},0,{decodes},{context},{exact_ms * noise!r}")
    return "\n".join(lines) + "\n"
