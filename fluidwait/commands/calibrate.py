"""``fluidwait calibrate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from fluid.errors import InputError
from fluid.files import require_folder, write_document
from fluid.server import Server
from fluid.workload import Workload
from fluidwait.console import new_table, note, number, percent, print_json, say, show_table
from fluidwait.options import AsJson, PlotFile, new_app
from validation.measure.calibrate import CONFIDENCE, FOLDS, Calibration, calibrate
from validation.measure.carry import Carried, carry
from validation.measure.composition import LINEAR_TERMS
from validation.measure.importers import read_measurements


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of the command; `layout` is the format of the file, None sizes are not given."""

    out: Path | None
    layout: str
    name: str | None
    kv_tokens: int | None
    block_tokens: int
    workload: Path | None
    plot: Path | None
    as_json: bool


def run_calibrate(path: Path, options: CalibrateOptions) -> None:
    """Fit, tell the error and the intervals, and write the server where asked to."""
    if options.out:
        require_folder(options.out)
    if options.plot:
        from fluid.plots.style import require_plot_path

        require_plot_path(options.plot)
    workload = Workload.read(options.workload) if options.workload else None
    try:
        found = calibrate(read_measurements(path, options.layout))
    except InputError as error:
        raise error if error.file else error.in_file(str(path)) from None
    server = calibrated_server(found, path, options)
    carried = carry(found, workload, server) if workload else {}
    if options.out:
        write_document(server.document(), options.out)
    if options.plot:
        from validation.measure.residuals import plot_calibration

        plot_calibration(found, options.plot)
    if found.measurements.kv_capacity_tokens is None and options.kv_tokens is None:
        note(
            "note: the rows do not say how much KV fits: kv_capacity_tokens "
            f"{server.kv_capacity_tokens} is the most that one batch read; set --kv-tokens"
        )
    if options.as_json:
        print_json(_document(found, server, carried))
    else:
        print_calibration(found, server, carried)
        if options.out:
            say(f"Wrote {options.out}. Next: fluidwait equilibrium WORKLOAD --server {options.out}")


def calibrated_server(found: Calibration, path: Path, options: CalibrateOptions) -> Server:
    """The server file of a calibration, with the error and the origin in its source."""
    data, error = found.measurements, found.held_out
    most_read = int(data.measured_range.kv_tokens[1])
    capacity = options.kv_tokens or data.kv_capacity_tokens or max(most_read, options.block_tokens)
    return Server.from_document(
        {
            "name": options.name or path.stem,
            "source": f"{data.source}; {len(data)} batches, fitted by fluidwait calibrate: "
            f"relative error {percent(error.mean)} in the mean and {percent(error.p95)} at the "
            f"95th percentile of held-out rows, {percent(found.in_sample.largest)} at most in "
            "sample",
            "kv_capacity_tokens": capacity,
            "block_tokens": options.block_tokens,
            "first_token": "prefill",
            "iteration_time": found.iteration_time.document(),
            "measured_range": found.measured_range.document(),
        }
    )


def _document(found: Calibration, server: Server, carried: dict[str, Carried]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": server.name,
        "rows": len(found.measurements),
        "kv_capacity_tokens": server.kv_capacity_tokens,
        "iteration_time": server.iteration_time.document(),
        "intervals": found.intervals(),
        "held_out_mean": found.held_out.mean,
        "held_out_p95": found.held_out.p95,
        "in_sample_mean": found.in_sample.mean,
        "in_sample_p95": found.in_sample.p95,
        "measured_range": found.measured_range.document(),
        "unmeasured": list(found.unmeasured),
    }
    if carried:
        document["carried"] = {name: asdict(one) for name, one in carried.items()}
    return document


def print_calibration(found: Calibration, server: Server, carried: dict[str, Carried]) -> None:
    """Coefficients with joint intervals, the error of held-out rows, and what they mean."""
    tau, intervals = server.iteration_time, found.intervals()
    title = f"Iteration time of {server.name}, joint {percent(CONFIDENCE, 0)} intervals"
    table = new_table(title, "coefficient", "value", "from", "to")
    table.add_row("overhead_s", number(tau.overhead_s), *map(number, intervals["seconds_knots"][0]))
    for name in LINEAR_TERMS:
        low, high = intervals[name] or (None, None)
        table.add_row(name, number(getattr(tau, name)), number(low), number(high))
    show_table(table)
    say(
        f"f has {len(tau.tokens_knots)} knots up to {number(tau.tokens_knots[-1])} tokens. "
        f"Relative error of held-out rows ({FOLDS} folds): {percent(found.held_out.mean, 2)} in "
        f"the mean, {percent(found.held_out.p95, 2)} at the 95th percentile."
    )
    for quantity, (low, high) in found.measured_range:
        say(f"Measured {quantity}: {low:,.10g} to {high:,.10g}.")
    for name in found.unmeasured:
        note(f"note: {name} was not measured: no row depends on it; it is 0")
    if carried:
        figures = new_table("Carried to the workload", "figure", "value", "from", "to")
        for name, one in carried.items():
            figures.add_row(name, number(one.estimate), number(one.low), number(one.high))
        show_table(figures)


app = new_app()


@app.command()
def command(
    rows: Annotated[Path, typer.Argument(metavar="FILE", help="Measured iteration times.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the server here.")] = None,
    layout: Annotated[
        str, typer.Option("--from", help="csv (docs/calibrate.md) or vllm-bench.")
    ] = "csv",
    name: Annotated[str | None, typer.Option(help="Name of the server.")] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(min=1, help="KV capacity, where the rows do not know it.")
    ] = None,
    block_tokens: Annotated[int, typer.Option(min=1, help="Tokens per KV block.")] = 16,
    workload: Annotated[
        Path | None, typer.Option(help="Carry the intervals to this load's M*, α* and thresholds.")
    ] = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Server file from measured batches, with error and intervals."""
    run_calibrate(
        rows,
        CalibrateOptions(out, layout, name, kv_tokens, block_tokens, workload, plot, as_json),
    )
