"""What a page about a table says: its verdict, figures with intervals, plots, how to repeat them.

A table that is not validated is replayed first, so that no page goes round without a simulation.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluid.files import write_text
from fluid.result import Block, Result, Table
from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.fields import PredictedLatency, Validated
from thresholds.labels import policy_label
from thresholds.limits import PARAMETER_MEANINGS
from thresholds.prediction import predicted_latency
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.table import ThresholdTable
from validation.experiments.conclusion import conclusion_of_validation
from validation.experiments.following import policy_of, policy_of_row
from validation.experiments.paths import WatchedRun
from validation.experiments.recovery import Recovery, recovery
from validation.experiments.replay import BASELINES, TAPE, replay
from validation.experiments.simulate import samples
from validation.experiments.watch import median_replication, watch
from validation.policies import ConfiguredPolicy
from validation.report.page import render_page
from validation.report.pictures import Row, report_pictures
from validation.report.prediction import prediction_words, side_by_side
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

_SAME_RATE = 1e-9


@dataclass(frozen=True, repr=False)
class Report(Result):
    """Everything on a page about a table.

    Attributes:
        table: With its validation, also where the file had none.
        replayed: Whether the validation was made for this report.
        rows: The table and what it was compared with at the same rate.
        saturated: Rows of the validation at other rates; a refined table has some at saturation.
        watched: A median run of `rows`.
        recoveries: From `burst_requests` at one instant, by policy.
        commands: Shell commands that make the figures again, one per line.
        law: Times that the latency laws predict at the rate of `rows`.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.make_report(fw.solve(load, server), runs=fw.Runs(4, 1_500))
    >>> found.conclusion
    'The table HOLDS, and makes no measurable difference to the best policy beside it.'
    >>> found.commands[1]
    'fluidwait equilibrium workload.json --server server.json'
    """

    table: ThresholdTable
    equilibrium: Equilibrium
    replayed: bool
    rows: tuple[Row, ...]
    saturated: tuple[Row, ...]
    watched: WatchedRun
    burst_requests: int
    recoveries: tuple[Recovery, ...]
    commands: tuple[str, ...]
    law: PredictedLatency

    @property
    def side_by_side(self) -> Table:
        """Predicted and simulated times with their differences."""
        return side_by_side(self.law, self.rows)

    @property
    def prediction_words(self) -> str:
        """For whom the predicted times hold and how far, or why there are none."""
        return prediction_words(self.law, self.validated.arrivals)

    @property
    def validated(self) -> Validated:
        """The simulation behind `rows`."""
        assert self.table.validated is not None
        return self.table.validated

    @property
    def conclusion(self) -> str:
        """What the simulation says in one sentence."""
        return conclusion_of_validation([row.result for row in self.rows])

    @property
    def holds(self) -> bool:
        """Whether the table is stable."""
        return self.rows[0].result.verdict == "stable"

    def blocks(self) -> Iterator[Block]:
        yield self.side_by_side
        yield self.prediction_words
        yield self.conclusion

    def document(self) -> dict[str, Any]:
        return {
            "conclusion": self.conclusion,
            "holds": self.holds,
            "table": self.table.document(),
            "law": self.law.model_dump(mode="json"),
            "recoveries": [asdict(one) for one in self.recoveries],
            "commands": list(self.commands),
        }

    def frame(self) -> dict[str, list[Any]]:
        """Figures by name, one entry per policy at the table's rate; None where there is none."""
        results = [row.result for row in self.rows]
        return {
            "label": [row.label for row in self.rows],
            "verdict": [one.verdict for one in results],
            "completed_share": [one.completed_share.mean for one in results],
            "latency_s": [one.latency_s and one.latency_s.mean for one in results],
            "evictions_per_request": [one.evictions_per_request for one in results],
            "recovered_share": [one.recovered_share for one in self.recoveries],
            "recovery_s": [one.recovery_s for one in self.recoveries],
        }

    def html(self) -> str:
        """The page, which needs nothing from the network."""
        return render_page(
            "report.html.jinja",
            report=self,
            table=self.table,
            fluid=self.equilibrium,
            fluid_verdict=self.equilibrium.sentence,
            meanings=PARAMETER_MEANINGS,
            pictures=report_pictures(
                self.equilibrium,
                self.validated,
                self.rows,
                self.watched,
                _process(self.validated),
            ),
        )

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all.

        Raises:
            InputError: The folder does not exist.
        """
        write_text(path, self.html())


def make_report(
    table: ThresholdTable,
    *,
    file: str = "table.json",
    runs: Runs = Runs(10, 10_000),
    on_done: Callable[[], None] | None = None,
) -> Report:
    """Gather the page of a table.

    Args:
        file: Name of the table in the commands.
        runs: Of the replay, where the table is not validated, and of the recovery runs.
        on_done: Called after each simulated replication.

    Raises:
        InputError: A policy that cannot be simulated.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> table = fw.solve(load, fw.Server.named("paper-long-decode"))
    >>> fw.make_report(table, runs=fw.Runs(replications=2, requests=300)).replayed
    True
    """
    if table.validated is not None:
        return _gathered(table, runs, file, None, on_done)
    found = replay(table, runs=runs, on_done=on_done)
    return _gathered(found.validated_table, runs, file, found.watched, on_done)


def simulated_runs(table: ThresholdTable, runs: Runs) -> int:
    """How often `make_report` will call `on_done`."""
    if table.validated is None:
        return 2 * runs.replications * (1 + len(BASELINES))
    return runs.replications * len(_rows(table, table.validated)[0])


def _gathered(
    table: ThresholdTable,
    runs: Runs,
    file: str,
    watched: WatchedRun | None,
    on_done: Callable[[], None] | None,
) -> Report:
    """
    Args:
        table: With its validation.
        watched: A run of it, where the validation was made just now.
    """
    assert table.validated is not None
    rows, saturated = _rows(table, table.validated)
    policies = [policy_of(table), *(policy_of_row(row.result) for row in rows[1:])]
    rate_per_s = rows[0].result.rate_per_s
    law = predicted_latency(table, rate_per_s)
    burst = max(1, math.ceil(boundary_load(table.workload, table.server).population))
    return Report(
        table=table,
        equilibrium=equilibrium(table.workload, table.server, scheduler=law.scheduler),
        replayed=watched is not None,
        rows=rows,
        saturated=saturated,
        watched=watched or _watched(table, table.validated, policies, rate_per_s),
        burst_requests=burst,
        recoveries=tuple(
            recovery(
                table.workload,
                table.server,
                policy,
                burst,
                rate_per_s=rate_per_s,
                runs=runs,
                on_done=on_done,
            )
            for policy in policies
        ),
        commands=_commands(table, table.validated, rows, file, runs),
        law=law,
    )


def _watched(
    table: ThresholdTable,
    validated: Validated,
    policies: Sequence[ConfiguredPolicy],
    rate_per_s: float,
) -> WatchedRun:
    """A run of the validation, for which one policy is simulated again to find its median."""
    model = poisson_model(table.workload, table.server, _process(validated))
    runs = Runs(validated.replications, validated.requests, validated.seed)
    (first,) = samples(model, policies[:2][-1], runs, rate_per_s)
    return watch(
        model,
        policies,
        median_replication(first.replications),
        requests=runs.requests,
        seed=runs.seed,
        rate_per_s=rate_per_s,
    )


def _process(validated: Validated) -> str:
    """How requests arrive in the watched run: Poisson in place of a recording."""
    return "poisson" if validated.arrivals == TAPE else validated.arrivals


def _rows(table: ThresholdTable, validated: Validated) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows at the rate of the table's own, and the others."""
    rate_per_s = validated.policies[0].rate_per_s
    named = [
        Row(
            f"this table ({table.policy})" if not index else one.label,
            one,
        )
        for index, one in enumerate(validated.policies)
    ]
    same = [abs(row.result.rate_per_s / rate_per_s - 1) <= _SAME_RATE for row in named]
    return (
        tuple(row for row, here in zip(named, same, strict=True) if here),
        tuple(row for row, here in zip(named, same, strict=True) if not here),
    )


def _commands(
    table: ThresholdTable, validated: Validated, rows: Sequence[Row], file: str, runs: Runs
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
        label = policy_label(row.result.policy, row.result.params, exact=True)
        check += f" --policy {shlex.quote(label)}"
    rate_per_s = rows[0].result.rate_per_s
    if abs(rate_per_s / table.workload.rate_per_s - 1) > _SAME_RATE:
        check += f" --rate {rate_per_s!r}"
    if validated.arrivals == TAPE:
        check += " --tape tape.csv"
    else:
        check += f" --replications {validated.replications} --requests {validated.requests}"
        if validated.arrivals != "poisson":
            check += f" --arrivals {shlex.quote(validated.arrivals)}"
        check += f" --seed {validated.seed}"
    extract = (
        f"import json; t = json.load(open({json.dumps(file)})); "
        '[json.dump(t[k], open(k + ".json", "w")) for k in ("workload", "server")]'
    )
    return (
        f"python -c {shlex.quote(extract)}",
        "fluidwait equilibrium workload.json --server server.json",
        f"{solve} -o solved.json",
        check,
        f"fluidwait report {quoted} --replications {runs.replications} "
        f"--requests {runs.requests} --seed {runs.seed} -o report.html",
    )
