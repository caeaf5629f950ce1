"""Commands, their options and exit codes. Heavy imports happen inside the commands.

Exit codes: 0 fine; 2 bad input; 3 unstable or infeasible; 1 a lost cluster, a statement of the
theory that fails (``report --theorems``), or anything unexpected.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import fail

app = typer.Typer(
    name="fluidwait",
    help="Fluid-model thresholds for LLM-inference serving: compute them, prove them, export them.",
    rich_markup_mode=None,  # its markup turns "a:b:step" into an emoji and drops "[cuda]"
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
workload_app = typer.Typer(help="Make workload files.")
server_app = typer.Typer(help="Look at server descriptions.")
app.add_typer(workload_app, name="workload")
app.add_typer(server_app, name="server")
measure_app = typer.Typer(help="Measure your own device (needs fluidwait[torch]).")
app.add_typer(measure_app, name="measure")


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


for group in (app, workload_app, server_app):
    group.callback(invoke_without_command=True)(_help_if_alone)

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
WorkloadFile = Annotated[Path, typer.Argument(metavar="WORKLOAD", help="Workload file.")]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Threshold table.")]
ServerName = Annotated[
    str, typer.Option("--server", "-s", help="Built-in server by name, or a server file.")
]
Rate = Annotated[
    float | None, typer.Option(help="Total arrival rate per second, same mix as in the file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Draw into this file (svg, pdf, png).")
]
Arrivals = Annotated[
    str | None,
    typer.Option(
        metavar="KIND[:key=value,…]",
        help="poisson, gamma:cv=2, deterministic, mmpp:ratio=5,mean_s=30 or poisson-clipped, "
        "each with burst=N,burst_at_s=T.",
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda (needs fluidwait[cuda]), or auto: cuda if there is one.")
]
Replications = Annotated[int, typer.Option(help="Independent runs per policy.")]
Requests = Annotated[int, typer.Option(help="Arrivals per run.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
TapeFile = Annotated[
    Path | None,
    typer.Option(help="Recorded arrivals instead of a workload: a tape, or any trace with times."),
]
LoadFile = Annotated[
    Path | None, typer.Argument(metavar="WORKLOAD", help="Workload file, or give --tape.")
]
Rates = Annotated[str | None, typer.Option(help="Total rates per second: a:b:step or a,b,c.")]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="tcp://HOST:PORT",
        help="Run on the workers of this Dask scheduler (needs fluidwait[dask]).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Run on so many processes of this machine (needs fluidwait[dask])."),
]


@app.command()
def equilibrium(
    workload: WorkloadFile,
    server: ServerName,
    rate: Rate = None,
    evictions: Annotated[
        float | None,
        typer.Option(help="Also: memory and rate at which this share of iterations overflows."),
    ] = None,
    plot: PlotFile = None,
    picture: Annotated[
        str, typer.Option(help="What to plot: latency (by rate), stages (KV by stage) or phase.")
    ] = "latency",
    as_json: AsJson = False,
) -> None:
    """Balanced state of a load on a server, and what limits it."""
    from fluidwait.commands.equilibrium import run_equilibrium

    raise typer.Exit(run_equilibrium(workload, server, rate, evictions, plot, picture, as_json))


@app.command()
def region(
    workload: WorkloadFile,
    server: ServerName,
    rate: Rate = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulate the boundary of NAME[:key=value,…], or of paced, solved at each mix."
        ),
    ] = None,
    mixes: Annotated[int, typer.Option(min=2, help="Mixes of the simulated boundary.")] = 9,
    replications: Replications = 6,
    requests: Requests = 15_000,
    seed: Seed = 0,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """All rates that a server carries, by theory and simulation."""
    from fluidwait.commands.region import RegionOptions, run_region

    options = RegionOptions(
        workload,
        server,
        rate,
        policy or [],
        mixes,
        replications,
        requests,
        seed,
        plot,
        as_json,
    )
    raise typer.Exit(run_region(options))


@app.command()
def capacity(
    workload: WorkloadFile,
    server: ServerName,
    query: Annotated[
        str, typer.Option(help="rate, kv_tokens, overhead_s, bandwidth, servers or output.")
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class that query output asks about.")
    ] = None,
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """The most or least of one thing with which a load is stable."""
    from fluidwait.commands.capacity import run_capacity

    run_capacity(workload, server, query, class_name, rate, as_json)


@app.command()
def solve(
    workload: WorkloadFile,
    server: ServerName,
    policy: Annotated[
        str,
        typer.Option(
            help="paced (the practical form), wait (literal WAIT), nested-wait (literal Nested "
            "WAIT, lengths unknown) or nested-cap (caps per segment)."
        ),
    ] = "paced",
    objective: Annotated[
        str, typer.Option(help="latency; for wait also ttft, memory, slack, rate, sharp-latency.")
    ] = "latency",
    overload: Annotated[
        bool, typer.Option("--overload", help="Above capacity: admit what is worth most of it.")
    ] = False,
    rate: Rate = None,
    scheduler: Annotated[
        str,
        typer.Option(help="greedy or vllm-v1: whose batching and eviction the limits refine."),
    ] = "greedy",
    budget_s: Annotated[
        float, typer.Option(help="Seconds to refine on the simulator; 0: the closed form.")
    ] = 0.0,
    overflow_probability: Annotated[
        float, typer.Option(help="nested-wait: of any overflow within the horizon.")
    ] = 0.01,
    horizon_s: Annotated[float, typer.Option(help="nested-wait: seconds of that horizon.")] = 3600,
    segments: Annotated[
        int | None, typer.Option(help="nested-*: segments of output length; default the best.")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="nested-*: worst or weighted, the prompt that memory counts."),
    ] = "worst",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="nested-wait: draw base memory and buffers against segments."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the table here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Threshold table for a load, or one per window of its profile."""
    from fluidwait.commands.solve import NestedOptions, SolveOptions, run_solve

    run_solve(
        SolveOptions(
            workload,
            server,
            policy=policy,
            objective=objective,
            overload=overload,
            rate=rate,
            scheduler=scheduler,
            budget_s=budget_s,
            nested=NestedOptions(overflow_probability, horizon_s, segments, prompts, plot),
            out=out,
            as_json=as_json,
        )
    )


@app.command()
def fleet(
    workload: WorkloadFile,
    server: Annotated[
        list[str], typer.Option("--server", "-s", help="A type that can be had; repeat for more.")
    ],
    cost: Annotated[
        list[str] | None, typer.Option(metavar="NAME=X", help="Cost of one; 1 unless told.")
    ] = None,
    max_count: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="At most so many of a type.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Of the tables for the replicas.")] = "paced",
    rate: Rate = None,
    as_json: AsJson = False,
) -> None:
    """The cheapest servers for a load, and a table for each type."""
    from fluidwait.commands.fleet import FleetOptions, run_fleet

    run_fleet(FleetOptions(workload, server, cost or [], max_count or [], policy, rate, as_json))


@app.command()
def replay(
    table: TableFile,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Compare with NAME[:key=value,…] instead of the greedy baselines."),
    ] = None,
    tape: Annotated[
        Path | None,
        typer.Option(help="Recorded arrivals, not Poisson ones: a tape, or any trace with times."),
    ] = None,
    arrivals: Arrivals = None,
    rate: Rate = None,
    replications: Replications = 20,
    requests: Requests = 10_000,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the table with its validation here.")
    ] = None,
    plot: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """A table beside greedy admission, simulated on equal arrivals."""
    from fluidwait.commands.replay import ReplayOptions, run_replay

    options = ReplayOptions(
        policy, tape, rate, replications, requests, seed, out, plot, as_json, arrivals, device
    )
    run_replay(table, options)


@app.command()
def compare(
    server: ServerName,
    policy: Annotated[
        list[str], typer.Option(metavar="NAME[:key=value,…]", help="Policy; repeat for more.")
    ],
    workload: LoadFile = None,
    tape: TapeFile = None,
    rates: Rates = None,
    arrivals: Arrivals = None,
    find_capacity: Annotated[
        bool, typer.Option("--find-capacity", help="Bisect each policy's largest stable rate.")
    ] = False,
    burst: Annotated[
        int | None,
        typer.Option(min=1, help="Also measure the recovery from so many requests at once."),
    ] = None,
    replications: Replications = 20,
    requests: Requests = 20_000,
    seed: Seed = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished rows; continue from it.")
    ] = None,
    cluster: ClusterAddress = None,
    workers: Workers = None,
    plot: PlotFile = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Policies by rate: verdicts, latencies, largest stable rates."""
    from fluidwait.commands.compare import CompareOptions, run_compare
    from fluidwait.commands.simulation import Load, Place

    run_compare(
        CompareOptions(
            Load(workload, tape, server, arrivals),
            policy,
            rates,
            find_capacity,
            burst,
            replications,
            requests,
            seed,
            resume,
            Place(cluster, workers),
            plot,
            device,
            as_json,
        )
    )


@app.command()
def sweep(
    server: ServerName,
    policy: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:key=value,…]", help="Policy, a value also as a:b:step; repeat for more."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the rows; continue with those in it.")
    ],
    workload: LoadFile = None,
    tape: TapeFile = None,
    rates: Rates = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds from --seed on, a row each.")] = 1,
    arrivals: Arrivals = None,
    replications: Replications = 20,
    requests: Requests = 20_000,
    seed: Seed = 0,
    cluster: ClusterAddress = None,
    workers: Workers = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Policies × rates × seeds into a folder of Parquet."""
    from fluidwait.commands.simulation import Load, Place
    from fluidwait.commands.sweep import SweepOptions, run_sweep

    run_sweep(
        SweepOptions(
            Load(workload, tape, server, arrivals),
            policy,
            rates,
            seeds,
            replications,
            requests,
            seed,
            out,
            Place(cluster, workers),
            device,
            as_json,
        )
    )


@app.command()
def report(
    table: Annotated[
        Path | None, typer.Argument(metavar="[TABLE]", help="Threshold table.")
    ] = None,
    theorems: Annotated[
        bool, typer.Option("--theorems", help="Try the statements of the theory instead.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --theorems: small runs, two minutes at most.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the page here (report.html or theorems.html)."),
    ] = None,
    replications: Replications = 10,
    requests: Requests = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """One page about a table to send round, or about the theory.

    With --theorems it exits with 1 where a statement fails.
    """
    from fluid.errors import InputError

    if theorems == (table is not None):
        given = f"{table} --theorems" if theorems else ""
        raise InputError("report", given, "a TABLE or --theorems, one of them")
    if table is None:
        from fluidwait.commands.theorems import run_theorems
        from validation.theorems.statement import Effort as Size

        raise typer.Exit(run_theorems(out, Size("quick" if quick else "full", seed), as_json))
    if quick or as_json:
        given = "--quick" if quick else "--json"
        raise InputError("report TABLE", given, "only with --theorems")
    from fluidwait.commands.report import run_report
    from validation.report.content import Effort

    run_report(table, out or Path("report.html"), Effort(replications, requests, seed))


@app.command()
def calibrate(
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
    from fluidwait.commands.calibrate import CalibrateOptions, run_calibrate

    run_calibrate(
        rows,
        CalibrateOptions(out, layout, name, kv_tokens, block_tokens, workload, plot, as_json),
    )


@app.command()
def export(
    table: TableFile,
    to: Annotated[str, typer.Option(help="vllm, sglang, trtllm or env.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here.")] = None,
    as_json: AsJson = False,
) -> None:
    """A table as flags of a serving system, each with its reason."""
    from fluidwait.commands.export import run_export

    run_export(table, to, out, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("demo"),
) -> None:
    """Ten seconds: greedy admission collapses, a table prevents it."""
    from fluidwait.commands.demo import run_demo

    run_demo(out)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What is installed, what is seen, and what extras would add."""
    from fluidwait.commands.doctor import run_doctor

    raise typer.Exit(run_doctor(as_json))


@measure_app.callback(invoke_without_command=True)
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
    from fluidwait.commands.measure import SweepOptions, Target, run_sweep

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


@measure_app.command("paper")
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
    from fluidwait.commands.measure import Target, run_paper

    run_paper(Target(model, dtype, device), warm_up, repeats, largest, as_json)


@measure_app.command("closed-loop")
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
    from fluidwait.commands.measure import LoopOptions, Target, rates_of, run_closed_loop

    options = LoopOptions(
        server, rates_of(rates), prompt_tokens, output_tokens, requests, table, seed, as_json
    )
    run_closed_loop(Target(model, dtype, device), options)


@measure_app.command("floor")
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
    from fluidwait.commands.measure import run_floor

    run_floor(server, model, on, bandwidth_gb_per_s, tflops, as_json)


@workload_app.command("from-trace")
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
        str | None, typer.Option(help="Number of a guidellm benchmark, or model of a snapshot.")
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
    from fluidwait.commands.workload import TraceOptions, run_from_trace

    read = ReadOptions(drop_failed, tokenizer, part)
    run_from_trace(
        trace,
        TraceOptions(layout, read, rate, lengths, classes, name, source, out, tape_out, as_json),
    )


@server_app.command("list")
def server_list(as_json: AsJson = False) -> None:
    """The built-in servers."""
    from fluidwait.commands.server import run_list

    run_list(as_json)


@server_app.command("show")
def server_show(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Name or file.")],
) -> None:
    """A server description as JSON, to copy and change."""
    from fluidwait.commands.server import run_show

    run_show(server)


def run() -> None:
    """Entry point: run a command and turn errors into one line and an exit code."""
    from fluid.errors import ClusterError, FluidwaitError, InfeasibleError

    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except InfeasibleError as error:
        code = fail(error, 3, as_json)
    except ClusterError as error:
        code = fail(error, 1, as_json)
    except FluidwaitError as error:
        code = fail(error, 2, as_json)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        # Usage errors of the command-line parser; everything else is a bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        code = fail(FluidwaitError(f"{error.format_message()} (see fluidwait --help)"), 2, as_json)
    sys.exit(code or 0)
