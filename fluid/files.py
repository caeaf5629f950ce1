"""Reading and writing of the toolkit's own files: YAML or JSON in, whole files out.

Input is checked before any work: unknown fields, NaN, duplicate keys and wrong types end in one
`InputError` that names file, field, value and what is allowed. Output is written to a temporary
name and renamed, so that a reader never sees half a file.
"""

from __future__ import annotations

import difflib
import gc
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TextIO, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fluid.errors import InputError

Model = TypeVar("Model", bound="FileModel")


class FileModel(BaseModel):
    """Base of everything that users write in a file: immutable, closed, strictly typed.

    Raises:
        InputError: Built by hand from values that a file could not hold either, naming the first
            one by field.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _input_error(error, type(self), None) from None

    # To pydantic this is its own constructor: models inside other models, and those that are read
    # from files, go on through its core, which gives errors their whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def many(cls, rows: Iterable[dict[str, Any]]) -> tuple[Self, ...]:
        """One model for each row of fields, all validated at once.

        Raises:
            InputError: The first thing that is wrong, by place and field.
        """
        with without_collection():
            try:
                return TypeAdapter(tuple[cls, ...]).validate_python(tuple(rows))  # type: ignore[valid-type]
            except ValidationError as error:
                raise _input_error(error, cls, None) from None

    @classmethod
    def from_document(cls: type[Model], document: Any, file: str | None = None) -> Model:
        """Validate plain data (dicts, lists, numbers).

        Raises:
            InputError: The first thing that is wrong, by field.
        """
        if not isinstance(document, dict):
            raise InputError("", document, "a mapping of fields", file)
        try:
            # Through JSON mode, so that lists become tuples while numbers stay strict.
            with without_collection():
                return cls.model_validate_json(json.dumps(document, allow_nan=True, default=str))
        except ValidationError as error:
            raise _input_error(error, cls, file) from None

    @classmethod
    def read(cls: type[Model], path: str | Path) -> Model:
        """Read and validate a YAML or JSON file."""
        return cls.from_document(read_document(path), str(path))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy without what the original has cached, which an update may have made wrong."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Names and values of the fields, without what is cached beside them."""
        return ((name, getattr(self, name)) for name in type(self).model_fields)

    def document(self) -> dict[str, Any]:
        """The model as plain data, as written to a file; absent optional fields are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def sha256(self) -> str:
        """SHA-256 of the sorted-key JSON, the identity used in threshold tables."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        with without_collection():
            text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def without_collection() -> Iterator[None]:
    """While many objects are made that all stay, Python's collector would walk them in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_document(path: str | Path) -> Any:
    """Parse a YAML (``.yaml``, ``.yml``) or JSON (anything else) file into plain data."""
    path = Path(path)
    text = read_text(path)
    try:
        with without_collection():
            if path.suffix in {".yaml", ".yml"}:
                return yaml.load(text, Loader=_Loader)
            return json.loads(text, object_pairs_hook=_no_duplicates)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(where, problem, "valid YAML", str(path)) from None
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno}", error.msg, "valid JSON", str(path)) from None
    except _DuplicateKey as error:
        raise InputError(str(error), "given twice", "each key once", str(path)) from None


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, or an `InputError` that says why it could not be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("", "not UTF-8 text", "a UTF-8 text file", str(path)) from None
    except OSError as error:
        raise unreadable(error, path) from None


def unreadable(error: OSError, path: str | Path) -> InputError:
    """The error for a file that the system would not read."""
    missing = isinstance(error, FileNotFoundError)
    reason = "no such file" if missing else error.strerror or str(error)
    return InputError("", reason, "a readable file", str(path))


def require_folder(path: str | Path) -> None:
    """Refuse an output path whose folder does not exist, before any work is spent on it."""
    if not Path(path).parent.is_dir():
        raise InputError("", "no such folder", "a path in an existing folder", str(path))


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as stream:
        stream.write(text)


@contextmanager
def replacing(path: str | Path) -> Iterator[TextIO]:
    """A stream that becomes the file at the end: temporary name in the same folder, then rename.

    Raises:
        InputError: The folder is missing or not writable.
    """
    require_folder(path)
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError("", error.strerror, "a writable path", str(path)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_document(document: dict[str, Any], path: str | Path) -> None:
    """Write plain data as indented JSON; a whole file or nothing."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


class _DuplicateKey(Exception):
    pass


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader, in C if there is libyaml, for YAML 1.2: ``1e-3`` a number, no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                raise _DuplicateKey(key)
        return dict(super().construct_mapping(node, deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKey(next(key for key in keys if keys.count(key) > 1))
    return document


def _input_error(error: ValidationError, model: type[BaseModel], file: str | None) -> InputError:
    """Turn pydantic's first complaint into one line with the field's path and what is allowed."""
    errors = error.errors()
    # A misspelt field also leaves the right one missing: tell the cause, not the consequence.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    path = [part for part in first["loc"] if part != "function-after"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    field = field.lstrip(".")
    value = first["input"]
    kind = first["type"]
    if kind == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        allowed = "one of the fields " + ", ".join(fields)
        near = difflib.get_close_matches(str(path[-1]), fields, n=1, cutoff=0.5)
        if near:
            allowed = f"did you mean {near[0]}? Fields are " + ", ".join(fields)
        return InputError(field, value, allowed, file)
    if kind == "missing":
        return InputError(field, "nothing", "this field is required", file)
    if kind == "too_short":
        return InputError(field, value, f"at least {first['ctx']['min_length']} entry", file)
    cause = first.get("ctx", {}).get("error", first["msg"])
    if isinstance(cause, InputError):  # raised by what a validator called
        inner = ".".join(part for part in (field, cause.field) if part)
        return InputError(inner, cause.value, cause.allowed, file or cause.file)
    message = str(cause)
    return InputError(field, value, message[0].lower() + message[1:], file)


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Names of the fields of the (nested) model that `path` leads to."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation: Any = model.model_fields[part].annotation
        model = _model_in(annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None
