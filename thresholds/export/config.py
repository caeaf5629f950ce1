"""What an engine's own flags can say of a table, and what they cannot."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fluid.stages import class_stages, memory_sums
from thresholds.export.admission import FOLLOWED
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.table import ThresholdTable

Value = int | float | str

LEAST_TOKEN_BUDGET = 2048
"""Token budgets below this cost prefill throughput on every GPU that the engines support."""

_UNPACED_CAP = 0.9
"""Share of the fluid population: the best of the caps where lengths are alike, 98 % of the limit
under vLLM's rules (``python tests/benchmarks/practical_table.py``)."""

QUEUE_S = 60.0
"""Seconds of arrivals, at the largest valid rate, that may queue before requests are refused."""


@dataclass(frozen=True)
class Flag:
    """One flag of an engine; an empty value is a switch without one."""

    name: str
    value: Value
    reason: str


@dataclass(frozen=True)
class EngineConfig:
    """A table in the words of one engine.

    Attributes:
        not_expressible: What the flags leave out, and what is lost by that.
    """

    engine: str
    flags: tuple[Flag, ...]
    not_expressible: tuple[str, ...]


@dataclass(frozen=True)
class Engine:
    """An engine that tables are exported to.

    Attributes:
        translate: A table, and its path where it has one, in the engine's words.
        render: The same as a file that the engine, or a shell, reads.
        every_policy: Whether it takes tables that no serving system can follow.
    """

    name: str
    translate: Callable[[ThresholdTable, str | None], EngineConfig]
    render: Callable[[EngineConfig], str]
    every_policy: bool = False

    def configure(self, table: ThresholdTable, file: str | None) -> EngineConfig:
        """The table for this engine; no flags where it cannot follow the table's policy."""
        if self.every_policy or table.policy in FOLLOWED:
            return self.translate(table, file)
        return classes_unknown(self.name, table)


def classes_unknown(engine: str, table: ThresholdTable) -> EngineConfig:
    """No flags for a policy that sorts requests by what an engine cannot know."""
    lost = f"policy {table.policy}: it holds requests back by class, by output length among others"
    return EngineConfig(engine, (), (f"{lost}, which {engine} does not know",))


def cap_of(table: ThresholdTable) -> int | None:
    """Requests in service at most, if the table caps them."""
    cap = table.params.get("cap_requests")
    return None if cap is None else math.floor(cap)


def pace_of(table: ThresholdTable) -> float | None:
    """Admissions per iteration on average at most, if the table paces them."""
    pace = table.params.get("pace_per_iteration")
    return None if pace is None else float(pace)


def residents(table: ThresholdTable) -> int:
    """Requests that fill the server's memory at their mean KV, Σ λ m / Σ λ S tokens each."""
    workload, server = table.workload, table.server
    rates = np.array([one.rate_per_s for one in workload.classes])
    stages = np.array([class_stages(one, server).count for one in workload.classes], dtype=float)
    held = float(rates @ memory_sums(workload, server)) / float(rates @ stages)
    return math.ceil(server.usable_kv_tokens / held)


def seats(table: ThresholdTable) -> int:
    """Room for requests in service: the cap, or twice what fills the memory on average."""
    cap = cap_of(table)
    return 2 * residents(table) if cap is None else cap


def unpaced_cap(table: ThresholdTable) -> int:
    """The cap that comes closest to a pace where an engine can only cap."""
    load = boundary_load(table.workload, table.server)
    return max(1, math.floor(_UNPACED_CAP * load.population))


def cap_without_pace(table: ThresholdTable) -> tuple[int, str]:
    """Requests in service at most for an engine that cannot pace, and why so many."""
    if cap_of(table) is not None:
        return seats(table), "the table's cap"
    if table.policy == "nested-cap":
        return int(sum(one.threshold for one in table.thresholds)), "the caps of all segments"
    if pace_of(table) is not None:
        why = f"stands in for the pace: {_UNPACED_CAP:g} of the fluid population"
        return unpaced_cap(table), why
    return seats(table), "must not bind: the table has no cap"


def token_budget(table: ThresholdTable) -> int:
    """Tokens per iteration, a power of two: a token for each seat, and one iteration's prompts.

    Those are the longest prompt, and as many mean prompts as the pace lets in.
    """
    rates = [one.rate_per_s for one in table.workload.classes]
    prompts = [one.prefill_tokens for one in table.workload.classes]
    mean = float(np.average(prompts, weights=rates))
    needed = seats(table) + max(prompts) + (pace_of(table) or 0.0) * mean
    return max(LEAST_TOKEN_BUDGET, 1 << math.ceil(math.log2(needed)))


def first_gate(table: ThresholdTable) -> int | None:
    """Requests that literal Nested WAIT waits for, n_1; None for tables that do not wait."""
    if table.policy != "nested-wait":
        return None
    return int(table.thresholds[0].threshold)


def shell_flags(command: str, config: EngineConfig) -> str:
    """A shell script fragment: the command with its flags, each under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines.append(f"# {flag.name}: {flag.reason}")
    words = [f"--{one.name} {_quoted(one.value)}".rstrip() for one in config.flags]
    return "\n".join([*lines, " \\\n  ".join([command, *words])]) + "\n"


def yaml_fields(config: EngineConfig) -> str:
    """A YAML mapping, each field under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines += [f"# {flag.reason}", f"{flag.name}: {flag.value}"]
    return "\n".join(lines) + "\n"


def shell_variables(config: EngineConfig) -> str:
    """Shell variables, each under its reason."""
    lines = _header(config)
    for flag in config.flags:
        lines += [f"# {flag.reason}", f"{flag.name}={_quoted(flag.value)}"]
    return "\n".join(lines) + "\n"


def _header(config: EngineConfig) -> list[str]:
    return [f"# NOT expressible here: {one}" for one in config.not_expressible]


def _quoted(value: Value) -> str:
    return shlex.quote(value) if isinstance(value, str) and value else str(value)
