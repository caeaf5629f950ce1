"""Threshold tables as files: schema, hashes, errors."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from matplotlib.figure import Figure
from pydantic import ValidationError

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from thresholds.fields import SCHEMA_VERSION, Interval, PolicyValidation, Validated
from thresholds.integrity import expiry, whole_sha256
from thresholds.json_schemas import generated_schema, shipped_schema
from thresholds.solvers.common import predicted
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.registry import SOLVERS
from thresholds.table import ThresholdTable

EARLIER = Path(__file__).parents[1] / "data"
"""One table written by each earlier minor version of the schema."""

LOAD = Workload(
    name="chat",
    classes=(RequestClass(name="one", rate_per_s=4.0, prefill_tokens=200, decode_tokens=5),),
    source="test",
)
SERVER = load_server("paper-lmsys")
VALIDATED = Validated(
    replications=20,
    requests=20_000,
    seed=1,
    policies=(
        PolicyValidation(
            policy="paced",
            params={"cap_requests": 9},
            rate_per_s=4.0,
            verdict="stable",
            latency_s=Interval(mean=0.1, half_width=0.01),
            completed_share=Interval(mean=1.0, half_width=0.001),
            evictions_per_request=0.0,
            collapsed_share=0.0,
        ),
        PolicyValidation(
            policy="greedy",
            params={},
            rate_per_s=4.0,
            verdict="unstable",
            latency_s=None,
            completed_share=Interval(mean=0.7, half_width=0.02),
            evictions_per_request=1.5,
            collapsed_share=0.4,
        ),
    ),
)


PACED = Paced().solve(LOAD, SERVER)


@pytest.fixture(params=["paced", "wait", "validated"])
def table(request: pytest.FixtureRequest) -> ThresholdTable:
    if request.param != "validated":
        return SOLVERS[request.param]().solve(LOAD, SERVER)
    return Paced().solve(LOAD, SERVER).model_copy(update={"validated": VALIDATED})


def changed(table: ThresholdTable, folder: Path, **fields: Any) -> Path:
    path = folder / "table.json"
    document = table.document() | fields
    document["table_sha256"] = whole_sha256(document, "table_sha256")
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_shipped_schema_is_the_generated_one() -> None:
    assert shipped_schema() == generated_schema()


def test_a_written_table_follows_the_schema_and_reads_back(
    table: ThresholdTable, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    table.write(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(shipped_schema()).validate(document)
    assert ThresholdTable.read(path) == table
    assert set(document) == set(ThresholdTable.model_fields)


def test_the_schema_itself_refuses_what_the_reader_refuses(table: ThresholdTable) -> None:
    validator = jsonschema.Draft202012Validator(shipped_schema())
    validator.check_schema(shipped_schema())
    document = table.document()
    for broken in (
        document | {"schema_version": "2.0"},
        document | {"extra": 1},
        {key: value for key, value in document.items() if key != "memory"},
        document | {"workload_sha256": "abc"},
    ):
        assert not validator.is_valid(broken)


def test_hashes_can_be_checked_from_the_file_alone(table: ThresholdTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table.write(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    for part in ("workload", "server", "table"):
        held = document.get(part) or {k: v for k, v in document.items() if k != "table_sha256"}
        text = json.dumps(held, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == document[f"{part}_sha256"]


def test_a_table_changed_after_it_was_written_is_refused(
    table: ThresholdTable, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    table.write(path)
    path.write_text(path.read_text().replace('"notes": [', '"notes": ["trust me", ', 1))
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert caught.value.field == "table_sha256"


def _edited(table: ThresholdTable, part: str, **values: Any) -> dict[str, Any]:
    """The part with other values; of a list its first entry."""
    said = table.document()[part]
    return {part: said | values if isinstance(said, dict) else [said[0] | values, *said[1:]]}


ABSURD: list[tuple[str, str, dict[str, Any]]] = [
    ("params.pace_per_iteration", "params", {"pace_per_iteration": -1}),
    ("params.pace_per_iteration", "params", {"pace_per_iteration": 1e-300}),
    ("params.cap_requests", "params", {"cap_requests": 0}),
    ("params.cap_requests", "params", {"cap_requests": 10**39}),
    ("params.watermark_fraction", "params", {"watermark_fraction": -0.1}),
    ("params.watermark_fraction", "params", {"watermark_fraction": 0.995}),
    ("params.max_wait_s", "params", {"max_wait_s": 1.0}),
    ("params.x; touch y", "params", {"x; touch y": 1}),
    ("thresholds", "thresholds", {"name": "zzz"}),
    ("thresholds[0].threshold", "thresholds", {"threshold": -1}),
    ("thresholds[0].up_to_tokens", "thresholds", {"up_to_tokens": 5}),
    ("thresholds[0].name", "thresholds", {"name": "a\ntouch y"}),
    ("memory.capacity_tokens", "memory", {"capacity_tokens": 5}),
    ("memory.required_tokens", "memory", {"required_tokens": 1e9}),
    ("predicted.utilisation", "predicted", {"utilisation": 5.0}),
    ("predicted.max_scale", "predicted", {"max_scale": 0.1}),
    ("predicted.kv_tokens", "predicted", {"kv_tokens": None}),
    ("certificate[0].slack", "certificate", {"slack": 0.999}),
    ("certificate[0].slack", "certificate", {"slack": -1.0, "holds": False}),
    ("certificate[0].holds", "certificate", {"holds": False}),
    ("certificate", "certificate", {"condition": "all is well"}),
    ("valid_for", "valid_for", {"min_rate_per_s": 9.0, "max_rate_per_s": 1.0}),
    ("valid_for", "valid_for", {"until": "yesterday"}),
]


@pytest.mark.parametrize(("field", "part", "values"), ABSURD)
def test_a_table_that_no_solver_makes_is_refused(
    field: str, part: str, values: dict[str, Any], tmp_path: Path
) -> None:
    path = changed(PACED, tmp_path, **_edited(PACED, part, **values))
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("policy", ["wait", "nested-wait", "mine"])
def test_a_policy_with_the_parameters_of_another_is_refused(policy: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(changed(PACED, tmp_path, policy=policy))
    assert caught.value.field.startswith(("policy", "params."))


def test_a_request_that_fits_into_no_memory_is_refused(tmp_path: Path) -> None:
    load = LOAD.document()
    load["classes"][0] |= {"decode_tokens": 10**6}
    digest = Workload.from_document(load).sha256()
    path = changed(PACED, tmp_path, workload=load, workload_sha256=digest)
    with pytest.raises(InputError, match="1000200 KV tokens at its end"):
        ThresholdTable.read(path)


def test_a_condition_that_fails_honestly_is_kept(tmp_path: Path) -> None:
    """At a higher rate the same thresholds are unstable, and the file says so."""
    load = LOAD.at_rate(10_000.0)
    found = equilibrium(load, SERVER)
    slack = 1 - 1 / found.max_scale
    stable = PACED.certificate[0].model_copy(update={"slack": slack, "holds": False})
    fields = {
        "workload": load.document(),
        "workload_sha256": load.sha256(),
        "predicted": predicted(found, None).model_dump(),
    }
    path = changed(PACED, tmp_path, **fields, certificate=[stable.model_dump()])
    assert slack < 0
    assert "NO" in str(ThresholdTable.read(path))


def test_a_date_that_has_passed_is_told(tmp_path: Path) -> None:
    path = changed(PACED, tmp_path, **_edited(PACED, "valid_for", until="2031-12-24"))
    found = ThresholdTable.read(path)
    assert expiry(found, date(2031, 12, 24)) is None
    assert "2031-12-24" in (expiry(found, date(2031, 12, 25)) or "")


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", 1, None, "x"])
def test_other_major_versions_are_refused(
    version: Any, table: ThresholdTable, tmp_path: Path
) -> None:
    path = changed(table, tmp_path, schema_version=version)
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), "schema_version")
    assert caught.value.value == version


def test_later_minor_versions_are_read(table: ThresholdTable, tmp_path: Path) -> None:
    later = changed(table, tmp_path, schema_version="1.7")
    assert ThresholdTable.read(later).schema_version == "1.7"


@pytest.mark.parametrize("part", ["workload", "server"])
def test_a_part_that_does_not_match_its_hash_is_refused(
    part: str, table: ThresholdTable, tmp_path: Path
) -> None:
    path = changed(table, tmp_path, **{part: table.document()[part] | {"name": "other"}})
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), f"{part}_sha256")


OF_VERSION_1_0 = json.loads((EARLIER / "threshold-table-1.0.json").read_text()).keys()


@pytest.mark.parametrize("field", sorted(OF_VERSION_1_0))
def test_every_field_of_the_first_version_is_required(
    field: str, table: ThresholdTable, tmp_path: Path
) -> None:
    document = table.document()
    del document[field]
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
    assert "required" in caught.value.allowed


def test_nested_errors_are_named_by_path(table: ThresholdTable, tmp_path: Path) -> None:
    memory = table.document()["memory"] | {"required_tokens": -1}
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(changed(table, tmp_path, memory=memory))
    assert caught.value.field == "memory.required_tokens"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(InputError, match="a mapping"):
        ThresholdTable.read(path)


@pytest.mark.parametrize(
    "path", sorted(EARLIER.glob("threshold-table-*.json")), ids=lambda p: p.stem
)
def test_tables_of_earlier_versions_can_still_be_read(path):
    document = json.loads(path.read_text())
    found = ThresholdTable.read(path)
    assert found.schema_version == document["schema_version"] == path.stem.rsplit("-", 1)[1]
    assert found.params == document["params"]
    jsonschema.validate(found.document(), shipped_schema())
    assert found.document()["schema_version"] == SCHEMA_VERSION
    assert (found.validated is None) == (document["validated"] is None)


def test_there_is_a_table_of_every_earlier_minor_version():
    files = EARLIER.glob("threshold-table-*.json")
    minor = int(SCHEMA_VERSION.split(".")[1])
    assert {one.stem.rsplit("-", 1)[1] for one in files} == {f"1.{one}" for one in range(minor)}


def test_a_validation_before_schema_1_3_has_no_paired_difference() -> None:
    found = ThresholdTable.read(EARLIER / "threshold-table-1.2.json")
    assert found.validated is not None
    assert [one.latency_difference_s for one in found.validated.policies] == [None] * 3
    assert [one.label for one in found.validated.side_by_side[1:]] == [
        "greedy:watermark=0.01",
        "greedy:watermark=0.05",
    ]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"pace_per_iteration": 0.0}, "params.pace_per_iteration"),
        ({"cap_requests": 1.5}, "params.cap_requests"),
        ({"watermark_fraction": 1.0}, "params.watermark_fraction"),
    ],
)
def test_restraints_out_of_range_are_refused(
    params: dict[str, float], field: str, table: ThresholdTable, tmp_path: Path
) -> None:
    path = changed(table, tmp_path, params=params)
    with pytest.raises(InputError) as caught:
        ThresholdTable.read(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)


def test_a_table_speaks_and_is_a_frozen_value(table: ThresholdTable) -> None:
    again = ThresholdTable.from_document(table.document())
    assert again == table
    assert repr(table) == str(table) == str(again)
    assert str(table).startswith(f"{table.policy} table for chat on paper-lmsys")
    assert "<table>" in table._repr_html_()
    assert table.model_copy(update={"notes": ()}) != table
    with pytest.raises(ValidationError):
        table.policy = "other"  # type: ignore[misc]
    assert table.frame()["name"] == ["one"]
    assert table.limits.params.items() >= table.params.items()


def test_the_picture_of_a_table_is_its_validation(table: ThresholdTable) -> None:
    if table.validated is None:
        with pytest.raises(InputError, match="replay it first"):
            table.plot()
        return
    figure = Figure()
    latency, completed = table.plot(figure.subplots(1, 2, sharey=True))
    labels = [one.get_text() for one in latency.get_yticklabels()]
    assert labels == ["this table (paced)", "greedy"]
    assert [one.get_text() for one in latency.texts] == ["unstable"]
    assert len(completed.containers) == 2


def test_flags_are_those_of_the_engine(table: ThresholdTable) -> None:
    for name in ("vllm", "sglang", "trtllm"):
        found = table.flags(name)
        carried = getattr(table.engine_flags, name)
        assert {one.name: one.value for one in found.flags} == carried
        assert found == table.flags(name)
    assert "FLUIDWAIT_TABLE=t.json" in str(table.flags("env", "t.json"))
    with pytest.raises(InputError, match="one of vllm, sglang, trtllm, env"):
        table.flags("tgi")
