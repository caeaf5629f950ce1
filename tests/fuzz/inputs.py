"""What is right: the files that command lines name, which are then broken, or made extreme."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.live_pages import Engine

DATA = Path(__file__).resolve().parents[1] / "data"
_SERVERS = DATA.parents[1] / "fluid" / "servers"

LOAD = {
    "name": "two",
    "classes": [
        {"name": "a", "rate_per_s": 2.0, "prefill_tokens": 512, "decode_tokens": 20},
        {"name": "b", "rate_per_s": 1.0, "prefill_tokens": 128, "decode_tokens": 60},
    ],
}
PROMISED = {
    "name": "promised",
    "slo": {"ttft_s": 2.0, "tpot_s": 0.05, "quantile": 0.9},
    "classes": [
        {"name": "a", "rate_per_s": 2.0, "prefill_tokens": 512, "decode_tokens": 20, "weight": 2.0},
        {
            **{"name": "b", "rate_per_s": 1.0, "prefill_tokens": 128, "decode_tokens": 60},
            "slo": {"latency_s": 9.0, "quantile": "p95"},
        },
    ],
}
TALKING = {
    "name": "talking",
    "classes": [
        {
            **{"name": "a", "rate_per_s": 1.0, "decode_tokens": 20, "shared_prefix_tokens": 64},
            "conversation": {"turns": 3.0, "think_time_s": 5.0, "new_tokens": 100},
        },
        {"name": "b", "rate_per_s": 1.0, "prefill_tokens": 128, "decode_tokens": 60},
    ],
}
VARYING = LOAD | {
    "name": "varying",
    "rate_profile": [
        {"start_s": 0.0, "multiplier": 0.5},
        {"start_s": 60.0, "multiplier": 1.5, "class_multipliers": {"a": 2.0}},
    ],
    "period_s": 120.0,
    "observed_s": 3600.0,
}
LOADS = (LOAD, LOAD, PROMISED, TALKING, VARYING)

SERVER = json.loads((_SERVERS / "engine-long-decode.json").read_text())
SERVERS = (SERVER, SERVER, json.loads((_SERVERS / "llama-3.1-8b-h100-sxm-vllm.json").read_text()))

TABLES = tuple(
    json.loads((DATA / f"threshold-table-{name}.json").read_text())
    for name in ("1.4", "1.5", "nested-wait-1.1", "nested-cap-1.1")
)

_COLUMNS = (
    "prefill_tokens,prefill_context_tokens,decode_batch,decode_context_tokens_total,iteration_ms"
)
ROWS = "\n".join(
    (
        _COLUMNS,
        *(
            f"{64 * (k % 5)},0,{k % 7 + 1},{300 * (k % 7 + 1)},{11 + 0.4 * (k % 7) + 3 * (k % 5)}"
            for k in range(40)
        ),
    )
)


def files_of(**others: bytes) -> dict[str, bytes]:
    """Every file that a command line may name, and others, `__` for the dot in their names."""
    engine = Engine()
    engine.finish(60)
    return {
        "load.json": json.dumps(LOAD).encode(),
        "server.json": json.dumps(SERVER).encode(),
        "table.json": json.dumps(TABLES[0]).encode(),
        "rows.csv": ROWS.encode(),
        "page.prom": engine.page.encode(),
        "chats.json": (DATA / "traces" / "sharegpt.json").read_bytes(),
        "tape.csv": (DATA / "traces" / "tape.csv").read_bytes(),
    } | {name.replace("__", "."): data for name, data in others.items()}
