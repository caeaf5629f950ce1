"""``fluidwait measure``: the sweep, the paper's design, the closed loop and the physical floor."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fluid.errors import FluidwaitError, InputError
from fluid.files import require_folder, write_document
from fluidwait.console import (
    new_table,
    note,
    number,
    percent,
    print_json,
    progress,
    say,
    show_table,
)
from fluidwait.options import AsJson, Seed, ServerName, new_app

if TYPE_CHECKING:
    import torch

    from validation.measure.model import Decoder
    from validation.measure.shapes import ModelShape


@dataclass(frozen=True)
class Target:
    """What is measured: shape and type of a model, the device, and weights if not random ones."""

    model: str
    dtype: str
    device: str
    checkpoint: Path | None = None


@dataclass(frozen=True)
class SweepOptions:
    """Size of the design and care of the timing."""

    out: Path
    most_decodes: int
    longest_context: int
    longest_prompt: int
    warm_up: int
    repeats: int
    graphs: bool
    as_json: bool


def run_sweep(target: Target, options: SweepOptions) -> int:
    """Measure the design; the rows, and beside them a record of the run. 130 after Ctrl-C."""
    require_folder(options.out)
    shape, device, dtype = _checked(target)
    from validation.measure.design import sweep_design
    from validation.measure.device import clocks, run_record
    from validation.measure.record import record_path
    from validation.measure.timed_sweep import sweep
    from validation.measure.timer import Timer

    design = sweep_design(options.most_decodes, options.longest_context, options.longest_prompt)
    before = clocks(device)
    decoder = _decoder(target, shape, device, dtype)
    timer = Timer(options.warm_up, options.repeats)
    with progress("measuring", len(design)) as advance:
        found = sweep(decoder, design, options.out, timer, options.graphs, advance)
    skipped = tuple(str(one) for one in found.skipped)
    record = run_record(shape, device, dtype, _command(), before, skipped, _weights(target))
    write_document(record.document(), record_path(options.out))
    for one in skipped:
        note(f"note: did not fit into memory: {one}")
    if options.as_json:
        print_json({"rows": len(found.rows), "interrupted": found.interrupted} | record.document())
    else:
        say(f"{len(found.rows)} of {len(design)} batches measured on {record.device}.")
        say(f"Wrote {options.out}. Next: fluidwait calibrate {options.out} -o server.json")
    return 130 if found.interrupted else 0


def run_paper(target: Target, warm_up: int, repeats: int, largest: int, as_json: bool) -> None:
    """The paper's own design, fitted by Eq. (1), beside the published figures."""
    shape, device, dtype = _checked(target)
    from validation.measure.paper_design import EXTRAPOLATED, FITTED, run_paper_design
    from validation.measure.timer import Timer

    batches = [one for one in (*FITTED, EXTRAPOLATED) if one <= largest]
    if len(batches) < 4:
        raise InputError("--largest", largest, "at least 8: a line needs three points and one more")
    decoder = _decoder(target, shape, device, dtype)
    with progress("measuring", len(batches)) as advance:
        found = run_paper_design(decoder, Timer(warm_up, repeats), batches=batches, on_done=advance)
    document = {"model": shape.name, "device": str(device), "command": _command()} | found
    if as_json:
        print_json(document)
        return
    columns = ("", "d0 s", "d1 s/token", "MAPE", "R²", f"error at B = {batches[-1]}")
    table = new_table(f"Two-parameter Eq. (1), {shape.name} on {device}", *columns)
    for name in ("whole_runs", "decode_iterations"):
        one = found[name]
        table.add_row(
            name.replace("_", " "),
            number(one["d0_s"]),
            number(one["d1_s"]),
            percent(one["mape"], 2),
            number(one["r_squared"]),
            percent(one["extrapolation_error"], 2),
        )
    table.add_row("published (A100)", "–", "–", "1.93 %", "0.9943", "4.93 %")
    show_table(table)


@dataclass(frozen=True)
class LoopOptions:
    """Load of the closed loop: alike requests, one run per rate and policy."""

    server: str
    rates_per_s: list[float]
    prompt_tokens: int
    output_tokens: int
    requests: int
    table: Path | None
    seed: int
    as_json: bool


def rates_of(text: str) -> list[float]:
    """The rates of ``a,b,c``.

    Raises:
        InputError: Something that is no number.
    """
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise InputError("--rates", text, "numbers separated by commas") from None


def run_closed_loop(target: Target, options: LoopOptions) -> None:
    """Serve Poisson arrivals under a table and under greedy, beside the simulator."""
    from fluid.server import load_server
    from fluidwait.commands.common import checked_rate
    from thresholds.limits import Limits
    from thresholds.table import ThresholdTable

    rates = [checked_rate(one) for one in options.rates_per_s]
    server = load_server(options.server)
    table = ThresholdTable.read(options.table) if options.table else None
    shape, device, dtype = _checked(target)
    from validation.measure.batching import paced_limits
    from validation.measure.closed_loop import closed_loop, poisson_tape

    policies = {"greedy": Limits(watermark_fraction=0.01)}
    if table is not None:
        policies = {"table": paced_limits(table)} | policies
    decoder = _decoder(target, shape, device, dtype)
    runs = []
    with progress("serving", len(rates) * len(policies) * options.requests) as advance:
        for rate in rates:
            tape = poisson_tape(
                rate, options.requests, options.prompt_tokens, options.output_tokens, options.seed
            )
            for name, limits in policies.items():
                found = closed_loop(decoder, server, tape, limits, options.seed, advance)
                runs.append({"name": name, "offered_per_s": rate} | found.as_dict())
    document = {"model": shape.name, "device": str(device), "command": _command(), "runs": runs}
    if options.as_json:
        print_json(document)
    else:
        _print_runs(runs, f"{shape.name} on {device}, simulated with {server.name}")


def _print_runs(runs: list[dict[str, Any]], title: str) -> None:
    columns = ("policy", "rate /s", "latency s", "±", "simulated", "TTFT s", "simulated", "evicted")
    table = new_table(title, *columns)
    for one in runs:
        measured, simulated = one["measured"], one["simulated"]
        table.add_row(
            one["name"],
            number(one["offered_per_s"]),
            number(measured["latency_s"]),
            number(measured["latency_half_width_s"]),
            number(simulated["latency_s"]),
            number(measured["ttft_s"]),
            number(simulated["ttft_s"]),
            number(one["evictions_per_request"]),
        )
    show_table(table)


def run_floor(
    server_name: str,
    model: str,
    on: str | None,
    bandwidth_gb_per_s: float | None,
    tflops: float | None,
    as_json: bool,
) -> None:
    """Coefficients of a server beside what the device's bandwidth and peak allow."""
    from fluid.server import load_server
    from validation.measure.floor import device_limits, floor_report
    from validation.measure.shapes import shape_named

    limits = device_limits(on, bandwidth_gb_per_s, tflops)
    server = load_server(server_name)
    lines = floor_report(server.iteration_time, shape_named(model), limits)
    if as_json:
        rows = [
            {"name": one.name, "floor_s": one.floor_s, "measured_s": one.measured_s}
            | {"ratio": one.ratio}
            for one in lines
        ]
        print_json({"server": server.name, "model": model, "floor": rows})
        return
    title = f"{server.name} against the physical floor of {model}"
    table = new_table(title, "coefficient", "measured", "floor", "ratio")
    for one in lines:
        table.add_row(one.name, number(one.measured_s), number(one.floor_s), number(one.ratio))
    show_table(table)


def _checked(target: Target) -> tuple[ModelShape, torch.device, torch.dtype]:
    """Shape, device and type, with room for the model; before anything is allocated."""
    from validation.measure.shapes import shape_named

    shape = shape_named(target.model)
    try:
        from validation.measure.device import device_named, dtype_named, require_room
    except ImportError:
        raise FluidwaitError("measuring needs torch: pip install 'fluidwait[torch]'") from None
    device, dtype = device_named(target.device), dtype_named(target.dtype)
    require_room(shape, device, dtype)
    return shape, device, dtype


def _decoder(
    target: Target, shape: ModelShape, device: torch.device, dtype: torch.dtype
) -> Decoder:
    from validation.measure.model import random_decoder

    decoder = random_decoder(shape, device, dtype)
    if target.checkpoint:
        from validation.measure.checkpoint import load_checkpoint

        load_checkpoint(decoder, target.checkpoint)
    return decoder


def _weights(target: Target) -> str:
    return f"weights of {target.checkpoint.name}" if target.checkpoint else "random weights"


def _command() -> str:
    return shlex.join(["fluidwait", *sys.argv[1:]])


ModelName = Annotated[
    str, typer.Option("--model", help="Model to time: llama-2-7b, llama-3-8b or tiny.")
]
Dtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32.")]
TorchDevice = Annotated[str, typer.Option("--device", help="cuda, cpu, or auto.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder with weights; random ones cost the same time.")
]
WarmUp = Annotated[int, typer.Option(min=0, help="Unseen runs of each batch.")]
Repeats = Annotated[int, typer.Option(min=1, help="Timed runs of each batch.")]

app = new_app(help="Measure your own device (needs fluidwait[torch]).")


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the rows here.")] = Path(
        "iteration-times.csv"
    ),
    model: ModelName = "llama-2-7b",
    dtype: Dtype = "float16",
    device: TorchDevice = "auto",
    checkpoint: Checkpoint = None,
    most_decodes: Annotated[int, typer.Option(min=1, help="Largest batch of decodes.")] = 128,
    longest_context: Annotated[int, typer.Option(min=64, help="Longest context.")] = 4096,
    longest_prompt: Annotated[int, typer.Option(min=16, help="Longest prompt.")] = 2048,
    warm_up: WarmUp = 3,
    repeats: Repeats = 10,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Replay decodes as CUDA graphs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Sweep batch compositions on a device: rows for calibrate."""
    if context.invoked_subcommand:
        return
    options = SweepOptions(
        out,
        most_decodes,
        longest_context,
        longest_prompt,
        warm_up,
        repeats,
        cuda_graphs,
        as_json,
    )
    raise typer.Exit(run_sweep(Target(model, dtype, device, checkpoint), options))


@app.command("paper")
def measure_paper(
    model: ModelName = "llama-2-7b",
    dtype: Dtype = "float16",
    device: TorchDevice = "auto",
    warm_up: WarmUp = 3,
    repeats: Repeats = 10,
    largest: Annotated[int, typer.Option(help="Largest B, which is extrapolated to.")] = 256,
    as_json: AsJson = False,
) -> None:
    """The paper's design (prompts 256, outputs 20) and its two-parameter fit."""
    run_paper(Target(model, dtype, device), warm_up, repeats, largest, as_json)


@app.command("closed-loop")
def measure_closed_loop(
    server: ServerName,
    rates: Annotated[str, typer.Option(help="Arrivals per second: a,b,c.")],
    table: Annotated[
        Path | None, typer.Option(help="Threshold table to serve under, beside greedy.")
    ] = None,
    model: ModelName = "llama-2-7b",
    dtype: Dtype = "float16",
    device: TorchDevice = "auto",
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Prompt of every request.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, help="Output of every request.")] = 20,
    requests: Annotated[int, typer.Option(min=5, help="Arrivals per run.")] = 500,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Serve arrivals on the real model in real time, beside the simulator on the same tape."""
    options = LoopOptions(
        server, rates_of(rates), prompt_tokens, output_tokens, requests, table, seed, as_json
    )
    run_closed_loop(Target(model, dtype, device), options)


@app.command("floor")
def measure_floor(
    server: ServerName,
    model: ModelName = "llama-2-7b",
    on: Annotated[
        str | None, typer.Option(help="a100-80gb, a100-40gb, h100-sxm, h200, l4.")
    ] = None,
    bandwidth_gb_per_s: Annotated[
        float | None, typer.Option(min=1e-3, help="Memory bandwidth of another device.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(min=1e-6, help="Its dense 16-bit operations, 10¹²/s.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A server's coefficients against bytes ÷ bandwidth and operations ÷ peak."""
    run_floor(server, model, on, bandwidth_gb_per_s, tflops, as_json)
