"""What a format of traces is: how its files are told from others, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluid.errors import InputError
from fluid.traces.longest import without_longer
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions, Trace


@dataclass(frozen=True)
class TraceFormat:
    """A format of traces.

    Attributes:
        summary: What its files are, in a few words.
        detect: Whether a file with this beginning (text, some KiB) is of this format.
        reader: Opens a file, see `open`; the options that concern every format are not its own.
        takes: Those of the options "part" and "since" that mean something for its files.
    """

    name: str
    summary: str
    detect: Callable[[str], bool]
    reader: Callable[[Path, ReadOptions], Trace | Snapshot]
    takes: frozenset[str] = frozenset()

    def open(self, path: Path, options: ReadOptions) -> Trace | Snapshot:
        """Open a file.

        Raises:
            InputError: Naming file, place, value and what is allowed, at once or while chunks are
                taken; an option that would do nothing.
        """
        for option in ("part", "since"):
            if getattr(options, option) is not None and option not in self.takes:
                given = str(getattr(options, option))
                raise InputError(option, given, f"nothing for a file of the format {self.name}")
        opened, most = self.reader(path, options), options.drop_longer_than
        if most is None:
            return opened
        if isinstance(opened, Snapshot):
            allowed = "nothing for a file that has no single requests"
            raise InputError("drop_longer_than", most, allowed)
        return without_longer(opened, most)
