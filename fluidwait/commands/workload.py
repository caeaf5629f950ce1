"""``fluidwait workload from-trace``."""

from __future__ import annotations

from pathlib import Path

from fluid.files import require_folder
from fluid.traces.azure import read_azure
from fluid.traces.summarise import summarise, summary_errors, write_workload
from fluid.traces.tape import write_tape
from fluidwait.console import new_table, number, percent, print_json, say, show


def run_from_trace(
    trace: Path,
    classes: int,
    name: str | None,
    source: str | None,
    out: Path | None,
    tape_out: Path | None,
    as_json: bool,
) -> None:
    """Summarise a trace; write the workload and the tape where asked to."""
    for path in filter(None, (out, tape_out)):
        require_folder(path)
    tape = read_azure(trace)
    workload = summarise(tape, name or trace.stem, classes, source)
    errors = summary_errors(workload, tape)
    if out:
        comment = f"{len(tape):,} requests of {trace.name} in {len(workload.classes)} classes."
        write_workload(workload, out, comment)
    if tape_out:
        write_tape(tape, tape_out)
    if as_json:
        print_json({"workload": workload.document(), "requests": len(tape), "errors": errors})
        return
    table = new_table(
        f"{trace.name}: {len(tape):,} requests, {number(tape.rate_per_s)} /s, "
        f"{len(workload.classes)} classes",
        "figure",
        "error against the trace",
    )
    for figure, error in errors.items():
        table.add_row(figure, percent(error, 3))
    show(table)
    for written in filter(None, (out, tape_out)):
        say(f"Wrote {written}.")
