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
        ((EARLIER, "--to", "vlm"), "did you mean vllm? One of vllm, sglang, trtllm, env"),
        (("missing.json", "--to", "vllm"), "missing.json: got 'no such file'"),
    ],
)
def test_bad_exports(call: Call, arguments: tuple[object, ...], told: str) -> None:
    done = call("export", *arguments)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err


def test_a_table_whose_time_is_over_needs_to_be_asked_for(call: Call, tmp_path: Path) -> None:
    document = json.loads(EARLIER.read_text(encoding="utf-8"))
    document["valid_for"]["until"] = "2001-01-01"
    table = tmp_path / "table.json"
    table.write_text(json.dumps(document), encoding="utf-8")
    refused = call("export", table, "--to", "env")
    assert (refused.code, "valid_for.until" in refused.err) == (2, True)
    assert call("export", table, "--to", "env", "--expired").code == 0
    assert call("export", EARLIER, "--to", "env", "--expired").code == 2
