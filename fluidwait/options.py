"""Options that several commands share, each declared once.

A group is a frozen dataclass whose fields are options; a command that takes it as a parameter has
them all (`grouped`). `require_use` refuses an option that was given and would do nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from fluidwait import names
from fluidwait.values import require_values

if TYPE_CHECKING:
    from fluid.server import Server
    from fluid.traces.tape import Tape
    from fluid.workload import Workload
    from validation.experiments.rows import Runner
    from validation.simulator.runs import Runs
    from validation.simulator.traffic.traffic import Traffic

Command = TypeVar("Command", bound=Callable[..., Any])

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", writable=True, help="Draw into this file (svg, pdf, png)."),
]
ServerName = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        help="Built-in server by name, or a server file.",
        autocompletion=names.servers,
    ),
]
Arrivals = Annotated[
    str | None,
    typer.Option(
        metavar="KIND[:key=value,…]",
        help="poisson, gamma:cv=2, deterministic, mmpp:ratio=5,mean_s=30 or poisson-clipped, "
        "each with burst=N,burst_at_s=T.",
    ),
]
TapeFile = Annotated[
    Path | None,
    typer.Option(help="Recorded arrivals instead of a workload: a tape, or any trace with times."),
]
TapePart = Annotated[
    str | None,
    typer.Option("--part", help="With --tape: number of a run in a file that holds several."),
]
TapeLongest = Annotated[
    int | None,
    typer.Option(
        "--drop-longer-than",
        metavar="TOKENS",
        help="With --tape: leave out longer requests, and count them.",
    ),
]
Rates = Annotated[str | None, typer.Option(help="Total rates per second: a:b:step or a,b,c.")]
Rate = Annotated[
    float | None, typer.Option(help="Total arrival rate per second, same mix as in the file.")
]
BudgetTokens = Annotated[
    int | None,
    typer.Option(help="Tokens per iteration of an engine that computes prompts in chunks."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
WorkloadFile = Annotated[Path, typer.Argument(metavar="WORKLOAD", help="Workload file.")]
Replications = Annotated[int, typer.Option(help="Independent runs per policy.")]
Requests = Annotated[int, typer.Option(help="Arrivals per run.")]
Device = Annotated[
    str, typer.Option(help="cpu, cuda (needs fluidwait[cuda]), or auto: cuda if there is one.")
]
LoadFile = Annotated[
    Path | None, typer.Argument(metavar="WORKLOAD", help="Workload file, or give --tape.")
]
TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Threshold table.")]


class App(typer.Typer):
    """Typer whose commands look at their values before they start (`fluidwait.values`)."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Command], Command]:
        return super().command(name, **({"cls": CheckedCommand} | settings))


class CheckedCommand(TyperCommand):
    """A command that is refused before it starts where its values cannot be right."""

    def invoke(self, ctx: Any) -> Any:
        require_values(ctx)
        return super().invoke(ctx)


class CheckedGroup(TyperGroup):
    """The same for a command with further commands below it, where it runs itself."""

    def invoke(self, ctx: Any) -> Any:
        if not (getattr(ctx, "_protected_args", None) or ctx.args):
            require_values(ctx)
        return super().invoke(ctx)


def new_app(
    help: str | None = None, cls: type[TyperGroup] = CheckedGroup, add_completion: bool = False
) -> typer.Typer:
    """A Typer application with what all of them have in common; plain help, and -h for it.

    Args:
        add_completion: Whether it offers to install completion for a shell.
    """
    return App(
        cls=cls,
        help=help,
        rich_markup_mode=None,  # its markup turns "a:b:step" into an emoji and drops "[cuda]"
        pretty_exceptions_enable=False,
        add_completion=add_completion,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


@dataclass(frozen=True)
class LoadOptions:
    """A workload, at another rate if one is given, on a server."""

    workload: WorkloadFile
    server: ServerName
    rate: Rate = None

    def read(self) -> tuple[Workload, Server]:
        """Both, read and checked."""
        from fluid.server import load_server

        return read_workload(self.workload, self.rate), load_server(self.server)


@dataclass(frozen=True)
class TrafficOptions:
    """A workload, arriving in some way, or recorded arrivals; on a server."""

    server: ServerName
    workload: LoadFile = None
    tape: TapeFile = None
    part: TapePart = None
    drop_longer_than: TapeLongest = None
    arrivals: Arrivals = None

    def read(
        self, context: typer.Context, traffic: Traffic | None
    ) -> tuple[Workload | Tape, Server]:
        """Both, read and checked.

        Args:
            traffic: What clients do, which may make times of a recording needless.

        Raises:
            InputError: Not exactly one of workload and tape, an option that a tape has no use for,
                or a file that is not right.
        """
        from fluid.errors import InputError
        from fluid.server import load_server
        from fluid.workload import Workload

        if (self.workload is None) == (self.tape is None):
            raise InputError("WORKLOAD", "both or neither", "a workload file, or --tape FILE")
        server = load_server(self.server)
        tape = read_tape(context, self.tape, self.part, self.drop_longer_than, traffic)
        if tape is not None:
            return tape, server
        assert self.workload is not None
        return Workload.read(self.workload), server


@dataclass(frozen=True)
class ClientOptions:
    """What requests and their clients do beside arriving."""

    clients: Annotated[
        int | None,
        typer.Option(min=1, help="A closed loop: so many clients, each waits for its answer."),
    ] = None
    think_s: Annotated[
        float,
        typer.Option(help="With --clients: mean time between an answer and the next request."),
    ] = 0.0
    think_law: Annotated[
        str, typer.Option(help="With --think-s: deterministic or exponential.")
    ] = "deterministic"
    job: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="A finite job, run to its end and measured as a whole: at-once, or as-recorded.",
        ),
    ] = None
    queue_requests: Annotated[
        int | None, typer.Option(help="Refuse what comes when so many requests wait.")
    ] = None
    queue_tokens: Annotated[
        int | None, typer.Option(help="Refuse what comes when so many prompt tokens wait.")
    ] = None
    patience_s: Annotated[
        float | None, typer.Option(help="Clients give up without a first token after this time.")
    ] = None
    patience_cv: Annotated[
        float,
        typer.Option(
            help="With --patience-s: its variation; 0 is the same for all, 1 exponential."
        ),
    ] = 1.0
    refuse_too_long: Annotated[
        bool,
        typer.Option("--refuse-too-long", help="Count requests that never fit into memory."),
    ] = False

    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="LAW",
            help="Draw output lengths around those of the classes: geometric, lognormal:cv=1.2, or "
            "empirical:FILE, a length on each line.",
        ),
    ] = None

    def traffic(self, context: typer.Context) -> Traffic | None:
        """The same, checked; None where nothing is asked for.

        Raises:
            InputError: A value out of range, or an option that would do nothing.
        """
        from fluid.errors import InputError
        from fluid.overload.impatience import Patience
        from validation.simulator.traffic.clients import Clients
        from validation.simulator.traffic.job import FiniteJob
        from validation.simulator.traffic.outputs import parse_outputs
        from validation.simulator.traffic.queue_limit import QueueLimit
        from validation.simulator.traffic.traffic import Traffic

        if self.clients is None:
            require_use(context, ["think_s", "think_law"], "only with --clients")
        else:
            require_use(context, ["rate", "rates", "arrivals"], "nothing beside --clients")
        if self.patience_s is None:
            require_use(context, ["patience_cv"], "only with --patience-s")
        if self.job not in (None, *JOBS):
            raise InputError("job", self.job, " or ".join(JOBS))
        if self.job == JOBS[0]:
            at_once = "nothing beside --job at-once: all requests come at time 0"
            require_use(context, ["rate", "rates", "arrivals"], at_once)
        bounded = self.queue_requests is not None or self.queue_tokens is not None
        found = Traffic(
            clients=None
            if self.clients is None
            else Clients(self.clients, self.think_s, self.think_law),  # type: ignore[arg-type]
            job=None if self.job is None else FiniteJob(at_once=self.job == JOBS[0]),
            queue=QueueLimit(self.queue_requests, self.queue_tokens) if bounded else None,
            patience=None
            if self.patience_s is None
            else Patience(self.patience_s, self.patience_cv),
            refuse_too_long=self.refuse_too_long,
            outputs=None if self.outputs is None else parse_outputs(self.outputs),
        )
        return None if found == Traffic() else found


JOBS = ("at-once", "as-recorded")


@dataclass(frozen=True)
class RunOptions:
    """How much is simulated."""

    replications: Replications
    requests: Requests
    seed: Seed = 0
    device: Device = "cpu"

    def runs(self) -> Runs:
        """The same, checked."""
        from validation.simulator.runs import Runs

        return Runs(self.replications, self.requests, self.seed, self.device)


@dataclass(frozen=True)
class PlaceOptions:
    """Where configurations run: here, on processes of this machine, or on a cluster."""

    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Run on the workers of this Dask scheduler (needs fluidwait[dask]).",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Run on so many processes of this machine (needs fluidwait[dask])."
        ),
    ] = None

    @contextmanager
    def runner(self) -> Iterator[Runner]:
        """Connect, and let go at the end.

        Raises:
            InputError: Dask is not installed, both are given, or nobody answers.
        """
        from validation.experiments.rows import LOCAL

        if self.cluster is None and self.workers is None:
            yield LOCAL
            return
        from fluidwait.console import note
        from validation.experiments.cluster import cluster

        with cluster(self.cluster, self.workers) as runner:
            if runner.threads() == 0:
                note(f"No worker has joined {runner.address} yet: waiting for one.")
            yield runner


def read_workload(path: Path, rate_per_s: float | None) -> Workload:
    """A workload file, at another total rate if one is given."""
    from fluid.workload import Workload

    workload = Workload.read(path)
    return workload if rate_per_s is None else workload.at_rate(rate_per_s)


def read_tape(
    context: typer.Context,
    path: Path | None,
    part: str | None,
    drop_longer_than: int | None,
    traffic: Traffic | None = None,
) -> Tape | None:
    """Recorded arrivals, beside which nothing is drawn at random and nothing repeated.

    What the recording does not say, or leaves out, is told as notes.

    Args:
        traffic: Where its clients or its job come at no rate, the recording needs no times.

    Returns:
        None where no path is given.

    Raises:
        InputError: The file is not right, or an option was given that would do nothing.
    """
    if path is None:
        require_use(context, ["part", "drop_longer_than"], "only with --tape")
        return None
    from fluid.traces.registry import open_timed
    from fluid.traces.tape import whole_tape
    from fluid.traces.trace import AS_POISSON, ReadOptions
    from fluidwait.console import note

    require_use(context, ["arrivals", "outputs"], "nothing beside --tape, which has its own")
    once = "nothing beside --tape: a recording runs once, at its own length"
    require_use(context, ["replications", "requests", "seed", "seeds"], once)
    options = ReadOptions(part=part, drop_longer_than=drop_longer_than)
    trace = open_timed(path, options=options, times=traffic is None or traffic.at_a_rate)
    tape = whole_tape(trace.chunks)
    for caveat in trace.caveats:
        if AS_POISSON not in caveat:  # which nothing here asks for
            note(f"note: {caveat}")
    return tape


def grouped(command: Command) -> Command:
    """Give a command the options of each parameter whose type is a dataclass.

    The default of such a parameter, if it has one, gives the defaults of its options.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type, list[str]]] = {}
    shown: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        if not is_dataclass(hint):
            shown.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        assert isinstance(hint, type)
        members = list(_options_of(hint, parameter.default))
        groups[name] = hint, [one.name for one in members]
        shown += members

    @functools.wraps(command)
    def ungrouped(**values: Any) -> Any:
        for name, (group, members) in groups.items():
            values[name] = group(**{one: values.pop(one) for one in members})
        return command(**values)

    shown.sort(key=lambda one: one.default is not inspect.Parameter.empty)
    ungrouped.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    ungrouped.__annotations__ = {one.name: one.annotation for one in shown}
    return ungrouped  # type: ignore[return-value]


def _options_of(group: type, given: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    own = inspect.signature(group).parameters
    for one in fields(group):
        default = own[one.name].default
        if given is not inspect.Parameter.empty:
            default = getattr(given, one.name)
        yield inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=hints[one.name],
        )


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, by the name of its parameter."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def require_use(context: typer.Context, names: Sequence[str], allowed: str) -> None:
    """Refuse options that were given and would do nothing.

    Args:
        names: Parameters that this run has no use for.
        allowed: When they do something, in words.

    Raises:
        InputError: Naming the first of them that stands on the command line.
    """
    from fluid.errors import InputError

    for name in names:
        if was_given(context, name):
            raise InputError(name, context.params[name], allowed)


def by_name(option: str, given: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Numbers of NAME=X options.

    Raises:
        InputError: Not that form, no number, or no such server.
    """
    from fluid.errors import InputError

    found = {}
    for one in given:
        name, equals, text = one.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(option, one, "NAME=NUMBER")
        if name not in names:
            raise InputError(option, one, "a name among " + ", ".join(names))
        found[name] = value
    return found
