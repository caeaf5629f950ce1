"""Runs a case in this process and says what is wrong with the answer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluidwait.main import run
from tests.fuzz.cases import REFUSED, Case


@dataclass(frozen=True)
class Answer:
    """What came of a case.

    Attributes:
        code: Exit code; -1 for a traceback, whose last lines are in `err`.
        wrote: Files that were not there before.
    """

    code: int
    out: str
    err: str
    wrote: tuple[str, ...]

    def wrong(self, case: Case) -> str | None:
        """What is wrong with it, if anything."""
        lines = self.err.strip().splitlines()
        if self.code == -1 or "Traceback" in self.err:
            return "traceback: " + " | ".join(lines[-3:])
        if self.code not in case.allowed:
            return f"exit {self.code}, not {case.allowed}: {' | '.join(lines[-2:])}"
        if "--json" in case.arguments:
            try:
                told = json.loads(self.out)
            except ValueError:
                return f"no document: {self.out[:200]!r}, {self.err!r}"
            if (self.code != 0) != ("error" in told):
                return f"exit {self.code} with {told}"
        elif self.code == 2 and sum(one.startswith("fluidwait: ") for one in lines) != 1:
            return f"not one line: {self.err!r}"
        if case.allowed == REFUSED and len(lines) != 1:
            return f"more than a line: {self.err!r}"
        if self.code == 2 and self.wrote:
            return f"left {self.wrote}"
        if any(ord(one) < 32 and one not in "\n\t" for one in self.out + self.err):
            return "what a terminal obeys"
        if "y" in self.wrote:
            return "a file ran as code"
        return None


def answer(case: Case, folder: Path) -> Answer:
    """Run it in an empty folder."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "folder" / "kept").touch()
    before = set(folder.rglob("*"))
    kept = {one: one.stat().st_mtime_ns for one in before if one.is_file()}
    out, err = io.StringIO(), io.StringIO()
    with _typed(case, folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _code()
    wrote = [one.name for one in folder.rglob("*") if one not in before]
    wrote += [one.name for one, stamp in kept.items() if one.stat().st_mtime_ns != stamp]
    return Answer(code, out.getvalue(), err.getvalue(), tuple(wrote))


@contextlib.contextmanager
def _typed(case: Case, folder: Path) -> Iterator[None]:
    argv, here = sys.argv, Path.cwd()
    sys.argv = ["fluidwait", *case.arguments]
    os.chdir(folder)
    try:
        yield
    finally:
        sys.argv = argv
        os.chdir(here)


def _code() -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            run()
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    return -1
