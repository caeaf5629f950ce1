"""One of each result that thresholds make, by name, for the tests that all results share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluid.result import Result
from fluid.server import load_server
from fluid.workload import RatePiece, RequestClass, Workload
from thresholds.export.autoscaling.scalers import SCALERS
from thresholds.fleet import ServerType, fleet
from thresholds.overload import admission
from thresholds.solve import solve
from thresholds.solvers.nested.nested_cap import NestedCap
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.wait.solver import Wait
from thresholds.table import ThresholdTable

VALIDATED = Path(__file__).parents[1] / "data" / "threshold-table-1.2.json"

SERVER = load_server("engine-long-decode")
LOAD = Workload(
    name="short-outputs",
    classes=(
        RequestClass(name="short", rate_per_s=3.0, prefill_tokens=64, decode_tokens=20),
        RequestClass(name="longer", rate_per_s=1.0, prefill_tokens=64, decode_tokens=60),
    ),
)
CHAT = Workload(
    name="chat",
    classes=tuple(
        RequestClass(
            name=f"c{k}", rate_per_s=4.5 * 0.9**k, prefill_tokens=60, decode_tokens=25 * (k + 1)
        )
        for k in range(24)
    ),
)
DAY = LOAD.model_copy(
    update={
        "rate_profile": (
            RatePiece(start_s=0.0, multiplier=0.5),
            RatePiece(start_s=60.0, multiplier=1.5),
        ),
        "period_s": 120.0,
    }
)

THRESHOLD_RESULTS: dict[str, Callable[[], Result]] = {
    "paced table": lambda: Paced().solve(LOAD, SERVER),
    "wait table": lambda: Wait().solve(LOAD, SERVER),
    "nested-wait table": lambda: NestedWait().solve(LOAD, SERVER),
    "nested-cap table": lambda: NestedCap().solve(LOAD, SERVER),
    "validated table": lambda: ThresholdTable.read(VALIDATED),
    "schedule": lambda: solve(DAY, SERVER),
    "schedule of wait": lambda: solve(DAY, SERVER, Wait()),
    "fleet": lambda: fleet(LOAD, [ServerType(SERVER)]),
    "admission": lambda: admission(LOAD.scaled(1000.0), SERVER),
    "buffers": lambda: NestedWait().buffers(CHAT, load_server("paper-lmsys")),
    **{
        f"{engine} flags": lambda engine=engine: Paced().solve(LOAD, SERVER).flags(engine)
        for engine in ("vllm", "sglang", "trtllm", "env")
    },
    **{
        f"{name} rules": lambda scaler=scaler: scaler.rules(
            Paced().solve(LOAD, SERVER), 120.0, slo_rate_per_s=0.5
        )
        for name, scaler in SCALERS.items()
    },
}
"""Makes one, without simulating."""
