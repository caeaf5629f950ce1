"""Command lines that are wrong in some way, for every command that there is.

Commands and options come from the program itself: one that is added is tried without a line here.
What an argument may hold is found by its declaration (`writable`, a number, a path) and, for files,
by its name.
"""

from __future__ import annotations

import inspect
import itertools
import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from fluidwait.main import LazyGroup, app
from tests.fuzz.documents import (
    BROKEN_JSON,
    BROKEN_YAML,
    HOSTILE,
    extreme_documents,
    wrong_documents,
)
from tests.fuzz.inputs import LOADS, SERVERS, TABLES, files_of
from tests.support.command_line import all_commands
from thresholds.export.autoscaling.scalers import SCALERS
from thresholds.solvers.wait.objectives import WAIT_OBJECTIVES
from thresholds.solvers.wait.sharp import SHARP
from validation.experiments.planning.plan import OBJECTIVES

REFUSED = (2,)
ANSWERED = (0, 2, 3)
NEEDED = {
    "plan": {"requests": "200", "budget_s": "1"},
    "explore": {"out": "page.html"},
    "watch": {"metrics": "page.prom", "interval_s": "0.1", "duration_s": "0.25"},
    "server estimate": {"model": "llama-3.1-8b", "gpu": "h100_sxm"},
    "measure floor": {"bandwidth_gb_per_s": "2000", "tflops": "900"},
    "replay": {"table": "table.json"},
    "report": {"table": "table.json"},
    "compare": {"workload": "load.json"},
    "sweep": {"workload": "load.json"},
    "region": {"mixes": "3"},
}
"""What a command is told beside its required parameters: what it cannot do without, or small."""

SMALL = {"requests": "20", "replications": "1"}
"""Options that keep a run short."""

SIMULATING = ("replay", "compare", "sweep", "equilibrium --simulate", "region --policy")
"""Commands that need them, some only with an option; without they would do nothing."""

ANSWERING = (
    *("equilibrium", "capacity", "region", "solve", "plan", "fleet", "export", "calibrate"),
    *("server show", "server list", "server estimate", "measure floor", "workload from-trace"),
    *("replay", "compare", "sweep", "watch"),
)
"""Commands that are also run on what may be right; the others need a device, or minutes."""

CHOICES = {
    ("solve", "objective"): (*WAIT_OBJECTIVES, SHARP),
    ("plan", "objective"): OBJECTIVES,
    ("export", "metrics_of"): ("vllm", "sglang"),
}
"""Names that an option takes, where a shell offers none."""

LASTING = ("budget_s", "duration_s", "interval_s", "think_s")
"""Times that a command is told to take: a second at most here."""


@dataclass(frozen=True)
class Case:
    """A command line with the files that it is given.

    Attributes:
        allowed: Exit codes that answer it well.
    """

    name: str
    arguments: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    allowed: tuple[int, ...] = REFUSED

    @property
    def line(self) -> str:
        """As it would be typed."""
        return shlex.join(["fluidwait", *(one[:60] for one in self.arguments)])


@dataclass(frozen=True)
class Parameter:
    """An option or argument as a command declares it.

    Attributes:
        names: What a shell offers for it.
    """

    name: str
    flag: str | None
    kind: type
    required: bool
    is_output: bool
    is_folder: bool
    is_switch: bool
    names: tuple[str, ...]

    def typed(self, value: str) -> list[str]:
        """The words that give it a value; a switch has none."""
        if self.flag is None:
            return [value]
        if self.is_switch:
            return [self.flag]
        return [f"{self.flag}={value}"] if self.flag.startswith("--") else [self.flag, value]


def parameters(words: tuple[str, ...]) -> list[Parameter]:
    """What a command takes."""
    command: Any = typer.main.get_command(app)
    assert isinstance(command, LazyGroup)
    for word in words:
        command = command.get_command(None, word)
    declared = inspect.signature(command.callback, eval_str=True).parameters
    found = []
    for one in command.params:
        if one.name not in declared:
            continue
        annotation = declared[one.name].annotation
        said = getattr(annotation, "__metadata__", (None,))[0]
        text = str(getattr(annotation, "__origin__", annotation))
        kinds = {"Path": Path, "float": float, "int": int}
        kind = next((kind for name, kind in kinds.items() if name in text), str)
        found.append(
            Parameter(
                name=one.name,
                flag=max(one.opts, key=len) if one.param_type_name == "option" else None,
                kind=kind,
                required=one.required,
                is_output=bool(getattr(said, "writable", False)),
                is_folder=not getattr(said, "file_okay", True),
                is_switch=bool(getattr(one, "is_flag", False)),
                names=_offered(said),
            )
        )
    return found


def _offered(said: Any) -> tuple[str, ...]:
    offer = getattr(said, "autocompletion", None)
    return tuple(offer("")) if offer else ()


def commands() -> dict[tuple[str, ...], list[Parameter]]:
    """Every command that takes anything, with its parameters; groups by what is below them too."""
    found = {words: parameters(words) for words in all_commands()}
    return {words: given for words, given in found.items() if given}


def cases(seed: int, count: int) -> list[Case]:
    """So many cases, the same for the same seed: each command, each of its options, in turn."""
    rng = random.Random(seed)
    sources = [_of_command(words, given, rng) for words, given in commands().items()]
    taken = itertools.islice(_in_turn(sources), count)
    return list(taken)


def right_cases() -> list[Case]:
    """Every command that answers on what is right, with every name that a shell offers."""
    found = []
    for words, given in commands().items():
        if " ".join(words) not in ANSWERING:
            continue
        named = [{one.name: name} for one in given for name in _chosen_from(words, one)]
        for chosen in ({}, *named):
            line = _line(words, given, chosen)
            found.append(Case(f"{' '.join(words)}: right", line, files_of(), ANSWERED))
    return found


def _chosen_from(words: tuple[str, ...], one: Parameter) -> tuple[str, ...]:
    """Names that are worth a try each; a server is given as a file."""
    return () if one.name == "server" else one.names or CHOICES.get((words[-1], one.name), ())


def _in_turn(sources: list[Iterator[Case]]) -> Iterator[Case]:
    while True:
        for source in sources:
            yield next(source)


def _of_command(
    words: tuple[str, ...], given: list[Parameter], rng: random.Random
) -> Iterator[Case]:
    """Cases of one command without end."""
    kinds = [_bad_values(words, given, rng)]
    if any(_is_read(one) for one in given):
        kinds += [_bad_files(words, given, rng)] * 2
    if any(one.is_output for one in given):
        kinds.append(_bad_outputs(words, given, rng))
    if " ".join(words) in ANSWERING:
        kinds.append(_extremes(words, given, rng))
    while True:
        yield next(rng.choice(kinds))


def _line(
    words: tuple[str, ...], given: list[Parameter], chosen: dict[str, str]
) -> tuple[str, ...]:
    """A command line with its required parameters and the chosen ones."""
    command = " ".join(words)
    values = {one.name: _right(one) for one in given if one.required}
    values |= NEEDED.get(command, {})
    if {command, *(f"{command} --{name}" for name in chosen)} & set(SIMULATING):
        values |= {name: SMALL[name] for name in SMALL if any(one.name == name for one in given)}
    if command == "capacity" and chosen.get("query", "").startswith("slo-"):
        values |= SMALL | ({} if chosen["query"] == "slo-queue" else {"budget_s": "1"})
    if command == "export" and chosen.get("to") in SCALERS:
        values |= {"cold_start_s": "60"}
    if "tokenizer" in chosen:  # which only traces of text need
        values["trace"] = "chats.json"
    values |= chosen
    options, arguments = [], []
    for one in given:
        if one.name in values:
            (options if one.flag else arguments).extend(one.typed(values[one.name]))
    return (*words, *options, "--", *arguments) if arguments else (*words, *options)


def _right(one: Parameter) -> str:
    """A value that a parameter of this name takes."""
    by_name = {
        "server": "server.json",
        "table": "table.json",
        "trace": "tape.csv",
        "rows": "rows.csv",
        "policy": "greedy",
        "to": "vllm",
        "query": "rate",
        "rates": "1",
        "out": "out",
    }
    if one.name in by_name:
        return by_name[one.name]
    return {Path: "load.json", int: "1", float: "1.0"}.get(one.kind, "x")


def _bad_values(
    words: tuple[str, ...], given: list[Parameter], rng: random.Random
) -> Iterator[Case]:
    """Values that no option of their type takes, unknown options, and what is left out."""
    valued = [one for one in given if not one.is_switch]
    while True:
        one = rng.choice(valued) if valued else None
        if one is None or rng.random() < 0.1:
            arguments = (*_line(words, given, {})[: len(words)], f"--no-{rng.randrange(99)}")
            yield Case(f"{' '.join(words)}: unknown option", arguments, files_of())
            continue
        bad = {
            int: ("1e23", "10" * 200, "-" + "9" * 40, "x", "", "1.5", "nan"),
            float: ("nan", "inf", "-inf", "1e400", "x", "", "1,5"),
            str: ("", " ", "\t"),
            Path: ("absent/" + "y" * 300, "y" * 5000, "folder")
            if not one.is_folder
            else ("load.json",),
        }[one.kind]
        value = rng.choice(bad)
        arguments = _line(words, given, {one.name: value})
        yield Case(f"{' '.join(words)}: {one.name}={value[:20]!r}", arguments, files_of())


def _bad_files(
    words: tuple[str, ...], given: list[Parameter], rng: random.Random
) -> Iterator[Case]:
    """Files that cannot be read, and documents that are wrong, in place of right ones."""
    read = [one for one in given if _is_read(one)]
    bases = {"server": SERVERS, "table": TABLES}
    wrong = {one.name: wrong_documents(bases.get(one.name, LOADS), rng) for one in read}
    while True:
        one = rng.choice(read)
        told, data, suffix = rng.choice(
            (
                (*rng.choice(list(BROKEN_JSON.items())), "json"),
                (*rng.choice(list(BROKEN_YAML.items())), "yaml"),
                (*next(wrong[one.name]), "json"),
                (*next(wrong[one.name]), "json"),
            )
        )
        arguments = _line(words, given, {one.name: f"bad.{suffix}"})
        files = files_of(**{f"bad__{suffix}": data})
        yield Case(f"{' '.join(words)}: {one.name}: {told}", arguments, files)


def _is_read(one: Parameter) -> bool:
    """Whether it names a file that is read; weights are looked for when the model is built."""
    if one.name == "checkpoint":
        return False
    return (one.kind is Path and not one.is_output) or one.name == "server"


def _bad_outputs(
    words: tuple[str, ...], given: list[Parameter], rng: random.Random
) -> Iterator[Case]:
    """Outputs that cannot be written, or would overwrite an input."""
    outputs = [one for one in given if one.is_output]
    inputs = [
        _right(one) for one in given if one.required and one.kind is Path and not one.is_output
    ]
    while True:
        one = rng.choice(outputs)
        paths = (
            ["folder", "absent/x.json", "y" * 300, *inputs] if not one.is_folder else ["load.json"]
        )
        path = rng.choice(paths)
        arguments = _line(words, given, {one.name: path})
        yield Case(f"{' '.join(words)}: {one.name} onto {path[:20]}", arguments, files_of())


def _extremes(words: tuple[str, ...], given: list[Parameter], rng: random.Random) -> Iterator[Case]:
    """Documents and numbers of any size: an answer, or a refusal."""
    sources = {
        "load.json": extreme_documents(LOADS, rng),
        "server.json": extreme_documents(SERVERS, rng),
        "table.json": extreme_documents(TABLES, rng),
    }
    used = [name for name in sources if any(name in word for word in _line(words, given, {}))]
    numbers = [one for one in given if one.kind in (int, float) and one.name not in SMALL]
    texts = [
        one for one in given if one.kind is str and not one.is_switch and one.name != "cluster"
    ]
    switches = [one for one in given if one.is_switch]
    named = {one.name: found for one in given if (found := _chosen_from(words, one))}
    while True:
        chosen = {name: rng.choice(names) for name, names in named.items() if rng.random() < 0.6}
        chosen |= {one.name: "yes" for one in switches if rng.random() < 0.08}
        files = files_of()
        told = [f"{name}={value}" for name, value in chosen.items()]
        if used and rng.random() < 0.7:
            name = rng.choice(used)
            what, files[name] = next(sources[name])
            told.append(f"{name}: {what}")
            if words == ("fleet",) and b'"slo"' in files["load.json"]:
                chosen["budget_s"] = "1"
        if numbers and rng.random() < 0.4:
            one = rng.choice([it for it in numbers if it.name != "workers"] or numbers)
            most = 0 if one.name in LASTING else 20
            size = 10 ** rng.uniform(-20, most) * rng.choice((1, 1, -1))
            chosen[one.name] = str(int(size)) if one.kind is int else repr(size)
            told.append(f"{one.name}={chosen[one.name]}")
        if texts and rng.random() < 0.2:
            one = rng.choice(texts)
            chosen[one.name] = rng.choice((*HOSTILE, "greedy:cap=-1", "x:y=z", "1:2:0", "1e9"))
            told.append(f"{one.name}={chosen[one.name]!r}")
        arguments = _line(words, given, chosen)
        yield Case(f"{' '.join(words)}: {'; '.join(told)}", arguments, files, ANSWERED)
