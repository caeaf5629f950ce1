"""Threshold tables as JSON files, and the JSON Schema they follow."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.files import FileModel, read_document, write_text
from thresholds.table import MAJOR_VERSION, SCHEMA_VERSION, ThresholdTable


def write_table(table: ThresholdTable, path: str | Path) -> None:
    """Write a table, whole or not at all."""
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
        _require_known_version(document["schema_version"], file)
    table = ThresholdTable.from_document(document, file)
    _require_hash("workload", table.workload, table.workload_sha256, file)
    _require_hash("server", table.server, table.server_sha256, file)
    return table


def generated_schema() -> dict[str, Any]:
    """The JSON Schema of a table, from the model.

    Shipped as ``thresholds/schema/threshold-table.schema.json``; after a change of the model write
    it again with ``python -m thresholds.export.jsonio``.
    """
    schema = ThresholdTable.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def shipped_schema() -> dict[str, Any]:
    """The JSON Schema as shipped with the package."""
    schema: dict[str, Any] = json.loads(_schema_file().read_text(encoding="utf-8"))
    return schema


def write_schema() -> None:
    """Write the generated schema to its place in the package."""
    write_text(_schema_file(), json.dumps(generated_schema(), indent=2, ensure_ascii=False) + "\n")


def _schema_file() -> Path:
    with resources.as_file(resources.files("thresholds")) as folder:
        return folder / "schema" / "threshold-table.schema.json"


def _require_known_version(given: Any, file: str) -> None:
    if not isinstance(given, str) or given.split(".")[0] != MAJOR_VERSION:
        allowed = f"a version {MAJOR_VERSION}.x (this program writes {SCHEMA_VERSION})"
        raise InputError("schema_version", given, allowed, file)


def _require_hash(part: str, model: FileModel, given: str, file: str) -> None:
    expected = model.sha256()
    if given != expected:
        allowed = f"{expected}, the hash of the {part} in this file"
        raise InputError(f"{part}_sha256", given, allowed, file)


if __name__ == "__main__":
    write_schema()
