"""Everything that is printed goes through here: tables, JSON, errors, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from fluid.errors import FluidwaitError


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def say(text: str) -> None:
    """A line for the reader on stdout."""
    print(text)


def note(text: str) -> None:
    """A remark on stderr, so that stdout stays the result."""
    print(text, file=sys.stderr)


def fail(error: FluidwaitError, code: int, as_json: bool) -> int:
    """Report an error in one line, or as JSON on stdout; returns the exit code."""
    error = _as_typed(error)
    if as_json:
        print_json({"error": error.as_dict()})
    else:
        note("fluidwait: " + " ".join(str(error).split()))
    return code


def _as_typed(error: FluidwaitError) -> FluidwaitError:
    """An error about a value that stands on the command line, under the name it has there."""
    from fluid.errors import InputError

    if isinstance(error, InputError) and error.file is None:
        option = "--" + error.field.replace("_", "-")
        if any(one == option or one.startswith(option + "=") for one in sys.argv):
            return InputError(option, error.value, error.allowed)
    return error


def new_table(title: str, *columns: str, text: Sequence[int] = (0,)) -> Table:
    """A plain table: columns of text, by position, to the left; figures to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in text else "right", no_wrap=index == 0)
    return table


def show(table: Table) -> None:
    """Print a table under its title on stdout, at full width where that is not a terminal."""
    from rich.console import Console

    # Cells are text: markup would swallow "[cuda]".
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    title, table.title = table.title, None
    console.print(title, style="bold")
    console.print(table)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr where that is a terminal; yields the function that advances it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal, for work of unknown length."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


def number(value: float | None, digits: int = 4) -> str:
    """A figure for a table; a dash where it does not exist."""
    if value is None:
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= min(1000, 10**digits):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """A time for a table, with its unit."""
    return number(value) if value is None else f"{number(value)} s"


def percent(value: float | None, digits: int = 1) -> str:
    """A share for a table; a dash where it does not exist."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"
