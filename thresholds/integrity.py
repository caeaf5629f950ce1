"""What a table, or a schedule, must pass beside its fields when it is read from a file."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from typing import Any, Protocol

from fluid.errors import InputError
from fluid.files import FileModel
from fluid.server import Server, require_fits
from fluid.workload import Workload
from thresholds.checks import is_number, is_whole
from thresholds.fields import TableFields
from thresholds.limits import PARAMETER_MEANINGS, Limits
from thresholds.recomputed import require_recomputed
from thresholds.rules import RULES

HASHED_SINCE = 5
"""Minor version of the schema from which on a file holds the hash of all of it."""


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


def whole_sha256(document: dict[str, Any], field: str) -> str:
    """SHA-256 of the sorted-key JSON of all of a document but its own `field`."""
    rest = {name: value for name, value in document.items() if name != field}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_whole(table: TableFields, document: dict[str, Any], file: str) -> None:
    """Refuse a table that is not sound, or was changed after it was written.

    Args:
        document: What it was read from.

    Raises:
        InputError: As `require_sound`, or naming the hash of the whole.
    """
    require_sound(table, file)
    given = document.get("table_sha256")
    if given is None and int(table.schema_version.split(".")[1]) < HASHED_SINCE:
        return
    expected = whole_sha256(document, "table_sha256")
    if given != expected:
        allowed = f"{expected}, the hash of the rest of this table"
        raise InputError("table_sha256", given or "nothing", allowed, file)


def require_sound(table: TableFields, file: str) -> None:
    """Refuse a table that no solver makes: nobody could follow it, or would be deceived.

    Raises:
        InputError: Naming file and field: an unknown policy or one with parameters or thresholds of
            another, a value out of range, a request that fits into no memory, another capacity than
            the server's, or a certificate, memory or balance that does not follow from the rest.
    """
    require_hashes(table, file)
    _require_params(table, file)
    _require_thresholds(table, file)
    try:
        require_fits(table.workload, table.server)
        if table.memory.capacity_tokens != table.server.usable_kv_tokens:
            allowed = f"{table.server.usable_kv_tokens}, that of the server in this file"
            raise InputError("memory.capacity_tokens", table.memory.capacity_tokens, allowed)
        require_recomputed(table, file)
    except InputError as error:
        raise error.in_file(file) from None


def expiry(table: TableFields, today: date) -> str | None:
    """Why a table is to be solved again, if its date has passed."""
    until = table.valid_for.until
    if until is None or date.fromisoformat(until) >= today:
        return None
    return f"valid until {until} only: solve it again"


def _require_params(table: TableFields, file: str) -> None:
    if table.policy not in RULES:
        raise InputError("policy", table.policy, "one of " + ", ".join(RULES), file)
    known = RULES[table.policy].params
    for name, value in table.params.items():
        if name not in known:
            allowed = f"only {', '.join(known)}" if known else f"none for policy {table.policy}"
            raise InputError(f"params.{name}", value, allowed, file)
        if name not in PARAMETER_MEANINGS and not _is_in_range(name, value):
            raise InputError(f"params.{name}", value, _RANGES[name], file)
    try:
        Limits.of_params(table.params)
    except InputError as error:
        raise InputError(f"params.{error.field}", error.value, error.allowed, file) from None


_RANGES = {
    "max_wait_s": "seconds > 0, 1e9 at most",
    "segments": "a whole number, 1 or more",
    "horizon_s": "seconds > 0, 1e9 at most",
    "overflow_probability": "a number > 0, 1 at most",
    "deterministic_buffer_tokens": "tokens, 0 or more",
    "stochastic_buffer_tokens": "tokens, 0 or more",
    "eta": "a number > 0, 1 at most",
}
"""Parameters beside pace, cap and watermark, and what each may be."""


def _is_in_range(name: str, value: int | float) -> bool:
    if not is_number(value):
        return False
    if name.endswith("_tokens"):
        return value >= 0
    if name == "segments":
        return is_whole(value) and value >= 1
    return 0 < value <= (1e9 if name.endswith("_s") else 1)


def _require_thresholds(table: TableFields, file: str) -> None:
    """One for each class of the workload, or segments that end with its longest output."""
    rule, ends = RULES[table.policy], [one.up_to_tokens for one in table.thresholds]
    if rule.segmented:
        for index, end in enumerate(ends):
            before = ends[index - 1] if index else 0
            if end is None or (before is not None and end <= before):
                allowed = "a segment end, above that of the segment before"
                raise InputError(f"thresholds[{index}].up_to_tokens", end, allowed, file)
    else:
        names = [one.name for one in table.workload.classes]
        given = [one.name for one in table.thresholds]
        if given != names:
            allowed = "one for each class of the workload, in order: " + ", ".join(names)
            raise InputError("thresholds", ", ".join(given), allowed, file)
        for index, end in enumerate(ends):
            if end is not None:
                allowed = f"none: policy {table.policy} has no segments"
                raise InputError(f"thresholds[{index}].up_to_tokens", end, allowed, file)
    for index, one in enumerate(table.thresholds):
        if rule.whole and not (is_whole(one.threshold) and one.threshold >= 1):
            field = f"thresholds[{index}].threshold"
            raise InputError(field, one.threshold, "whole requests", file)
    longest = max(one.decode_tokens for one in table.workload.classes)
    if rule.segmented and ends[-1] != longest:
        allowed = f"{longest}, the longest output of the workload"
        raise InputError(f"thresholds[{len(ends) - 1}].up_to_tokens", ends[-1], allowed, file)


def _require_hash(part: str, model: FileModel, given: str, file: str) -> None:
    expected = model.sha256()
    if given != expected:
        allowed = f"{expected}, the hash of the {part} in this file"
        raise InputError(f"{part}_sha256", given, allowed, file)
