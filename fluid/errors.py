"""Typed errors: bad input, unstable or infeasible problems, missing optional packages.

The command line ends with their exit codes; library users catch them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

MOST_SHOWN = 80
"""Characters of a value in an error."""


class FluidwaitError(Exception):
    """Base class of every error that the toolkit raises on purpose.

    Attributes:
        kind: A word for programs; `exit_code` is what the command line ends with.

    >>> import fluidwait as fw
    >>> try:
    ...     fw.Server.named("h100")
    ... except fw.FluidwaitError as error:
    ...     print(error.kind, error.exit_code)
    input 2
    """

    kind = "error"
    exit_code = 2

    def as_dict(self) -> dict[str, Any]:
        """The document printed by ``--json``: stable keys, no traceback."""
        return {"kind": self.kind, "message": str(self)}


class InputError(FluidwaitError, ValueError):
    """A file, field or argument holds something that is not allowed; a `ValueError` too.

    Attributes:
        field: Dotted path of the field, e.g. ``classes[0].rate_per_s``; "" for the whole file.
        value: The offending value as it was given.
        allowed: What would have been accepted, in words.
        file: The file it came from, or None for values built in Python.

    >>> import fluidwait as fw
    >>> try:
    ...     fw.Requests(-1.0, prompt=512, output=120)
    ... except fw.InputError as error:
    ...     print(error)
    rate_per_s: got -1.0; allowed: input should be greater than 0
    """

    kind = "input"

    def __init__(self, field: str, value: Any, allowed: str, file: str | None = None) -> None:
        self.field, self.value, self.allowed, self.file = field, value, allowed, file
        super().__init__(field, value, allowed, file)

    def __str__(self) -> str:
        shown = _shown(self.value)
        if len(shown) > MOST_SHOWN:
            shown = shown[: MOST_SHOWN - 3] + "..."
        parts = [self.file, self.field]
        where = "".join(f"{part}: " for part in parts if part)
        return f"{where}got {shown}; allowed: {self.allowed}"

    def in_file(self, file: str) -> InputError:
        """The same error, told where it was read."""
        return InputError(self.field, self.value, self.allowed, file)

    def as_dict(self) -> dict[str, Any]:
        plain = isinstance(self.value, str | bool | None) or _is_short(self.value)
        value = self.value if plain else _shown(self.value)
        return {
            "kind": self.kind,
            "file": self.file,
            "field": self.field,
            "value": value,
            "allowed": self.allowed,
        }


def not_a_name(field: str, value: str, names: Iterable[str], file: str | None = None) -> InputError:
    """The error about a name that is none of these: all of them, the one that looks like it first.

    >>> print(not_a_name("to", "vlm", ["sglang", "vllm"]))
    to: got 'vlm'; allowed: did you mean vllm? One of sglang, vllm
    """
    known = list(names)
    near = difflib.get_close_matches(value.lower(), known, n=1, cutoff=0.6)
    listed = ", ".join(known)
    allowed = f"did you mean {near[0]}? One of {listed}" if near else f"one of {listed}"
    return InputError(field, value, allowed, file)


class InfeasibleError(FluidwaitError):
    """No table satisfies the conditions, or the workload is unstable.

    Attributes:
        cause: What binds: "compute", "memory", or the condition by name.
        nearest: The nearest change that would help, in words.
        max_scale: Largest stable multiple of the rates (α* of THEORY 2.3), where it exists.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(50.0, prompt=512, output=120))
    >>> try:
    ...     fw.fluctuation(load, fw.Server.named("engine-long-decode"))
    ... except fw.InfeasibleError as error:
    ...     print(error.cause, error.nearest, sep="; ")
    compute; multiply all rates by less than 0.4339
    """

    kind = "infeasible"
    exit_code = 3

    def __init__(
        self, message: str, cause: str, nearest: str, max_scale: float | None = None
    ) -> None:
        self.cause, self.nearest, self.max_scale = cause, nearest, max_scale
        super().__init__(f"{message}; binding: {cause}; {nearest}")

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "message": str(self),
            "binding": self.cause,
            "nearest": self.nearest,
            "max_scale": self.max_scale,
        }


class ClusterError(FluidwaitError):
    """Work on a cluster ended before it was done, for no fault of the input."""

    kind = "cluster"
    exit_code = 1


def _is_short(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 10**MOST_SHOWN


def _shown(value: Any) -> str:
    """`repr`, but of any size of text or number in no time."""
    if isinstance(value, str):
        return repr(value[:MOST_SHOWN])
    if isinstance(value, int) and not _is_short(value):
        return f"a number of {value.bit_length()} bits"
    return repr(value)
