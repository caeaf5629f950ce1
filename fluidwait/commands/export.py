"""``fluidwait export``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fluid.errors import InputError
from fluid.files import write_text
from fluidwait.console import note, print_json, say
from thresholds.export.engines import ENGINES
from thresholds.export.jsonio import read_table


def run_export(path: Path, to: str, out: Path | None, as_json: bool) -> None:
    """Print, or write, a table in the words of an engine."""
    if to not in ENGINES:
        raise InputError("--to", to, "one of " + ", ".join(ENGINES))
    engine = ENGINES[to]
    config = engine.configure(read_table(path), str(path.resolve()))
    if out:
        write_text(out, engine.render(config))
    if as_json:
        print_json(dataclasses.asdict(config))
    elif out:
        note(f"Wrote {out}.")
    else:
        say(engine.render(config).rstrip("\n"))
