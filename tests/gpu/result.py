"""What a part has measured so far: a document for programs, a section for readers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fluid.files import write_document, write_text

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]

RUNNING, DONE, CUT_SHORT, FAILED = "running", "done", "cut short", "failed"


@dataclass(frozen=True)
class Table:
    """Rows of figures, every one under the names of its columns."""

    title: str
    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """Columns in the order in which rows name them."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [columns, ["---"] * len(columns)]
        lines += [[shown(row.get(name)) for name in columns] for row in self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"### {self.title}\n\n{body}\n"


@dataclass(frozen=True)
class Aim:
    """A figure that was asked for.

    Attributes:
        asked: In words, with its unit.
        measured: None where it was not reached.
        met: None where nothing was measured.
    """

    name: str
    asked: str
    measured: Cell = None
    met: bool | None = None


@dataclass(frozen=True)
class Result:
    """One part, after each of its measurements.

    Attributes:
        status: RUNNING, DONE, CUT_SHORT (the time was up) or FAILED.
        why: What was left out, or what failed, in one line.
        figures: Single numbers and words, units in their names.
        seconds: Spent so far.
    """

    part: str
    status: str = RUNNING
    why: str = ""
    figures: Row = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    aims: tuple[Aim, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def ended(self, done: int, planned: int, unit: str) -> Result:
        """As it is once the part has nothing left to do, or no time."""
        if done == planned:
            return replace(self, status=DONE)
        return replace(self, status=CUT_SHORT, why=f"{done} of {planned} {unit} in the time given")

    def document(self) -> dict[str, Any]:
        """Plain data; what does not exist is null."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def markdown(self) -> str:
        """A section with every row."""
        return "\n".join([self.brief(), *(table.markdown() for table in self.tables)])

    def brief(self) -> str:
        """The section without its tables."""
        lines = [f"## {self.part}: {self.status}" + (f", {self.why}" if self.why else ""), ""]
        lines += [f"- {name}: {shown(value)}" for name, value in self.figures.items()]
        lines += [f"- {note}" for note in self.notes]
        lines += [f"- {self.seconds:.0f} s"]
        asked = [aim_row(self.part, aim) for aim in self.aims]
        text = "\n".join(lines) + "\n"
        return text + ("\n" + Table("Asked and measured", tuple(asked)).markdown() if asked else "")

    def write(self, folder: Path) -> None:
        """PART.json and PART.md, each whole or not at all."""
        write_document(self.document(), folder / f"{self.part}.json")
        write_text(folder / f"{self.part}.md", self.markdown())


def aim_row(part: str, aim: Aim) -> Row:
    """An aim as a row of a table."""
    met = "–" if aim.met is None else "yes" if aim.met else "**no**"
    return {
        "part": part,
        "what": aim.name,
        "asked": aim.asked,
        "measured": aim.measured,
        "met": met,
    }


def read_result(folder: Path, part: str) -> Result | None:
    """What the part has written, None where it has not yet."""
    path = folder / f"{part}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    found["tables"] = tuple(Table(one["title"], tuple(one["rows"])) for one in found["tables"])
    found["aims"] = tuple(Aim(**one) for one in found["aims"])
    return Result(**{**found, "notes": tuple(found["notes"])})


def shown(value: Cell) -> str:
    """A figure to four digits."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
