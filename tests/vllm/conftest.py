"""Fixtures of the tests that drive vLLM's own scheduler (``make test-vllm``)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluid.server import Server

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


@pytest.fixture
def make_table(tmp_path: Path) -> WriteTable:
    """Writes a table for a server with these fields; returns its path."""

    def write(server: Server, **fields: Any) -> Path:
        document = json.loads(EARLIER.read_text(encoding="utf-8"))
        document |= {"server": server.document(), "server_sha256": server.sha256()} | fields
        path = tmp_path / "table.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write
