"""The JSON Schemas of tables and schedules, as published in ``thresholds/schema``.

After a change of the models write them again with ``python -m thresholds.json_schemas``.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fluid.files import FileModel, write_document
from thresholds.schedule import Schedule
from thresholds.table import ThresholdTable

_SCHEMAS: dict[type[FileModel], str] = {
    ThresholdTable: "threshold-table.schema.json",
    Schedule: "threshold-schedule.schema.json",
}


def generated_schema(model: type[FileModel] = ThresholdTable) -> dict[str, Any]:
    """The JSON Schema of a table or a schedule, from the model."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()


def shipped_schema(model: type[FileModel] = ThresholdTable) -> dict[str, Any]:
    """The JSON Schema as shipped with the package."""
    schema: dict[str, Any] = json.loads(_schema_file(model).read_text(encoding="utf-8"))
    return schema


def write_schemas() -> None:
    """Write the generated schemas to their place in the package."""
    for model in _SCHEMAS:
        write_document(generated_schema(model), _schema_file(model))


def _schema_file(model: type[FileModel]) -> Path:
    with resources.as_file(resources.files("thresholds")) as folder:
        return folder / "schema" / _SCHEMAS[model]


if __name__ == "__main__":
    write_schemas()
