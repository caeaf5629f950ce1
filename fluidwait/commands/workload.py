"""``fluidwait workload from-trace``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fluid.errors import InputError
from fluid.files import require_folder
from fluid.traces.digest import FIGURES, Digest, digest
from fluid.traces.registry import detect_format, named_format
from fluid.traces.snapshot import LENGTHS, Snapshot
from fluid.traces.summarise import summarise, summary_errors, write_workload
from fluid.traces.tape_csv import tape_writer
from fluid.traces.trace import Chunk, ReadOptions, Trace
from fluid.workload import Workload
from fluidwait.commands.common import checked_rate
from fluidwait.console import new_table, number, percent, print_json, say, show_table, waiting
from fluidwait.options import AsJson, new_app


@dataclass(frozen=True)
class TraceOptions:
    """What the command line says; `layout` is the format's name, None to detect it."""

    layout: str | None
    read: ReadOptions
    rate_per_s: float | None
    lengths: str
    classes: int
    name: str | None
    source: str | None
    out: Path | None
    tape_out: Path | None
    as_json: bool


def run_from_trace(path: Path, options: TraceOptions) -> None:
    """Summarise a trace; write the workload and the tape where asked to."""
    for written in filter(None, (options.out, options.tape_out)):
        require_folder(written)
    chosen = named_format(options.layout) if options.layout else detect_format(path)
    # The tape appears only if the trace has a rate and a summary too.
    to_tape = tape_writer(options.tape_out) if options.tape_out else nullcontext()
    with waiting(f"reading {path.name}"):
        trace = chosen.open(path, options.read)
        _require_possible(trace, path, options)
        with to_tape as write:
            found = _at_rate(_digest(trace, options.lengths, write), path, options.rate_per_s)
            source = _source(trace, options)
            workload = summarise(found, options.name or path.stem, options.classes, source)
    if options.out:
        write_workload(workload, options.out, "\n".join(_comment(workload, found, trace, path)))
    if options.as_json:
        print_json(_document(workload, found, trace, chosen.name))
    else:
        _print(workload, found, trace, path)
        for written in filter(None, (options.out, options.tape_out)):
            say(f"Wrote {written}.")


def _require_possible(trace: Trace | Snapshot, path: Path, options: TraceOptions) -> None:
    """Refuse what cannot be had before all of the trace is read."""
    file, timed = str(path), isinstance(trace, Trace) and trace.timed
    if options.lengths not in LENGTHS:
        raise InputError("lengths", options.lengths, "one of " + ", ".join(LENGTHS))
    if isinstance(trace, Trace) and options.lengths != "independent":
        allowed = "only for a snapshot, which does not know which prompt met which output"
        raise InputError("--lengths", options.lengths, allowed, file)
    if options.tape_out and not timed:
        allowed = "no tape of a trace without arrival times; replay the workload"
        raise InputError("--tape-out", str(options.tape_out), allowed, file)
    if options.rate_per_s is None:
        if trace.rate_per_s is None and not timed:
            raise _no_rate(file)
        return
    checked_rate(options.rate_per_s)
    if options.tape_out:
        allowed = "no --rate with --tape-out: replay --rate stretches the time of a tape"
        raise InputError("--rate", options.rate_per_s, allowed)


def _no_rate(file: str) -> InputError:
    allowed = "requests per second, since this trace has no arrivals over time"
    return InputError("--rate", "nothing", allowed, file)


def _digest(trace: Trace | Snapshot, lengths: str, write: Callable[[Chunk], None] | None) -> Digest:
    """The digest of a trace, each chunk written on the way."""
    if isinstance(trace, Snapshot):
        return trace.digest(lengths)
    found = digest(_passing(trace.chunks, write) if write else trace.chunks)
    return found if trace.timed else replace(found, rate_per_s=trace.rate_per_s)


def _passing(chunks: Iterator[Chunk], write: Callable[[Chunk], None]) -> Iterator[Chunk]:
    for chunk in chunks:
        write(chunk)
        yield chunk


def _at_rate(found: Digest, path: Path, rate_per_s: float | None) -> Digest:
    if rate_per_s is not None:
        return replace(found, rate_per_s=rate_per_s)
    if found.rate_per_s is None:
        raise _no_rate(str(path))
    return found


def _source(trace: Trace | Snapshot, options: TraceOptions) -> str | None:
    """Where the numbers come from, which every table made from them keeps."""
    if isinstance(trace, Trace):
        return options.source
    kept = f"prompt and output lengths from {trace.origin}, {options.lengths} of what fits them"
    return f"{options.source}; {kept}" if options.source else kept


def _comment(
    workload: Workload, found: Digest, trace: Trace | Snapshot, path: Path
) -> Iterator[str]:
    """What a workload file says at its head."""
    yield f"{found.requests:,} requests of {path.name} in {len(workload.classes)} classes."
    yield from _remarks(found, trace)
    if isinstance(trace, Snapshot):
        for figure, value, _, limits in _interval_rows(found, trace):
            yield f"{figure} per request: {value}; the histograms allow {limits}."


def _remarks(found: Digest, trace: Trace | Snapshot) -> Iterator[str]:
    if found.dropped:
        share = percent(found.dropped / (found.dropped + found.requests), 2)
        yield f"Requests left out: {found.dropped:,}, {share} of all; the rate is without."
    yield from (f"{caveat[0].upper()}{caveat[1:]}." for caveat in trace.caveats)


def _interval_rows(found: Digest, trace: Snapshot) -> Iterator[tuple[str, str, str, str]]:
    """Figure, value in the workload, its limits if lengths are independent, and without that."""
    figures = dict(zip(FIGURES, found.means.tolist(), strict=True))
    for figure, (low, high) in trace.intervals().items():
        independent = (low, high)
        if figure == "memory sum":
            independent = trace.independent_memory_sum()
        yield (
            figure,
            number(figures[figure]),
            " to ".join(number(end) for end in independent),
            f"{number(low)} to {number(high)}",
        )


def _print(workload: Workload, found: Digest, trace: Trace | Snapshot, path: Path) -> None:
    table = new_table(
        f"{path.name}: {found.requests:,} requests, {number(found.rate())} /s, "
        f"{len(workload.classes)} classes",
        "figure",
        "error against the trace",
    )
    for figure, error in summary_errors(workload, found).items():
        table.add_row(figure, percent(error, 3))
    show_table(table)
    if isinstance(trace, Snapshot) and trace.bounded:
        limits = new_table(
            "What the buckets leave open, per request",
            "figure",
            "in the workload",
            "if independent",
            "whatever the correlation",
        )
        for row in _interval_rows(found, trace):
            limits.add_row(*row)
        show_table(limits)
    for remark in _remarks(found, trace):
        say(remark)


def _document(
    workload: Workload, found: Digest, trace: Trace | Snapshot, layout: str
) -> dict[str, Any]:
    document = {
        "workload": workload.document(),
        "format": layout,
        "requests": found.requests,
        "dropped": found.dropped,
        "rate_per_s": found.rate(),
        "errors": summary_errors(workload, found),
        "caveats": list(trace.caveats),
    }
    if isinstance(trace, Snapshot) and trace.bounded:
        document["intervals"] = {name: list(ends) for name, ends in trace.intervals().items()}
        document["independent_memory_sum"] = list(trace.independent_memory_sum())
    return document


app = new_app(help="Make workload files.")


@app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("from-trace")
def from_trace(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="File; see docs/own-trace.md.")],
    layout: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Format, where it is not to be detected."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests per second, in place of the trace's own.")
    ] = None,
    drop_failed: Annotated[
        bool, typer.Option("--drop-failed", help="Leave out failed requests, and count them.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(help="Number of a run or benchmark, or model of a metrics page."),
    ] = None,
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Earlier scrape of a metrics page.")
    ] = None,
    drop_longer_than: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Leave out longer requests, and count them."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json that counts the tokens of chats.")
    ] = None,
    lengths: Annotated[
        str,
        typer.Option(help="Of what fits a snapshot: independent, lightest or heaviest."),
    ] = "independent",
    classes: Annotated[int, typer.Option(help="Most classes of the summary.")] = 24,
    name: Annotated[str | None, typer.Option(help="Name of the workload.")] = None,
    source: Annotated[str | None, typer.Option(help="Attribution kept in the file.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the workload here.")
    ] = None,
    tape_out: Annotated[
        Path | None, typer.Option(help="Write the arrivals here, for replay --tape.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A trace as a few classes that load a server like it does."""
    from fluid.traces.trace import ReadOptions

    read = ReadOptions(drop_failed, tokenizer, part, since, drop_longer_than)
    run_from_trace(
        trace,
        TraceOptions(layout, read, rate, lengths, classes, name, source, out, tape_out, as_json),
    )
