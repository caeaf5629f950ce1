"""What a page about a table says: its verdict, figures with intervals, plots, how to repeat them.

Plain data; `fluidwait report` lays it out. A table that is not validated is replayed first, so that
no page goes round without a simulation.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.fields import Validated
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.table import ThresholdTable
from validation.experiments.recovery import Recovery, recovery
from validation.experiments.replay import BASELINES, policy_of, replay, replay_model
from validation.policies import ConfiguredPolicy, parse_policy, policy_label
from validation.report.pictures import TAPE, Picture, Row, report_pictures

_SAME_RATE = 1e-9


@dataclass(frozen=True)
class Effort:
    """Size of the simulations that a report runs itself."""

    replications: int = 10
    requests: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        table: With its validation, also where the file had none.
        replayed: Whether the validation was made for this report.
        rows: The table and what it was compared with at the same rate.
        saturated: Rows of the validation at other rates; a refined table has some at saturation.
        recoveries: From `burst_requests` at one instant, by policy.
        commands: Shell commands that make the figures again, one per line.
    """

    table: ThresholdTable
    equilibrium: Equilibrium
    replayed: bool
    conclusion: str
    holds: bool
    rows: tuple[Row, ...]
    saturated: tuple[Row, ...]
    pictures: tuple[Picture, ...]
    burst_requests: int
    recoveries: tuple[Recovery, ...]
    commands: tuple[str, ...]

    @property
    def validated(self) -> Validated:
        """The simulation behind `rows`."""
        assert self.table.validated is not None
        return self.table.validated


def make_report(
    table: ThresholdTable,
    file: str,
    effort: Effort,
    on_done: Callable[[], None] | None = None,
) -> Report:
    """Gather the page of a table.

    Args:
        file: Name of the table in the commands.
        effort: Of the replay, where the table is not validated, and of the recovery runs.
        on_done: Called after each simulated replication.

    Raises:
        InputError: No replications or requests, or a policy that cannot be simulated.
    """
    replayed = table.validated is None
    if replayed:
        table = _replayed(table, effort, on_done)
    validated = table.validated
    assert validated is not None
    rows, saturated = _rows(table, validated)
    found = equilibrium(table.workload, table.server)
    burst = max(1, math.ceil(boundary_load(table.workload, table.server).population))
    policies = {row.label: policy for row, policy in zip(rows, _policies(table, rows), strict=True)}
    return Report(
        table=table,
        equilibrium=found,
        replayed=replayed,
        conclusion=conclusion(rows),
        holds=rows[0].result.verdict == "stable",
        rows=rows,
        saturated=saturated,
        pictures=tuple(report_pictures(table, validated, rows, policies)),
        burst_requests=burst,
        recoveries=tuple(
            recovery(
                replay_model(table),
                policy,
                burst,
                rate_per_s=rows[0].result.rate_per_s,
                replications=effort.replications,
                requests=effort.requests,
                seed=effort.seed,
                on_done=on_done,
            )
            for policy in policies.values()
        ),
        commands=_commands(table, validated, rows, file, effort),
    )


def simulated_runs(table: ThresholdTable, effort: Effort) -> int:
    """How often `make_report` will call `on_done`."""
    if table.validated is None:
        return 2 * effort.replications * (1 + len(BASELINES))
    return effort.replications * len(_rows(table, table.validated)[0])


def conclusion(rows: Sequence[Row]) -> str:
    """What the simulation says in one sentence, also where the table does not help."""
    own, others = rows[0].result, rows[1:]
    if own.verdict == "undecided":
        return "Undecided: too few requests to tell whether the table holds."
    if own.verdict == "unstable":
        return "The table does not hold at this rate: do not use it there."
    stable = [row for row in others if row.result.verdict == "stable" and row.result.latency_s]
    if not others:
        return "The table holds."
    if not stable:
        return "The table holds; no policy beside it is stable at this rate."
    best = min(stable, key=lambda row: row.result.latency_s.mean if row.result.latency_s else 0.0)
    if own.latency_s is None or best.result.latency_s is None:
        return "The table holds."
    difference = own.latency_s.mean - best.result.latency_s.mean
    if abs(difference) <= own.latency_s.half_width + best.result.latency_s.half_width:
        return (
            f"The table holds; its mean latency and that of {best.label} cannot be told apart: "
            "their intervals overlap."
        )
    share = abs(difference) / best.result.latency_s.mean
    return (
        f"The table holds; its mean latency is {share:.1%} "
        f"{'below' if difference < 0 else 'above'} that of {best.label}."
    )


def _replayed(
    table: ThresholdTable, effort: Effort, on_done: Callable[[], None] | None
) -> ThresholdTable:
    return replay(
        table,
        replications=effort.replications,
        requests=effort.requests,
        seed=effort.seed,
        on_done=on_done,
    ).validated_table()


def _rows(table: ThresholdTable, validated: Validated) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows at the rate of the table's own, and the others."""
    rate_per_s = validated.policies[0].rate_per_s
    named = [
        Row(
            f"this table ({table.policy})" if not index else policy_label(one.policy, one.params),
            one,
        )
        for index, one in enumerate(validated.policies)
    ]
    same = [abs(row.result.rate_per_s / rate_per_s - 1) <= _SAME_RATE for row in named]
    return (
        tuple(row for row, here in zip(named, same, strict=True) if here),
        tuple(row for row, here in zip(named, same, strict=True) if not here),
    )


def _policies(table: ThresholdTable, rows: Sequence[Row]) -> list[ConfiguredPolicy]:
    return [policy_of(table), *(parse_policy(row.label) for row in rows[1:])]


def _commands(
    table: ThresholdTable, validated: Validated, rows: Sequence[Row], file: str, effort: Effort
) -> tuple[str, ...]:
    """Commands that need nothing but the table (and the tape, if it was one)."""
    quoted = shlex.quote(file)
    solve = f"fluidwait solve workload.json --server server.json --policy {table.policy}"
    if table.scheduler != "greedy":
        solve += f" --scheduler {table.scheduler}"
    if table.solver.status == "refined":
        solve += " --budget-s 30"
    check = f"fluidwait replay {quoted}"
    for row in rows[1:]:
        check += f" --policy {shlex.quote(row.label)}"
    rate_per_s = rows[0].result.rate_per_s
    if abs(rate_per_s / table.workload.rate_per_s - 1) > _SAME_RATE:
        check += f" --rate {rate_per_s!r}"
    if validated.arrivals == TAPE:
        check += " --tape tape.csv"
    else:
        check += f" --replications {validated.replications} --requests {validated.requests}"
        if validated.arrivals != "poisson":
            check += f" --arrivals {shlex.quote(validated.arrivals)}"
    extract = (
        f"import json; t = json.load(open({json.dumps(file)})); "
        '[json.dump(t[k], open(k + ".json", "w")) for k in ("workload", "server")]'
    )
    return (
        f"python -c {shlex.quote(extract)}",
        "fluidwait equilibrium workload.json --server server.json",
        f"{solve} -o solved.json",
        f"{check} --seed {validated.seed}",
        f"fluidwait report {quoted} --replications {effort.replications} "
        f"--requests {effort.requests} --seed {effort.seed} -o report.html",
    )
