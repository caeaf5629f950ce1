"""What an engine's own flags can say of a table, and what they cannot."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from fluid.errors import InputError
from fluid.result import Block, Result, printable
from thresholds.export.view import TableView
from thresholds.fields import PolicyValidation, TableFields

Value = int | float | str


@dataclass(frozen=True)
class Flag:
    """One flag of an engine; an empty value is a switch without one."""

    name: str
    value: Value
    reason: str


@dataclass(frozen=True, repr=False)
class EngineConfig(Result):
    """A table in the words of one engine; printed, it is a file that the engine, or a shell, reads.

    Attributes:
        not_expressible: What the flags leave out, and what is lost by that.
        form: How the engine reads them.
    """

    engine: str
    flags: tuple[Flag, ...]
    not_expressible: tuple[str, ...]
    form: Callable[[EngineConfig], str] = field(compare=False)

    @property
    def text(self) -> str:
        """The file, with each reason as a comment."""
        return self.form(self)

    def blocks(self) -> Iterator[Block]:
        """The file as it is."""
        yield self.text.rstrip("\n")

    def document(self) -> dict[str, Any]:
        """Flags with their reasons, and what they leave out."""
        return {
            "engine": self.engine,
            "flags": [asdict(one) for one in self.flags],
            "not_expressible": list(self.not_expressible),
        }

    def frame(self) -> dict[str, list[Any]]:
        """One row per flag."""
        return {
            "name": [one.name for one in self.flags],
            "value": [one.value for one in self.flags],
            "reason": [one.reason for one in self.flags],
        }


def measured(one: PolicyValidation) -> str:
    """What a policy did in a table's validation, in words."""
    latency = "" if one.latency_s is None else f", mean latency {one.latency_s.mean:.4g} s"
    return f"{one.verdict}{latency}, {one.evictions_per_request:.3g} evictions a request"


Words = tuple[tuple[Flag, ...], tuple[str, ...]]
"""Flags, and what they leave out."""


@dataclass(frozen=True)
class Engine:
    """An engine that tables are exported to.

    Attributes:
        translate: A table in the engine's words.
        form: The same as a file that the engine, or a shell, reads.
        every_policy: Whether it takes tables that no serving system can follow.
        has_scheduler_class: Whether a class of this project can follow tables inside it.
    """

    name: str
    translate: Callable[[TableView], Words]
    form: Callable[[EngineConfig], str]
    every_policy: bool = False
    has_scheduler_class: bool = False

    def configure(
        self, table: TableFields, file: str | None = None, *, flags_only: bool = False
    ) -> EngineConfig:
        """The table for this engine; no flags where it cannot follow the table's policy.

        Args:
            file: Where the table lies, for engines that read it themselves.
            flags_only: The engine's own flags, without the scheduler class.

        Raises:
            InputError: `flags_only` of an engine that has no scheduler class anyway.
        """
        if flags_only and not self.has_scheduler_class:
            allowed = f"an engine with a scheduler class of ours; {self.name} has flags only anyway"
            raise InputError("flags_only", True, allowed)
        return self.of_view(TableView(table, file, flags_only))

    def of_view(self, view: TableView) -> EngineConfig:
        """The same of a table whose sizes other engines need too."""
        if self.every_policy or view.rule.followed:
            return EngineConfig(self.name, *self.translate(view), self.form)
        lost = (
            f"policy {view.table.policy}: it holds requests back by class, by output length among "
            f"others, which {self.name} does not know"
        )
        return EngineConfig(self.name, (), (lost,), self.form)


def shell_flags(command: str, config: EngineConfig) -> str:
    """A shell script fragment: the command with its flags, each under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines.append(_comment(f"{flag.name}: {flag.reason}"))
    words = [f"--{one.name} {_quoted(one.value)}".rstrip() for one in config.flags]
    return "\n".join([*lines, " \\\n  ".join([command, *words])]) + "\n"


def yaml_fields(config: EngineConfig) -> str:
    """A YAML mapping, each field under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines += [_comment(flag.reason), f"{flag.name}: {flag.value}"]
    return "\n".join(lines) + "\n"


def shell_variables(config: EngineConfig) -> str:
    """Shell variables, each under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines += [_comment(flag.reason), f"{flag.name}={_quoted(flag.value)}"]
    return "\n".join(lines) + "\n"


def _header(config: EngineConfig) -> list[str]:
    return [_comment(f"NOT expressible here: {one}") for one in config.not_expressible]


def _comment(text: str) -> str:
    """One line that a shell skips, whatever the text holds."""
    return "# " + printable(" ".join(text.split()))


def _quoted(value: Value) -> str:
    return shlex.quote(str(value)) if value != "" else ""
