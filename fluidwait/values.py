"""What the values of every command must be, whichever it is: checked before it starts.

An option that names what is written says so (`writable=True`, `file_okay=False` for a folder): its
file is never an input of the same command, nor another output of it, and it can be written.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST_INTEGER = 2**63 - 1
"""Beyond it no number of ours fits into a machine word."""


def require_values(context: Any) -> None:
    """Refuse what no command can use.

    Args:
        context: Of click, with the values of a command.

    Raises:
        InputError: Naming the option: an empty text, a number that is not finite or far too large,
            or an output that cannot be written, or is another file of the command.
    """
    if context.command.callback is None:
        return
    named = list(_given(context))
    for option, _, value in named:
        _require_value(option, value)
    outputs = [(option, kind, Path(value)) for option, kind, value in named if _is_output(kind)]
    for place, (option, kind, path) in enumerate(outputs):
        _require_output(option, kind, path)
        inputs = [
            (other, Path(value))
            for other, its_kind, value in named
            if not _is_output(its_kind) and isinstance(value, str | Path)
        ]
        for other, its_path in (*inputs, *((one, its) for one, _, its in outputs[:place])):
            if _is_same(path, its_path):
                raise _error(option, path, f"another file than that of {other}")


def _given(context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, declaration and value of all parameters with a value, each of a list by itself."""
    declared = inspect.signature(context.command.callback, eval_str=True).parameters
    for one in (it for it in context.command.params if it.name in declared):
        value = context.params.get(one.name)
        name = max(one.opts, key=len)
        if one.param_type_name == "argument":
            name = one.metavar or name
        metadata = getattr(declared[one.name].annotation, "__metadata__", (None,))
        for single in value if isinstance(value, list | tuple) else [value]:
            if single is not None:
                yield name, metadata[0], single


def _require_value(option: str, value: Any) -> None:
    if isinstance(value, str) and not value.strip():
        raise _error(option, value, "a text")
    if isinstance(value, float) and not math.isfinite(value):
        raise _error(option, value, "a finite number")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise _error(option, value, f"at most {LARGEST_INTEGER}")


def _is_output(kind: Any) -> bool:
    return bool(getattr(kind, "writable", False))


def _require_output(option: str, kind: Any, path: Path) -> None:
    from fluid.errors import InputError
    from fluid.files import require_output, require_output_folder

    try:
        (require_output if kind.file_okay else require_output_folder)(path)
    except InputError as error:
        raise InputError(option, error.value, error.allowed, error.file) from None


def _is_same(output: Path, other: Path) -> bool:
    """Whether two paths are one file, or will be; a device is nobody's own."""
    try:
        if output.exists() and not (output.is_file() or output.is_dir()):
            return False
        return os.path.realpath(output) == os.path.realpath(other) or (
            output.exists() and other.exists() and output.samefile(other)
        )
    except (OSError, ValueError):
        return False


def _error(option: str, value: Any, allowed: str) -> Exception:
    from fluid.errors import InputError

    return InputError(option, str(value) if isinstance(value, Path) else value, allowed)
