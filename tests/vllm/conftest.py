"""Fixtures of the tests that drive vLLM's own scheduler (``make test-vllm``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from thresholds.fields import TableFields
from thresholds.recomputed import BALANCE, required_tokens_of

# vLLM reads them when it is imported: no GPU, no model hub.
os.environ |= {
    "VLLM_TARGET_DEVICE": "cpu",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}

EARLIER = Path(__file__).parents[1] / "data" / "threshold-table-1.0.json"

WriteTable = Callable[..., Path]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model without weights."""
    from tests.vllm.virtual_engine import model_folder

    return model_folder(tmp_path_factory.mktemp("model"))


def skip_later_priority_rule(order: str) -> None:
    """Skip what the simulator's priority order, that of vLLM up to 0.32, does not claim."""
    import vllm

    release = tuple(int(part) for part in vllm.__version__.split(".")[:2])
    if order == "priority" and release >= (0, 33):
        pytest.skip("from 0.33 on a request that preempts itself does not end the running pass")


def table_document(server: Server, **fields: Any) -> dict[str, Any]:
    """A sound table for a server, but for these fields."""
    document = json.loads(EARLIER.read_text(encoding="utf-8"))
    longest = max((one["up_to_tokens"] for one in fields.get("thresholds", ())), default=2)
    one = RequestClass(name="one", rate_per_s=1.0, prefill_tokens=1, decode_tokens=longest)
    load = Workload(name="test", classes=(one,))
    balance = equilibrium(load, server)
    found = 1 / balance.max_scale
    stable = {"condition": "fluid stability: 1/α* ≤ 1", "slack": 1 - found, "holds": found < 1}
    document |= {
        "workload": load.document(),
        "workload_sha256": load.sha256(),
        "server": server.document(),
        "server_sha256": server.sha256(),
        "memory": document["memory"] | {"capacity_tokens": server.usable_kv_tokens},
        "thresholds": [{"name": "one", "threshold": 1}],
        "predicted": document["predicted"] | {one: getattr(balance, one) for one in BALANCE},
        "certificate": [stable],
    }
    document |= fields
    with suppress(InputError, IndexError):  # of a table that is unsound on purpose
        for required in required_tokens_of(TableFields.from_document(document))[:1]:
            document["memory"] = document["memory"] | {"required_tokens": required}
    return document


@pytest.fixture
def make_table(tmp_path: Path) -> WriteTable:
    """Writes a table for a server with these fields, else sound; returns its path."""

    def write(server: Server, **fields: Any) -> Path:
        path = tmp_path / "table.json"
        path.write_text(json.dumps(table_document(server, **fields)), encoding="utf-8")
        return path

    return write
