"""``fluidwait calibrate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import SOLVING, say, show, waiting
from fluidwait.options import AsJson, PlotFile, new_app, require_use

app = new_app()


@app.command()
def command(
    context: typer.Context,
    rows: Annotated[Path, typer.Argument(metavar="FILE", help="Measured iteration times.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write the server here.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--from",
            help="csv (docs/calibrate.md), vllm-bench, or vllm-bench-sweep: a folder of results.",
        ),
    ] = "csv",
    prior: Annotated[
        str | None, typer.Option(help="--from vllm-bench-sweep: an estimated server.")
    ] = None,
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
    from fluid.errors import InputError
    from fluid.workload import Workload
    from validation.measure.calibrate import calibrate

    if layout == "vllm-bench-sweep":
        _from_sweep(context, rows, prior, out, name, kv_tokens, as_json)
        return
    require_use(context, ["prior"], "only with --from vllm-bench-sweep")
    if not out and not workload:
        require_use(context, ["block_tokens"], "only with --out or --workload")
    if kv_tokens is not None and kv_tokens < block_tokens:
        raise InputError("--kv-tokens", kv_tokens, f"at least one block, {block_tokens} tokens")
    if out:
        _require_no_record(rows, out)
    if plot:
        from fluid.plots.style import require_plot_path, save

        require_plot_path(plot)
    found = calibrate(
        rows,
        layout=layout,
        name=name,
        kv_tokens=kv_tokens,
        block_tokens=block_tokens,
        workload=Workload.read(workload) if workload else None,
    )
    if out:
        found.write(out)
    if plot:
        save(found.plot, plot)
    show(found, as_json)
    if out and not as_json:
        say(f"Wrote {out}. Next: fluidwait equilibrium WORKLOAD --server {shlex.quote(str(out))}")


def _require_no_record(rows: Path, out: Path) -> None:
    """Refuse to write the server over the record of the run that measured the rows."""
    from fluid.errors import InputError
    from validation.measure.record import record_beside, record_path

    if out.resolve() == record_path(rows).resolve() and record_beside(rows) is not None:
        raise InputError("out", str(out), "another name: this file is the record of the rows")


def _from_sweep(
    context: typer.Context,
    folder: Path,
    prior: str | None,
    out: Path | None,
    name: str | None,
    kv_tokens: int | None,
    as_json: bool,
) -> None:
    """Factors on an estimated server from results of a running one."""
    from fluid.errors import InputError
    from fluid.server import load_server
    from validation.measure.bench_sweep import calibrate_from_bench

    require_use(
        context, ["block_tokens", "workload", "plot"], "nothing with --from vllm-bench-sweep"
    )
    if prior is None:
        allowed = "a server of the same model: fluidwait server estimate, or a built-in one"
        raise InputError("prior", None, allowed)
    known = load_server(prior)
    with waiting(SOLVING):
        found = calibrate_from_bench(folder, known, name=name, kv_tokens=kv_tokens)
    if out:
        found.write(out)
    show(found, as_json)
    if out and not as_json:
        say(f"Wrote {out}. Next: fluidwait equilibrium WORKLOAD --server {shlex.quote(str(out))}")
