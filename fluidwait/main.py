"""The table of commands, each imported when it is needed, and what becomes of errors.

Exit codes: 0 fine; 2 bad input; 3 unstable or infeasible; 1 a lost cluster, a statement of the
theory that fails (``report --theorems``), or anything unexpected.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fluidwait.console import fail
from fluidwait.options import new_app

COMMANDS = (
    *("equilibrium", "region", "capacity", "solve", "fleet", "replay", "compare", "sweep"),
    *("report", "calibrate", "export", "demo", "doctor", "workload", "server", "measure"),
)
"""Each is the `app` of the file of its name in `fluidwait.commands`."""


class LazyGroup(TyperGroup):
    """Finds a command in its own file when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        app = importlib.import_module(f"fluidwait.commands.{cmd_name}").app
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command


app = new_app(
    "Fluid-model thresholds for LLM-inference serving: compute them, prove them, export them.",
    cls=LazyGroup,
)


@app.callback(invoke_without_command=True)
def help_if_alone(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"fluidwait {importlib.metadata.version('fluidwait')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def run() -> None:
    """Entry point: run a command and turn errors into one line and an exit code."""
    from fluid.errors import FluidwaitError

    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except FluidwaitError as error:
        code = fail(error, error.exit_code, as_json)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        # Usage errors of the command-line parser; everything else is a bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        code = fail(FluidwaitError(f"{error.format_message()} (see fluidwait --help)"), 2, as_json)
    sys.exit(code or 0)
