"""``fluidwait demo``: the main job on a bundled example."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from fluid.errors import InputError
from fluid.files import write_text
from fluid.server import load_server
from fluid.workload import Workload
from fluidwait.commands.replay import ReplayOptions, run_replay
from fluidwait.console import say, show
from fluidwait.options import new_app
from thresholds.solvers.paced.solver import Paced

SERVER = "paper-long-decode"
REPLICATIONS = 20
REQUESTS = 10_000


def run_demo(folder: Path) -> None:
    """Solve the bundled long-output workload and replay its table against greedy admission."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", str(folder), f"a folder ({error.strerror})") from None
    workload, table = folder / "long-decode.yaml", folder / "table.json"
    write_text(workload, (resources.files("fluidwait") / "demo.yaml").read_text("utf-8"))
    say(f"$ fluidwait solve {workload} --server {SERVER} -o {table}")
    solved = Paced().solve(Workload.read(workload), load_server(SERVER))
    solved.write(table)
    show(solved)
    say(f"Wrote {table}. Next: fluidwait replay {table}")
    plot = folder / "replay.svg"
    say(f"$ fluidwait replay {table} --plot {plot}")
    run_replay(
        table,
        ReplayOptions(
            policies=None,
            tape=None,
            rate=None,
            replications=REPLICATIONS,
            requests=REQUESTS,
            seed=0,
            out=folder / "validated-table.json",
            plot=plot,
            as_json=False,
        ),
    )


app = new_app()


@app.command()
def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("demo"),
) -> None:
    """Ten seconds: greedy admission collapses, a table prevents it."""
    run_demo(out)
