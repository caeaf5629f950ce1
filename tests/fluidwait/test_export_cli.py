"""``fluidwait export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call
from thresholds.export.engines import ENGINES

EARLIER = Path(__file__).parents[1] / "data" / "threshold-table-1.0.json"


@pytest.mark.parametrize("engine", ENGINES)
def test_prints_writes_and_tells_as_json(engine: str, call: Call, tmp_path: Path) -> None:
    printed = call("export", EARLIER, "--to", engine)
    file = tmp_path / "flags"
    written = call("export", EARLIER, "--to", engine, "-o", file, "--json")
    assert printed.code == written.code == 0
    assert printed.out == file.read_text()
    document = json.loads(written.out)
    assert set(document) == {"engine", "flags", "not_expressible"}
    assert document["engine"] == engine
    assert all(set(one) == {"name", "value", "reason"} for one in document["flags"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((EARLIER, "--to", "tgi"), "--to: got 'tgi'; allowed: one of vllm, sglang, trtllm, env"),
        (("missing.json", "--to", "vllm"), "missing.json: got 'no such file'"),
    ],
)
def test_bad_exports(call: Call, arguments: tuple[object, ...], told: str) -> None:
    done = call("export", *arguments)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err
