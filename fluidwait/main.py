"""The table of commands, each imported when it is needed, and what becomes of errors.

Exit codes: 0 fine; 2 bad input; 3 unstable or infeasible; 1 a lost cluster, a statement of the
theory that fails (``report --theorems``), a closed or full standard output, or anything unexpected.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fluidwait import streams
from fluidwait.console import fail, note
from fluidwait.options import new_app

COMMANDS = (
    *("equilibrium", "region", "explore", "capacity", "solve", "plan", "fleet", "replay"),
    *("compare", "sweep", "report", "calibrate", "export", "watch", "demo", "doctor"),
    *("workload", "server", "measure"),
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
    add_completion=True,
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
    is_open = streams.ready()
    code = _code()
    arrived = streams.flushed()
    sys.exit(code or (0 if is_open and arrived else 1))


def _code() -> int:
    from fluid.errors import FluidwaitError

    as_json = "--json" in sys.argv[1:]
    warnings.showwarning = lambda message, *_: note(f"note: {message}")
    try:
        return app(standalone_mode=False) or 0
    except FluidwaitError as error:
        return fail(error, error.exit_code, as_json)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return 141  # as if the signal had ended it: whoever read has seen enough
    except OSError as error:
        # No file of ours, whose errors are typed: standard output is full, or the machine is.
        return fail(FluidwaitError(error.strerror or str(error)), 1, as_json=False)
    except MemoryError:
        return fail(FluidwaitError("this needs more memory than there is"), 1, as_json)
    except Exception as error:
        # Usage errors of the command-line parser; everything else is a bug and keeps its traceback.
        if not hasattr(error, "format_message"):
            raise
        return fail(FluidwaitError(f"{error.format_message()} (see fluidwait --help)"), 2, as_json)
