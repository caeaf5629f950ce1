"""``fluidwait demo``: the main job on a bundled example."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fluidwait.console import progress, say, show
from fluidwait.options import new_app

SERVER = "paper-long-decode"
REPLICATIONS = 20
REQUESTS = 10_000

app = new_app()


@app.command()
def command(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", writable=True, file_okay=False, help="Folder for the files."),
    ] = Path("demo"),
) -> None:
    """Ten seconds: greedy admission collapses, a table prevents it."""
    from importlib import resources

    from fluid.errors import InputError
    from fluid.files import write_text
    from fluid.server import Server
    from fluid.workload import Workload
    from thresholds.solvers.paced.solver import Paced
    from validation.experiments.replay import BASELINES, replay
    from validation.simulator.runs import Runs

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", str(out), f"a folder ({error.strerror})") from None
    workload, table, plot = out / "long-decode.yaml", out / "table.json", out / "replay.svg"
    validated = out / "validated-table.json"
    write_text(workload, (resources.files("fluidwait") / "demo.yaml").read_text("utf-8"))
    say(f"$ fluidwait solve {workload} --server {SERVER} -o {table}")
    solved = Paced().solve(Workload.read(workload), Server.named(SERVER))
    solved.write(table)
    show(solved)
    say(f"Wrote {table}. Next: fluidwait replay {shlex.quote(str(table))}")
    say(f"$ fluidwait replay {table} --plot {plot} -o {validated}")
    runs = Runs(REPLICATIONS, REQUESTS)
    with progress("replay", runs.replications * (1 + len(BASELINES))) as advance:
        found = replay(solved, runs=runs, on_done=advance)
    found.validated_table.write(validated)
    show(found, plot=plot)
    say(f"Wrote {validated}.")
