"""Threshold tables as files: schema, hashes, errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fluid.errors import InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.export.jsonio import (
    generated_schema,
    read_table,
    shipped_schema,
    write_table,
)
from thresholds.problem import Problem
from thresholds.solve import solve
from thresholds.table import (
    SCHEMA_VERSION,
    Interval,
    PolicyValidation,
    ThresholdTable,
    Validated,
)

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


@pytest.fixture(params=["paced", "wait", "validated"])
def table(request: pytest.FixtureRequest) -> ThresholdTable:
    if request.param != "validated":
        return solve(Problem(LOAD, SERVER, request.param))
    return solve(Problem(LOAD, SERVER)).model_copy(update={"validated": VALIDATED})


def changed(table: ThresholdTable, folder: Path, **fields: Any) -> Path:
    path = folder / "table.json"
    path.write_text(json.dumps(table.document() | fields), encoding="utf-8")
    return path


def test_shipped_schema_is_the_generated_one() -> None:
    assert shipped_schema() == generated_schema()


def test_a_written_table_follows_the_schema_and_reads_back(
    table: ThresholdTable, tmp_path: Path
) -> None:
    path = tmp_path / "table.json"
    write_table(table, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(shipped_schema()).validate(document)
    assert read_table(path) == table
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
    write_table(table, path)
    document = json.loads(path.read_text(encoding="utf-8"))
    for part in ("workload", "server"):
        text = json.dumps(document[part], sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == document[f"{part}_sha256"]


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", 1, None, "x"])
def test_other_major_versions_are_refused(
    version: Any, table: ThresholdTable, tmp_path: Path
) -> None:
    path = changed(table, tmp_path, schema_version=version)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert (caught.value.file, caught.value.field) == (str(path), "schema_version")
    assert caught.value.value == version


def test_later_minor_versions_are_read(table: ThresholdTable, tmp_path: Path) -> None:
    assert read_table(changed(table, tmp_path, schema_version="1.7")).schema_version == "1.7"


@pytest.mark.parametrize("part", ["workload", "server"])
def test_a_part_that_does_not_match_its_hash_is_refused(
    part: str, table: ThresholdTable, tmp_path: Path
) -> None:
    path = changed(table, tmp_path, **{part: table.document()[part] | {"name": "other"}})
    with pytest.raises(InputError) as caught:
        read_table(path)
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
        read_table(path)
    assert (caught.value.file, caught.value.field) == (str(path), field)
    assert "required" in caught.value.allowed


def test_nested_errors_are_named_by_path(table: ThresholdTable, tmp_path: Path) -> None:
    memory = table.document()["memory"] | {"required_tokens": -1}
    with pytest.raises(InputError) as caught:
        read_table(changed(table, tmp_path, memory=memory))
    assert caught.value.field == "memory.required_tokens"


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(InputError, match="a mapping"):
        read_table(path)


@pytest.mark.parametrize(
    "path", sorted(EARLIER.glob("threshold-table-*.json")), ids=lambda p: p.stem
)
def test_tables_of_earlier_versions_can_still_be_read(path):
    document = json.loads(path.read_text())
    found = read_table(path)
    assert found.schema_version == document["schema_version"] == path.stem.rsplit("-", 1)[1]
    assert found.params == document["params"]
    jsonschema.validate(found.document(), shipped_schema())


def test_there_is_a_table_of_every_earlier_minor_version():
    files = EARLIER.glob("threshold-table-*.json")
    minor = int(SCHEMA_VERSION.split(".")[1])
    assert {one.stem.rsplit("-", 1)[1] for one in files} == {f"1.{one}" for one in range(minor)}
