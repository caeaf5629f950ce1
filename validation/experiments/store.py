"""Finished rows of sweeps: a folder of Parquet files that any tool reads as one table.

Parquet, because pandas, polars and DuckDB read it and numbers come back exactly. A folder, because
no file is ever changed: each is written under a temporary name and renamed, so that a killed run
leaves whole files only and the next one adds its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fluid.errors import InputError
from validation.experiments.simulate import SPREAD, PolicyResult, Spread, spread_columns
from validation.experiments.slo.levels import Level

FLUSH_S = 5.0
"""Finished rows wait in memory for so long, to be written together."""

FLUSH_SHARE = 0.01
"""Or for this share of the time that the run has taken so far, where that is longer: a long run
makes hundreds of files, not thousands, and a kill costs it a hundredth."""

STALE_S = 3600.0
"""Age at which a temporary file belongs to no living run: writing one takes milliseconds."""

CHECKSUM = "row_sha256"
"""Column with the SHA-256 of the rest of its row."""

_LOG = logging.getLogger(__name__)

_VERSION_KEY, _SCHEMA_VERSION = b"fluidwait_rows", b"5"
_ARROW_TYPES = {
    "str": "string",
    "int": "int64",
    "int | None": "int64",
    "float": "double",
    "float | None": "double",
    "tuple[float, ...]": "list",
    "dict[str, Any]": "string",  # as JSON
    "tuple[Level, ...]": "string",  # as JSON
}


class Store:
    """Rows by key; a context manager that writes what is left when it ends, on errors too.

    Attributes:
        path: The folder; made if it is not there, and gone again where an error ends it empty.

    Raises:
        InputError: The folder cannot be made, or holds something else than rows of this version.
    """

    def __init__(self, path: Path, flush_s: float = FLUSH_S) -> None:
        self.path = path
        self._flush_s = flush_s
        self._new: list[dict[str, Any]] = []
        self._opened = self._flushed = time.monotonic()
        if not path.parent.is_dir():
            raise InputError("", "no such folder", "a path in an existing folder", str(path))
        self._made = not path.exists()
        try:
            path.mkdir(exist_ok=True)
            parts = sorted(_parts(path))
        except OSError as error:
            raise InputError("", error.strerror, "a folder for rows", str(path)) from None
        self._results = dict(row for part in parts for row in _sound_rows(part))

    def __len__(self) -> int:
        return len(self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()
        if error is not None and self._made and not self._results:
            with suppress(OSError):  # somebody else has put something there
                self.path.rmdir()

    def find(self, key: str) -> PolicyResult | None:
        """The stored result of a configuration, if it has run."""
        return self._results.get(key)

    def add(self, key: str, result: PolicyResult, *, model: str, seed: int) -> None:
        """Keep a finished row: in memory at once, in the folder within seconds (`FLUSH_S`).

        Args:
            model: Digest of workload, server and arrivals.
        """
        self._results[key] = result
        self._new.append(row_of_result(result, key=key, model=model, seed=seed))
        now = time.monotonic()
        wait_s = max(self._flush_s, FLUSH_SHARE * (now - self._opened))
        if now - self._flushed >= wait_s:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait in memory: all of them or none.

        Raises:
            InputError: The folder cannot be written to.
        """
        if not self._new:
            return
        import pyarrow as pa
        from pyarrow import parquet

        name = f"part-{uuid.uuid4().hex}.parquet"
        temporary = self.path / f".{name}"
        try:
            parquet.write_table(pa.Table.from_pylist(self._new, _schema()), temporary)
            os.replace(temporary, self.path / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise InputError("", reason, "a folder to write rows into", str(self.path)) from None
        self._new = []
        self._flushed = time.monotonic()


def opened(store: Store | str | Path | None) -> AbstractContextManager[Store | None]:
    """A store as users give it, open: one that they have, which stays open, a folder, or none."""
    if isinstance(store, str | Path):
        return Store(Path(store))
    return nullcontext(store)


def row_of_result(result: PolicyResult, *, key: str, model: str, seed: int) -> dict[str, Any]:
    """A result as it is kept, parameters as JSON."""
    kept = {"key": key, "model": model, "seed": seed} | result.flat()
    kept["params"] = json.dumps(result.params)
    kept["levels"] = json.dumps([asdict(one) for one in result.levels])
    return kept | {CHECKSUM: _checksum(kept)}


def result_of_row(row: dict[str, Any]) -> PolicyResult:
    """The result that `row_of_result` made a row of."""
    values: dict[str, Any] = {}
    for field in fields(PolicyResult):
        if field.type == SPREAD:
            columns = spread_columns(field.name)
            figures = {figure: row[column] for figure, column in columns.items()}
            values[field.name] = None if figures["mean"] is None else Spread(**figures)
        elif field.name == "params":
            values[field.name] = json.loads(row["params"])
        elif field.name == "levels":
            values[field.name] = tuple(Level(**one) for one in json.loads(row["levels"]))
        else:
            value = row[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return PolicyResult(**values)


def _checksum(row: dict[str, Any]) -> str:
    """SHA-256 of the sorted-key JSON of all of a row but its own checksum."""
    rest = {name: value for name, value in row.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@cache
def _schema() -> Any:
    """Columns of a row, in the order of the fields of `PolicyResult`."""
    import pyarrow as pa

    columns = {"key": "string", "model": "string", "seed": "int64", "label": "string"}
    for field in fields(PolicyResult):
        if field.type == SPREAD:
            columns |= dict.fromkeys(spread_columns(field.name).values(), "double")
        else:
            columns[field.name] = _ARROW_TYPES[str(field.type)]
    columns[CHECKSUM] = "string"
    listed = pa.list_(pa.float64())
    return pa.schema(
        [(name, listed if kind == "list" else kind) for name, kind in columns.items()],
        metadata={_VERSION_KEY: _SCHEMA_VERSION},
    )


def _parts(folder: Path) -> Iterator[Path]:
    """Whole files of a folder of rows; what a killed run left of a file is removed in time.

    Raises:
        InputError: The folder holds something else.
    """
    for entry in folder.iterdir():
        if entry.name.startswith(".part-"):
            with suppress(OSError):  # another process may just have renamed or removed it
                if time.time() - entry.stat().st_mtime > STALE_S:
                    entry.unlink()
        elif entry.suffix == ".parquet":
            yield entry
        elif not entry.name.startswith("."):
            raise InputError("", entry.name, "a new folder, or one with rows only", str(folder))


def _sound_rows(part: Path) -> Iterator[tuple[str, PolicyResult]]:
    """Key and result of each row; one that was changed or broken is named, and left out."""
    for number, row in enumerate(_read_rows(part), 1):
        try:
            sound = row[CHECKSUM] == _checksum(row)
            result = result_of_row(row) if sound else None
        except (TypeError, ValueError, KeyError):
            result = None
        if result is None:
            said = "does not match its checksum: it is left out, and run again"
            _LOG.warning("%s: row %d %s", part, number, said)
        else:
            yield row["key"], result


def _read_rows(part: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(part).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError("", str(error), "a whole Parquet file", str(part)) from None
    version = (table.schema.metadata or {}).get(_VERSION_KEY)
    if version != _SCHEMA_VERSION or not table.schema.equals(_schema()):
        allowed = f"rows of fluidwait, schema version {_SCHEMA_VERSION.decode()}"
        raise InputError("", "a Parquet file of something else", allowed, str(part))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
