"""All parts on one page: what was asked and measured first, then every section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fluid.files import write_text
from tests.gpu.result import Result, Table, aim_row, read_result
from tests.gpu.runner import PARTS


def write_report(folder: Path, versions: Mapping[str, str]) -> None:
    """`report.md` of the parts that have written something so far, those of earlier runs too."""
    results = [one for name in PARTS if (one := read_result(folder, name))]
    write_text(folder / "report.md", report(results, versions))


def report(results: list[Result], versions: Mapping[str, str]) -> str:
    """The page."""
    told = ", ".join(f"{name} {one}" for name, one in versions.items())
    aims = tuple(aim_row(result.part, aim) for result in results for aim in result.aims)
    sections = [f"# GPU check\n\n{told}\n"]
    sections += [Table("Asked and measured", aims).markdown().removeprefix("#")] if aims else []
    return "\n".join([*sections, *(result.markdown() for result in results)])
