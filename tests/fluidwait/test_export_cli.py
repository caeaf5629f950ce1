"""``fluidwait export``."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.command_line import Call
from tests.support.scaler_schemas import SCALER_SCHEMAS
from thresholds.export.engines import ENGINES

EARLIER = Path(__file__).parents[1] / "data" / "threshold-table-1.0.json"
NO_RATE = EARLIER.with_name("threshold-table-1.5.json")


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--to", "keda"), "--cold-start-s: got None; allowed: seconds until"),
        (("--to", "keda", "--cold-start-s", 60), "predicted.slo_rate_per_s: got None"),
        (("--to", "vllm", "--cold-start-s", 60), "only with --to keda, hpa"),
        (("--to", "hpa", "--cold-start-s", 60, "--flags-only"), "only for an engine"),
    ],
)
def test_bad_autoscaling(call: Call, arguments: tuple[object, ...], told: str) -> None:
    done = call("export", NO_RATE, *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert told in done.err


def test_the_command_writes_the_rules(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    line = ("--to", "prometheus-rules", "--cold-start-s", 60, "--slo-rate-per-s", 3, "-o", file)
    assert call("export", NO_RATE, *line).code == 0
    jsonschema.validate(yaml.safe_load(file.read_text()), SCALER_SCHEMAS["prometheus-rules"])
