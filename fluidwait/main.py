"""Commands, their options and exit codes. Heavy imports happen inside the commands.

Exit codes: 0 fine; 2 bad input; 3 unstable or infeasible; 1 anything unexpected.
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
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
workload_app = typer.Typer(help="Make workload files.", no_args_is_help=True)
server_app = typer.Typer(help="Look at server descriptions.", no_args_is_help=True)
app.add_typer(workload_app, name="workload")
app.add_typer(server_app, name="server")

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
    """The balanced state of a server under a load, and how far it is from instability."""
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
    """All rates that a server carries: half-space or traced boundary, theorem, simulation."""
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
    """Inverse queries: the most or least of one thing with which the load is still stable."""
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
    """Compute the threshold table for a load on a server."""
    from fluidwait.commands.solve import NestedOptions, run_solve

    nested = NestedOptions(overflow_probability, horizon_s, segments, prompts, plot)
    run_solve(
        workload,
        server,
        policy=policy,
        rate=rate,
        scheduler=scheduler,
        budget_s=budget_s,
        nested=nested,
        out=out,
        as_json=as_json,
    )


@app.command()
def replay(
    table: TableFile,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Compare with NAME[:key=value,…] instead of the greedy baselines."),
    ] = None,
    tape: Annotated[
        Path | None, typer.Option(help="Recorded arrivals instead of Poisson ones.")
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
    """Simulate a table next to greedy admission, on the same arrivals."""
    from fluidwait.commands.replay import ReplayOptions, run_replay

    options = ReplayOptions(
        policy, tape, rate, replications, requests, seed, out, plot, as_json, arrivals, device
    )
    run_replay(table, options)


@app.command()
def compare(
    server: ServerName,
    policy: Annotated[list[str], typer.Option(help="NAME[:key=value,…]; repeat for more.")],
    workload: Annotated[
        Path | None, typer.Argument(metavar="[WORKLOAD]", help="Workload file, or give --tape.")
    ] = None,
    tape: Annotated[
        Path | None, typer.Option(help="Recorded arrivals instead of a workload.")
    ] = None,
    rates: Annotated[
        str | None, typer.Option(help="Total rates per second: a:b:step or a,b,c.")
    ] = None,
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
        Path | None, typer.Option(help="SQLite file that keeps finished rows; continue from it.")
    ] = None,
    plot: PlotFile = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Policies × rates on the same arrivals: verdicts, latencies, capacities."""
    from fluidwait.commands.compare import CompareOptions, run_compare

    run_compare(
        CompareOptions(
            workload,
            tape,
            server,
            policy,
            rates,
            find_capacity,
            arrivals,
            burst,
            replications,
            requests,
            seed,
            resume,
            plot,
            device,
            as_json,
        )
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("demo"),
) -> None:
    """Ten seconds: greedy admission collapses, and the table that prevents it."""
    from fluidwait.commands.demo import run_demo

    run_demo(out)


@workload_app.command("from-trace")
def from_trace(
    trace: Annotated[Path, typer.Argument(help="Azure trace: TIMESTAMP, ContextTokens, …")],
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
    """Summarise a trace into a few classes that load a server like the trace does."""
    from fluidwait.commands.workload import run_from_trace

    run_from_trace(trace, classes, name, source, out, tape_out, as_json)


@server_app.command("list")
def server_list(as_json: AsJson = False) -> None:
    """The built-in servers."""
    from fluidwait.commands.server import run_list

    run_list(as_json)


@server_app.command("show")
def server_show(server: Annotated[str, typer.Argument(help="Name or file.")]) -> None:
    """A server description as JSON, to copy and change."""
    from fluidwait.commands.server import run_show

    run_show(server)


def run() -> None:
    """Entry point: run a command and turn errors into one line and an exit code."""
    from fluid.errors import FluidwaitError, InfeasibleError

    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except InfeasibleError as error:
        code = fail(error, 3, as_json)
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
