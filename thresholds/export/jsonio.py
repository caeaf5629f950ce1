"""Threshold tables and schedules as JSON files, and the JSON Schemas they follow."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.files import FileModel, read_document, write_text
from thresholds.schedule import SCHEDULE_VERSION, Schedule
from thresholds.table import SCHEMA_VERSION, ThresholdTable


def write_table(table: ThresholdTable | Schedule, path: str | Path) -> None:
    """Write a table or a schedule, whole or not at all."""
    write_text(path, json.dumps(table.document(), indent=2, ensure_ascii=False) + "\n")


def read_table(path: str | Path) -> ThresholdTable:
    """Read a table and check it.

    Raises:
        InputError: Naming file and field: unknown major version, missing or wrong field, or a hash
            that is not that of the workload or server beside it.
    """
    file = str(path)
    document = read_document(path)
    if isinstance(document, dict) and "schema_version" in document:
        _require_known_version("schema_version", document, SCHEMA_VERSION, file)
    table = ThresholdTable.from_document(document, file)
    _require_hashes(table, file)
    return table


def read_schedule(path: str | Path) -> Schedule:
    """Read a schedule and check it, with all of its tables.

    Raises:
        InputError: As `read_table`.
    """
    file = str(path)
    document = read_document(path)
    if isinstance(document, dict) and "schedule_version" in document:
        _require_known_version("schedule_version", document, SCHEDULE_VERSION, file)
    schedule = Schedule.from_document(document, file)
    _require_hashes(schedule, file)
    for window in schedule.windows:
        _require_hashes(window.table, file)
    return schedule


def generated_schema(model: type[FileModel] = ThresholdTable) -> dict[str, Any]:
    """The JSON Schema of a table or a schedule, from the model.

    Shipped in ``thresholds/schema``; after a change of the model write it again with ``python -m
    thresholds.export.jsonio``.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()


def shipped_schema(model: type[FileModel] = ThresholdTable) -> dict[str, Any]:
    """The JSON Schema as shipped with the package."""
    schema: dict[str, Any] = json.loads(_schema_file(model).read_text(encoding="utf-8"))
    return schema


def write_schemas() -> None:
    """Write the generated schemas to their place in the package."""
    for model in _SCHEMAS:
        text = json.dumps(generated_schema(model), indent=2, ensure_ascii=False) + "\n"
        write_text(_schema_file(model), text)


_SCHEMAS: dict[type[FileModel], str] = {
    ThresholdTable: "threshold-table.schema.json",
    Schedule: "threshold-schedule.schema.json",
}


def _schema_file(model: type[FileModel]) -> Path:
    with resources.as_file(resources.files("thresholds")) as folder:
        return folder / "schema" / _SCHEMAS[model]


def _require_known_version(field: str, document: dict[str, Any], known: str, file: str) -> None:
    given, major = document[field], known.split(".")[0]
    if not isinstance(given, str) or given.split(".")[0] != major:
        allowed = f"a version {major}.x (this program writes {known})"
        raise InputError(field, given, allowed, file)


def _require_hashes(document: ThresholdTable | Schedule, file: str) -> None:
    _require_hash("workload", document.workload, document.workload_sha256, file)
    _require_hash("server", document.server, document.server_sha256, file)


def _require_hash(part: str, model: FileModel, given: str, file: str) -> None:
    expected = model.sha256()
    if given != expected:
        allowed = f"{expected}, the hash of the {part} in this file"
        raise InputError(f"{part}_sha256", given, allowed, file)


if __name__ == "__main__":
    write_schemas()
