"""Reading and writing of the toolkit's own files: YAML or JSON in, whole files out.

Input is checked before any work: unknown fields, NaN, duplicate keys and wrong types end in one
`InputError` that names file, field, value and what is allowed (`fluid.parsing` bounds what a parser
may be asked). Output is written to a temporary name and renamed, so that a reader never sees half a
file.
"""

from __future__ import annotations

import difflib
import errno
import gc
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self, TextIO, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fluid.errors import InputError
from fluid.parsing import MOST_BYTES, parse_json, parse_yaml

Model = TypeVar("Model", bound="FileModel")

MOST_PATH = 200
"""Characters of a path in an error."""


class FileModel(BaseModel):
    """Base of everything that users write in a file: immutable, closed, strictly typed.

    Built by hand, a list or an array does for a tuple, and a number of numpy's for Python's own.

    Raises:
        InputError: Built by hand from values that a file could not hold either, naming the first
            one by field.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**{name: _plain(value) for name, value in fields.items()})
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

    def changed(self, **fields: Any) -> Self:
        """A copy with other values in these fields, checked as if it had been built by hand.

        `model_copy` is pydantic's own and checks nothing.

        Raises:
            InputError: Naming the first field that does not exist, or does not take its value.

        >>> import fluidwait as fw
        >>> server = fw.Server.named("paper-lmsys")
        >>> server.changed(kv_capacity_tokens=5_000).usable_kv_tokens
        5000
        >>> server.changed(kv_capacity_tokens=-5)
        Traceback (most recent call last):
            ...
        fluid.errors.InputError: kv_capacity_tokens: got -5; allowed: input should be greater than \
or equal to 1
        """
        return type(self)(**dict(self) | fields)

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
    """Parse a YAML (``.yaml``, ``.yml``) or JSON (anything else) file into plain data.

    Raises:
        InputError: The file cannot be read, is neither, or is beyond a bound of `fluid.parsing`.
    """
    parse = parse_yaml if Path(path).suffix in {".yaml", ".yml"} else parse_json
    with without_collection():
        return parse(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, or an `InputError` that says why it could not be read."""
    require_readable(path)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(MOST_BYTES + 1)
    except UnicodeDecodeError:
        raise InputError("", "not UTF-8 text", "a UTF-8 text file", str(path)) from None
    except OSError as error:
        raise unreadable(error, path) from None
    if len(text) > MOST_BYTES:
        allowed = f"a file of at most {MOST_BYTES >> 20} MiB"
        raise InputError("", "a larger file", allowed, str(path))
    return text


def require_readable(path: str | Path) -> None:
    """Refuse what is no regular file: a pipe may never speak, a device never end.

    Raises:
        InputError: Saying what it is instead.
    """
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise unreadable(error, path) from None
    if not stat.S_ISREG(kind):
        what = "a directory" if stat.S_ISDIR(kind) else "a pipe or device"
        raise InputError("", what, "a regular file", str(path))


def unreadable(error: OSError | ValueError, path: str | Path) -> InputError:
    """The error for a file that the system would not read."""
    missing = isinstance(error, FileNotFoundError)
    reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
    return InputError("", reason, "a readable file", _shortened(path))


def require_output(path: str | Path) -> None:
    """Refuse a file that could not be written, before any work is spent on it.

    Raises:
        InputError: No folder for it, a folder of its name, no permission, or a name that is empty
            or too long.
    """
    _place(path)


def require_output_folder(path: str | Path) -> None:
    """Refuse a folder that could not be made or written to, before any work is spent on it.

    Raises:
        InputError: It is a file, nobody may write there, or it has nowhere to be.
    """
    folder = Path(os.path.realpath(path))
    try:
        while not folder.exists():
            folder = folder.parent
    except (OSError, ValueError) as error:
        raise _unwritable(error, path) from None
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError("", "not a folder to write into", "a folder", _shortened(path))


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as stream:
        stream.write(text)


@contextmanager
def replacing(path: str | Path) -> Iterator[TextIO]:
    """`replacing_bytes` for text, in UTF-8."""
    with replacing_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8") as text:
        yield text


@contextmanager
def replacing_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """A stream that becomes the file at the end: temporary name in the same folder, then rename.

    It goes through a symbolic link to its target and keeps the mode of the file that it replaces.
    A device or a pipe is written to, as shells do.

    Raises:
        InputError: The file cannot be written, from the start or before its end (a full disk).
    """
    target, mode = _place(path)
    try:
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as stream:
                yield stream
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
            os.chmod(temporary, stat.S_IMODE(mode) if mode is not None else 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(error, path) from None


def _place(path: str | Path) -> tuple[Path, int | None]:
    """Where a file is to be written, links followed, and the mode of what is there, if anything.

    Raises:
        InputError: It cannot be written there.
    """
    try:
        return _found_place(path)
    except (OSError, ValueError) as error:
        raise _unwritable(error, path) from None


def _found_place(path: str | Path) -> tuple[Path, int | None]:
    if str(path) in {"", "."}:
        raise OSError(errno.EINVAL, "no file name")
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.is_dir():
        raise OSError(errno.ENOENT, "no such folder")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    is_new_file = mode is None or stat.S_ISREG(mode)
    if is_new_file and len(os.fsencode(target.name)) > os.pathconf(folder, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if not os.access(target, os.W_OK) and mode is not None:
        raise PermissionError(errno.EACCES, "not writable")
    if is_new_file and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "the folder is not writable")
    return target, mode


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _unwritable(error: OSError | ValueError, path: str | Path) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    missing = reason == "no such folder"
    allowed = "a path in an existing folder" if missing else "a writable file"
    return InputError("", reason, allowed, _shortened(path))


def _shortened(path: str | Path) -> str:
    """A path as an error shows it."""
    text = str(path)
    return text if len(text) <= MOST_PATH else text[: MOST_PATH - 3] + "..."


def write_document(document: dict[str, Any], path: str | Path) -> None:
    """Write plain data as indented JSON; a whole file or nothing."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, and lists and arrays as tuples, which can be hashed."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list) else value


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
    if kind == "model_type" and callable(value):
        name, fields = first["ctx"]["class_name"], _fields_at(model, path)
        allowed = f"{name} with the fields {', '.join(fields)}; no function: tabulate it"
        return InputError(field, value, allowed, file)
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
