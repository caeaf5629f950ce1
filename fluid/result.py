"""How a result speaks: the same tables and sentences in a terminal, in a notebook and as text.

A result says what it has to say once, as *blocks* (`Result.blocks`): tables, sentences, and notes
that a reader must know. ``str`` and ``print`` give them as text, a notebook shows them as HTML, and
the command line prints them, the notes on stderr.
"""

from __future__ import annotations

import html
import io
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDE = 160
"""Columns of text where nobody says how many there are: a file, a pipe, a notebook."""

MOST_ROWS = 500
"""Rows of a table that are written out as text; ``--json`` and `frame` have all of them."""

VERDICT_COLOURS = {
    "stable": "green",
    "unstable": "red",
    "undecided": "yellow",
    "kept": "green",
    "broken": "red",
    "holds": "green",
    "FAILS": "red",
}
"""Cells that a terminal colours; the word always stands there too."""


@dataclass(frozen=True)
class Note:
    """A remark beside the result: what a reader must know before trusting it."""

    text: str

    def __str__(self) -> str:
        return f"note: {self.text}"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: Headings, the first of which names the rows.
        rows: Cells as text, a tuple of the length of `columns` for each row.
        left: Positions of columns of words, set to the left; figures stand to the right.
        spare: Headings of columns that are left out where the text is too narrow, the first one
            first. Where that does not suffice, each row becomes a record of its own.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)
    spare: tuple[str, ...] = ()

    @property
    def shown(self) -> Table:
        """The table with as many rows as anybody reads, and a last one that says what is left."""
        more = len(self.rows) - MOST_ROWS
        if more <= 0:
            return self
        last = (f"… {more:,} more", *("" for _ in self.columns[1:]))
        return replace(self, rows=(*self.rows[:MOST_ROWS], last))

    def fitted(self, width: int) -> Table:
        """The table without as many spare columns as it takes to fit; maybe still too wide."""
        table = self
        for heading in self.spare:
            if table.width <= width:
                break
            if heading in table.columns:
                table = table._without(heading)
        return table

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        from rich.cells import cell_len

        lines = (self.columns, *self.rows)
        widest = (max(cell_len(line[k]) for line in lines) for k in range(len(self.columns)))
        return 2 + sum(1 + one + 1 for one in widest) + len(self.columns) - 1

    def _without(self, heading: str) -> Table:
        gone = self.columns.index(heading)
        kept = [k for k in range(len(self.columns)) if k != gone]
        return replace(
            self,
            columns=tuple(self.columns[k] for k in kept),
            rows=tuple(tuple(row[k] for k in kept) for row in self.rows),
            left=tuple(kept.index(k) for k in self.left if k != gone),
        )


Block = Table | Note | str


class Result:
    """Base of everything that a question to the toolkit is answered with.

    A subclass says what it has to say in `blocks`, and what ``--json`` prints in `document`.
    """

    def blocks(self) -> Iterable[Block]:
        """Tables, sentences and notes in the order in which they are read."""
        raise NotImplementedError

    def document(self) -> dict[str, Any]:
        """Plain data with stable keys and units in the names, ready for JSON."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self.blocks())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(self.blocks())


def text_width() -> int:
    """Characters in a line of output: ``COLUMNS`` if it is set, else the terminal's."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def as_text(blocks: Iterable[Block], width: int | None = None) -> str:
    """Blocks as lines of text, without colours."""
    stream = io.StringIO()
    columns = width or text_width()
    for block in blocks:
        if isinstance(block, Table):
            print_table(block, stream, columns)
        else:
            stream.write(f"{wrapped(str(block), columns)}\n")
    return stream.getvalue().rstrip("\n")


def printable(text: str) -> str:
    r"""Text without anything that a terminal obeys; line ends stay.

    >>> printable("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" or _is_space(one) else _escaped(one) for one in text
    )


def _is_space(letter: str) -> bool:
    return unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def wrapped(text: str, width: int) -> str:
    """A sentence in lines between words, where they are shorter than `WIDE`; `printable`."""
    text = printable(text)
    if width >= WIDE:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def print_table(table: Table, stream: Any, width: int, colours: bool = False) -> None:
    """Write a table under its title, or a record for each row where it does not fit."""
    from rich.console import Console

    # Cells are text: markup would swallow "[cuda]".
    console = Console(
        file=stream,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=colours,
        force_jupyter=False,  # there it would display the table beside that of `_repr_html_`
        color_system="standard" if colours else None,
    )
    table = _printable(table)
    console.print(table.title, style="bold")
    table = table.shown
    fitted = table.fitted(width)
    if fitted.width <= width:
        console.print(_rich_table(fitted))
    else:
        _print_records(table, console)


def _printable(table: Table) -> Table:
    rows = tuple(tuple(" ".join(printable(one).split("\n")) for one in row) for row in table.rows)
    return replace(table, title=printable(table.title), rows=rows)


def _rich_table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD)
    for index, heading in enumerate(table.columns):
        made.add_column(heading, justify="left" if index in table.left else "right", no_wrap=True)
    for row in table.rows:
        made.add_row(*(Text(cell, style=VERDICT_COLOURS.get(cell, "")) for cell in row))
    return made


def _print_records(table: Table, console: Console) -> None:
    """Name of each row, then a line for each figure; long ones go on in the next line."""
    from rich.padding import Padding
    from rich.text import Text

    heading, *others = table.columns
    for name, *cells in table.rows:
        console.print(Text(f"{heading} {name}".strip(), style="bold"))
        for other, cell in zip(others, cells, strict=True):
            line = Text(f"{other}: ").append(cell, style=VERDICT_COLOURS.get(cell, ""))
            console.print(Padding(line, (0, 0, 0, 2)))


def as_html(blocks: Iterable[Block]) -> str:
    """Blocks as HTML without scripts or styles from elsewhere; all text is escaped."""
    return "\n".join(_html(block) for block in blocks)


def _html(block: Block) -> str:
    if not isinstance(block, Table):
        tag = "small" if isinstance(block, Note) else "strong"
        return f"<p><{tag}>{html.escape(str(block))}</{tag}></p>"
    head = "".join(_html_cell("th", one, k in block.left) for k, one in enumerate(block.columns))
    rows = "".join(
        f"<tr>{''.join(_html_cell('td', one, k in block.left) for k, one in enumerate(row))}</tr>"
        for row in block.shown.rows
    )
    caption = f"<caption>{html.escape(block.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_cell(tag: str, text: str, left: bool) -> str:
    side = "left" if left else "right"
    return f'<{tag} style="text-align: {side}">{html.escape(text)}</{tag}>'


def notes(texts: Iterable[str]) -> Iterator[Note]:
    """Remarks as notes."""
    return (Note(one) for one in texts)


def columns_of(rows: Iterable[Any]) -> dict[str, list[Any]]:
    """Columns of a frame from dataclasses of one kind, which are its rows.

    >>> columns_of([Note("a"), Note("b")])
    {'text': ['a', 'b']}
    """
    held = list(rows)
    return {one.name: [getattr(row, one.name) for row in held] for one in fields(held[0])}


def number(value: float | None, digits: int = 4) -> str:
    """A figure for a table; a dash where it does not exist.

    >>> number(0.012345), number(1234.5), number(None)
    ('0.01235', '1,234', '–')
    """
    if value is None:
        return "–"
    most = 1e9 if isinstance(value, int) else 1e6
    if value != 0 and not 1e-4 <= abs(value) < most:
        return f"{value:.{digits - 1}e}"
    if abs(value) >= min(1000, 10**digits):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    """A time for a table, with its unit."""
    return number(value) if value is None else f"{number(value)} s"


def percent(value: float | None, digits: int = 1) -> str:
    """A share for a table; a dash where it does not exist.

    >>> percent(0.1234)
    '12.3 %'
    """
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def rare(share: float) -> str:
    """A share that may be tiny, in words where it is nothing.

    >>> rare(1.25e-4), rare(1e-30)
    ('1.3e-04', 'less than 1e-09')
    """
    return f"{share:.1e}" if share >= 1e-9 else "less than 1e-09"


def with_half_width(mean: float | None, half_width: float | None) -> str:
    """A mean with the half width of its interval, where it has one."""
    if mean is None or half_width is None:
        return number(mean)
    return f"{number(mean)} ± {number(half_width, 2)}"
