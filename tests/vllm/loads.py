"""The loads of the conformance tests, and the refined table of one of them.

``python tests/vllm/loads.py`` refines the table for chat lengths under vLLM's rules and writes
``chat-table.json`` beside this file: the tests run where there is no simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluid.server import Server, load_server
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from thresholds.solvers.paced.solver import Paced

HERE = Path(__file__).parent
CHAT_TABLE = HERE / "chat-table.json"
BUDGET_S = 30.0

LONG_SERVER = load_server("engine-long-decode")
CHAT_SERVER = LONG_SERVER.model_copy(update={"kv_capacity_tokens": 1250 * 16})
CHAT = Workload.read(HERE.parents[1] / "examples" / "lmsys-chat.yaml")
LONG = Workload(
    name="long",
    classes=(RequestClass(name="long", rate_per_s=2.40, prefill_tokens=512, decode_tokens=1000),),
)


def at_share_of_limit(workload: Workload, server: Server, share: float) -> Workload:
    """The mix at this share of its token-granular fluid limit."""
    limit = stability(workload, server.model_copy(update={"block_tokens": 1})).max_scale
    return workload.scaled(share * limit)


@dataclass(frozen=True)
class Load:
    workload: Workload
    server: Server
    requests: int


LOADS = {
    "long": Load(LONG, LONG_SERVER, 6_000),
    "long at half rate": Load(LONG.scaled(0.5), LONG_SERVER, 2_000),
    "chat": Load(at_share_of_limit(CHAT, CHAT_SERVER, 0.95), CHAT_SERVER, 6_000),
}


def main() -> None:
    from validation.experiments.evaluate import simulate_settings

    load = LOADS["chat"]
    solver = Paced(budget_s=BUDGET_S, scheduler="vllm-v1")
    solver.solve(load.workload, load.server, simulate_settings).write(CHAT_TABLE)


if __name__ == "__main__":
    main()
