"""Runs the kept command lines and writes down what they print and write.

``python -m tests.golden.recording`` writes `tests/golden/kept/` anew: do that only for a difference
that is meant, and say in the commit which.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fluidwait.main import run
from tests.golden.cases import CASES, TRACES, prepare

KEPT = Path(__file__).resolve().parent / "kept"

_COMMENT = re.compile(r"<!-- (.*?) -->")
_PART = re.compile(r"part-[0-9a-f]{32}")
_HASH = re.compile(r'"table_sha256": "[0-9a-f]{64}"')
_CREATED_BY = re.compile(r"fluidwait \d+\.\d+\.\d+")


def recorded(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and record of every case, run one after the other in `folder`."""
    prepare(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, line in CASES.items():
            yield name, _record(line, folder)
    finally:
        os.chdir(before)


def _record(line: str, folder: Path) -> str:
    """Exit code, output and new files of a command line as text."""
    seen = _files(folder)
    arguments = shlex.split(line.format(traces=TRACES))
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["fluidwait", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = argv
    parts = [f"$ fluidwait {line}", f"exit code {code}"]
    for title, text in (("stdout", out.getvalue()), ("stderr", err.getvalue())):
        if text:
            parts += [f"--- {title}", text.rstrip("\n")]
    for path, stamp in _files(folder).items():
        if seen.get(path) != stamp:
            parts += [f"--- wrote {path.relative_to(folder)}", _content(path)]
    text = "\n".join(parts) + "\n"
    text = text.replace(str(folder), "FOLDER").replace(str(TRACES), "TRACES")
    text = _HASH.sub('"table_sha256": "HASH"', text)
    return _CREATED_BY.sub("fluidwait VERSION", _PART.sub("part-NAME", text))


def _files(folder: Path) -> dict[Path, int]:
    return {one: one.stat().st_mtime_ns for one in sorted(folder.rglob("*")) if one.is_file()}


def _content(path: Path) -> str:
    """A file as text; of a picture the words in it, of rows in Parquet only that they are there."""
    if path.suffix == ".parquet":
        return "(rows)"
    text = path.read_text(encoding="utf-8").rstrip("\n")
    if path.suffix in (".svg", ".html"):
        words = _COMMENT.findall(text)
        if path.suffix == ".html":
            visible = re.sub(r"<(style|svg).*?</\1>", "", text, flags=re.DOTALL)
            words += re.sub(r"<[^>]*>", " ", visible).split("\n")
        return "\n".join(" ".join(one.split()) for one in words if one.strip())
    return text


def main() -> None:
    KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in recorded(Path(folder)):
            (KEPT / f"{name}.txt").write_text(text, encoding="utf-8")
            print(name, text.split("\n")[1])


if __name__ == "__main__":
    main()
