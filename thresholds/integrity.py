"""What a table, or a schedule, must pass beside its fields when it is read from a file."""

from __future__ import annotations

from typing import Any, Protocol

from fluid.errors import InputError
from fluid.files import FileModel
from fluid.server import Server
from fluid.workload import Workload
from thresholds.fields import TableFields
from thresholds.limits import Limits


class Hashed(Protocol):
    """A document that holds workload and server whole, and their hashes."""

    @property
    def workload(self) -> Workload: ...
    @property
    def server(self) -> Server: ...
    @property
    def workload_sha256(self) -> str: ...
    @property
    def server_sha256(self) -> str: ...


def require_known_version(field: str, document: Any, known: str, file: str) -> None:
    """Refuse a document of another major version; one without any version passes.

    Raises:
        InputError: Naming file and field.
    """
    if not isinstance(document, dict) or field not in document:
        return
    given, major = document[field], known.split(".")[0]
    if not isinstance(given, str) or given.split(".")[0] != major:
        allowed = f"a version {major}.x (this program writes {known})"
        raise InputError(field, given, allowed, file)


def require_hashes(document: Hashed, file: str) -> None:
    """Refuse a document whose hashes are not those of the workload and server in it.

    Raises:
        InputError: Naming file and hash.
    """
    _require_hash("workload", document.workload, document.workload_sha256, file)
    _require_hash("server", document.server, document.server_sha256, file)


def require_limits(table: TableFields, file: str) -> None:
    """Refuse a table whose pace, cap or watermark is out of range.

    Raises:
        InputError: Naming file and parameter.
    """
    try:
        Limits.of_params(table.params)
    except InputError as error:
        raise InputError(f"params.{error.field}", error.value, error.allowed, file) from None


def _require_hash(part: str, model: FileModel, given: str, file: str) -> None:
    expected = model.sha256()
    if given != expected:
        allowed = f"{expected}, the hash of the {part} in this file"
        raise InputError(f"{part}_sha256", given, allowed, file)
