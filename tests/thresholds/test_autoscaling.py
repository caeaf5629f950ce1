"""Tables as thresholds of autoscalers: files that the tools accept, and numbers that follow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fluid.errors import InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Slo, Workload
from tests.support.scaler_schemas import SCALER_SCHEMAS
from thresholds.export.autoscaling.scalers import SCALERS, TOLERANCE
from thresholds.export.autoscaling.triggers import METRICS, REACTION_S, Load, triggers
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable

SERVER = load_server("engine-long-decode")


def solved(
    prompt: int, output: int, rate_per_s: float, slo_rate_per_s: float, kv_tokens: int
) -> ThresholdTable:
    one = RequestClass(
        name="chat",
        rate_per_s=rate_per_s,
        prefill_tokens=prompt,
        decode_tokens=output,
        slo=Slo(ttft_s=2.0),
    )
    load = Workload(name="load", classes=(one,))
    server = SERVER.model_copy(update={"kv_capacity_tokens": kv_tokens})
    table = Paced().solve(load, server)
    predicted = table.predicted.model_copy(update={"slo_rate_per_s": slo_rate_per_s})
    return table.model_copy(update={"predicted": predicted})


@pytest.fixture(scope="module")
def computes() -> ThresholdTable:
    """Compute binds."""
    table = solved(512, 20, 4.0, 8.0, SERVER.kv_capacity_tokens)
    assert table.predicted.binding == "compute"
    return table


@pytest.fixture(scope="module")
def remembers() -> ThresholdTable:
    """Memory binds."""
    table = solved(512, 1000, 0.2, 0.3, 16_000)
    assert table.predicted.binding == "memory"
    return table


def at(table: ThresholdTable, cold_start_s: float = 120.0, growth: float = 0.1) -> Load:
    assert table.predicted.slo_rate_per_s is not None
    return Load(table, table.predicted.slo_rate_per_s, cold_start_s, growth)


@pytest.mark.parametrize("name", SCALERS)
@pytest.mark.parametrize("engine", METRICS)
def test_the_yaml_is_what_the_tool_reads(
    name: str, engine: str, computes: ThresholdTable, remembers: ThresholdTable
) -> None:
    for table, count in ((computes, 3), (remembers, 4)):
        rules = SCALERS[name].rules(table, 120.0, metrics_of=engine)
        document = yaml.safe_load(rules.text)
        jsonschema.validate(document, SCALER_SCHEMAS[name])
        assert document == rules.document()["rules"]
        assert len(rules.triggers) == count
        assert all(one.reason in rules.text for one in rules.triggers)


def test_the_shortened_schemas_refuse_what_is_not_theirs(computes: ThresholdTable) -> None:
    documents = {name: SCALERS[name].rules(computes, 60.0).document()["rules"] for name in SCALERS}
    for name, schema in SCALER_SCHEMAS.items():
        for other, document in documents.items():
            if other != name:
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(document, schema)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rules(computes: ThresholdTable, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(SCALERS["prometheus-rules"].rules(computes, 120.0).text, encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_load_grows_to_the_slo_rate_while_a_replica_starts(computes: ThresholdTable) -> None:
    load = at(computes, cold_start_s=300.0, growth=0.2)
    minutes = (300.0 + REACTION_S) / 60
    assert load.target_per_s * (1 + 0.2 * minutes) == pytest.approx(8.0)
    assert at(computes, growth=0.0).target_per_s == 8.0


def test_thresholds_are_those_of_the_balance_at_the_target(remembers: ThresholdTable) -> None:
    load = at(remembers)
    found = {one.name: one.per_replica for one in triggers(load)[0]}
    assert found["fluidwait_tokens_per_second"] == pytest.approx(load.target_per_s * 1512)
    assert found["fluidwait_waiting_prompt_tokens"] == pytest.approx(load.target_per_s * 512 * 2.0)
    capacity = remembers.server.usable_kv_tokens
    in_service = found["fluidwait_kv_usage"] * capacity / (512 + 0.5 * 1000)
    # Those that wait hold no KV, and of three in service each sees a batch larger than average.
    assert in_service <= found["fluidwait_requests"] <= 1.05 * in_service


def test_what_kubernetes_tolerates_is_taken_off(computes: ThresholdTable) -> None:
    (one,) = triggers(at(computes, growth=0.05), ["token-rate"])[0]
    keda = SCALERS["keda"].rules(computes, 120.0, on=["token-rate"]).document()["rules"]
    told = float(keda["spec"]["triggers"][0]["metadata"]["threshold"])
    assert told * (1 + TOLERANCE) == pytest.approx(one.per_replica, rel=1e-3)
    hpa = SCALERS["hpa"].rules(computes, 120.0, on=["token-rate"]).document()["rules"]
    assert quantity(hpa["spec"]["metrics"][0]["external"]["target"]["averageValue"]) == told


def quantity(text: Any) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_kv_usage_is_refused_where_compute_binds(computes: ThresholdTable) -> None:
    with pytest.raises(InputError, match="compute binds, not memory"):
        triggers(at(computes), ["kv-usage"])
    assert any("kv-usage" in one for one in triggers(at(computes))[1])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cold_start_s": -1.0}, "cold_start_s"),
        ({"growth_per_min": -0.1}, "growth_per_min"),
        ({"slo_rate_per_s": 1e6}, "fluid limit"),
        ({"slo_rate_per_s": 0.0}, "requests/s > 0"),
        ({"on": ["temperature"]}, "one of requests"),
        ({"metrics_of": "tgi"}, "one of vllm, sglang"),
    ],
)
def test_bad_rules(computes: ThresholdTable, given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        SCALERS["hpa"].rules(computes, **{"cold_start_s": 60.0, **given})
