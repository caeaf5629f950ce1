"""Everything that is printed goes through here: tables, JSON, errors, progress."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid.result import Note, Table, print_table, printable, text_width, wrapped
from fluidwait.streams import has_unicode, spelled

if TYPE_CHECKING:
    from fluid.errors import FluidwaitError
    from fluid.result import Result
    from validation.experiments.simulate import PolicyResult


def print_json(document: Any) -> None:
    """One JSON document on stdout, with letters as they are where they can be printed."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    if printable(text) != text or not has_unicode(sys.stdout):
        text = json.dumps(document, indent=2, allow_nan=False)
    print(text)


def say(text: str) -> None:
    """A line for the reader on stdout."""
    print(printable(text))


def note(text: str) -> None:
    """A remark on stderr, so that stdout stays the result."""
    print(printable(text), file=sys.stderr)


def fail(error: FluidwaitError, code: int, as_json: bool) -> int:
    """Report an error in one line, or as JSON on stdout; returns the exit code."""
    error = _as_typed(error)
    if as_json:
        print_json({"error": error.as_dict()})
        return code
    # Standard error may be full or gone as well: the code still says it.
    with suppress(OSError):
        note("fluidwait: " + " ".join(str(error).split()))
    return code


def show(result: Result, as_json: bool = False, plot: Path | None = None) -> None:
    """Print what a result says, notes on stderr; or its document as JSON, and nothing else.

    Args:
        plot: Where its picture is written too.
    """
    if plot is not None:
        from fluid.plots.style import save

        save(result.plot, plot)  # type: ignore[attr-defined]
    if as_json:
        print_json(result.document())
        return
    for block in result.blocks():
        if isinstance(block, Table):
            table = block if has_unicode(sys.stdout) else _spelled(block)
            print_table(table, sys.stdout, text_width(), colours=sys.stdout.isatty())
        elif isinstance(block, Note):
            note(wrapped(str(block), text_width()))
        else:
            say(wrapped(block, text_width()))
    if plot is not None:
        say(f"Wrote {plot}.")


def _spelled(table: Table) -> Table:
    """Spelled before its columns are measured."""
    return replace(
        table,
        title=spelled(table.title),
        columns=tuple(map(spelled, table.columns)),
        spare=tuple(map(spelled, table.spare)),
        rows=tuple(tuple(map(spelled, row)) for row in table.rows),
    )


def typed_again(argv: Sequence[str], option: str, value: object) -> str:
    """The command line that was typed, for a shell, with another value of one option.

    >>> typed_again(["replay", "my table.json", "--requests", "500"], "--requests", 9000)
    "fluidwait replay 'my table.json' --requests 9000"
    """
    kept = []
    words = iter(argv)
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return shlex.join(["fluidwait", *kept, option, str(value)])


def note_undecided(results: Sequence[PolicyResult], requests: int, replications: int) -> None:
    """Which command decides the verdicts that are open, after so many requests and replications."""
    wanted = [one.more_requests for one in results if one.more_requests is not None]
    if wanted:
        enough = requests + -(-max(wanted) // replications)
        note(f"To decide: {typed_again(sys.argv[1:], '--requests', enough)}")


def _as_typed(error: FluidwaitError) -> FluidwaitError:
    """An error about a value that stands on the command line, under the name it has there."""
    from fluid.errors import InputError

    if isinstance(error, InputError) and error.file is None:
        for name in (error.field, error.field.removesuffix("_per_s")):
            option = "--" + name.replace("_", "-")
            if any(one == option or one.startswith(option + "=") for one in sys.argv):
                return InputError(option, error.value, error.allowed)
    return error


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr where that is a terminal; yields the function that advances it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(printable(title)), total=total)
        yield lambda: bar.advance(task)


SOLVING = "solving; the first time on a machine compiles kernels, some 20 s"


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal, for work of unknown length."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(printable(title))):
        yield
