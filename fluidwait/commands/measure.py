"""``fluidwait measure``: batches, the paper's design, the closed loop and the physical floor."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import progress, say, show
from fluidwait.options import AsJson, Seed, ServerName, new_app, was_given

ModelName = Annotated[
    str, typer.Option("--model", help="Model to time: llama-2-7b, llama-3-8b or tiny.")
]
Dtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32.")]
TorchDevice = Annotated[str, typer.Option("--device", help="cuda, cpu, or auto.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder with weights; random ones cost the same time.")
]
WarmUp = Annotated[int, typer.Option(min=0, help="Unseen runs of each batch.")]
CudaGraphs = Annotated[bool, typer.Option("--cuda-graphs", help="Replay batches as CUDA graphs.")]
Repeats = Annotated[int, typer.Option(min=1, help="Timed runs of each batch.")]

app = new_app(help="Measure your own device (needs fluidwait[torch]).")


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", writable=True, help="Write the rows here.")
    ] = Path("iteration-times.csv"),
    model: ModelName = "llama-2-7b",
    dtype: Dtype = "float16",
    device: TorchDevice = "auto",
    checkpoint: Checkpoint = None,
    most_decodes: Annotated[int, typer.Option(min=1, help="Largest batch of decodes.")] = 128,
    longest_context: Annotated[int, typer.Option(min=64, help="Longest context.")] = 4096,
    longest_prompt: Annotated[int, typer.Option(min=16, help="Longest prompt.")] = 2048,
    warm_up: WarmUp = 3,
    repeats: Repeats = 10,
    cuda_graphs: CudaGraphs = False,
    as_json: AsJson = False,
) -> None:
    """Sweep batch compositions on a device: rows for calibrate."""
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    from validation.measure.design import BatchDesign
    from validation.measure.target import Target

    target = Target.named(model, dtype, device, checkpoint)
    from validation.measure.run import measure_batches
    from validation.measure.timer import Timer

    design = BatchDesign(most_decodes, longest_context, longest_prompt)
    with progress("measuring", len(design.batches())) as advance:
        found = measure_batches(
            target,
            design,
            out,
            Timer(warm_up, repeats),
            cuda_graphs=cuda_graphs,
            command=_typed(),
            on_done=advance,
        )
    show(found, as_json)
    if not as_json:
        say(f"Wrote {out}. Next: fluidwait calibrate {shlex.quote(str(out))} -o server.json")
    raise typer.Exit(130 if found.is_interrupted else 0)


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
    from validation.measure.target import Target

    target = Target.named(model, dtype, device)
    from validation.measure.paper_design import measure_paper_design, paper_batches
    from validation.measure.timer import Timer

    with progress("measuring", len(paper_batches(largest))) as advance:
        found = measure_paper_design(
            target, Timer(warm_up, repeats), largest, command=_typed(), on_done=advance
        )
    show(found, as_json)


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
    cuda_graphs: CudaGraphs = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Serve arrivals on the real model in real time, beside the simulator on the same tape."""
    from fluid.server import load_server
    from thresholds.table import ThresholdTable
    from validation.measure.target import Target

    rates_per_s = _numbers(rates)
    machine = load_server(server)
    limits = ThresholdTable.read(table) if table else None
    target = Target.named(model, dtype, device)
    from validation.measure.closed_loop import (
        AlikeRequests,
        closed_loop_policies,
        closed_loop_runs,
    )

    load = AlikeRequests(requests, prompt_tokens, output_tokens, seed)
    total = len(rates_per_s) * len(closed_loop_policies(limits)) * requests
    with progress("serving", total) as advance:
        found = closed_loop_runs(
            target,
            machine,
            rates_per_s,
            limits,
            load,
            cuda_graphs=cuda_graphs,
            command=_typed(),
            on_done=advance,
        )
    show(found, as_json)


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
    from fluid.server import load_server
    from validation.measure.floor import device_limits, floor_report

    limits = device_limits(on, bandwidth_gb_per_s, tflops)
    show(floor_report(load_server(server), model, limits), as_json)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options in front of a further command, which would not see them.

    Raises:
        InputError: Naming the first of them.
    """
    from fluid.errors import InputError

    for one in context.command.params:
        if one.name and was_given(context, one.name):
            allowed = f"options of {context.invoked_subcommand} behind its name"
            raise InputError(one.opts[0], str(context.params[one.name]), allowed)


def _numbers(text: str) -> Sequence[float]:
    """The rates of ``a,b,c``.

    Raises:
        InputError: Something that is no number.
    """
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        from fluid.errors import InputError

        raise InputError("rates", text, "numbers separated by commas") from None


def _typed() -> str:
    return shlex.join(["fluidwait", *sys.argv[1:]])
