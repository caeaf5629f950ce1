"""One sentence about a table beside its baselines, the same from runs and from what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluid.server import load_server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from thresholds.fields import Interval, PolicyValidation
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.experiments.conclusion import conclusion_of_validation
from validation.experiments.replay import replay
from validation.report.content import make_report
from validation.simulator.runs import Runs

SERVER = load_server("paper-long-decode")
CHAT = RequestClass(name="chat", rate_per_s=2.0, prefill_tokens=512, decode_tokens=100)


@pytest.fixture(scope="module")
def table() -> ThresholdTable:
    return Paced().solve(Workload(name="chat", classes=(CHAT,)), SERVER)


def row(
    verdict: str,
    mean: float = 10.0,
    half_width: float = 0.1,
    difference: tuple[float, float] | None = None,
) -> PolicyValidation:
    """A row as a table keeps it; `difference` is paired, with its half width."""
    stable = verdict != "unstable"
    kept = None
    if difference is not None:
        kept = Interval(mean=difference[0], half_width=difference[1])
    return PolicyValidation(
        policy="greedy",
        params={},
        rate_per_s=1.0,
        verdict=verdict,  # type: ignore[arg-type]
        latency_s=Interval(mean=mean, half_width=half_width) if stable else None,
        completed_share=Interval(mean=1.0, half_width=0.0),
        evictions_per_request=0.0,
        collapsed_share=0.0,
        latency_difference_s=kept,
    )


NO_DIFFERENCE = "HOLDS, and makes no measurable difference to the best policy beside it"


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [
        (row("undecided"), [row("stable")], "UNDECIDED"),
        (row("unstable"), [row("stable")], "UNSTABLE here"),
        (row("stable"), [row("unstable")], "none of the policies beside it is stable"),
        (row("stable"), [], "The table HOLDS."),
        (row("stable", 8.0), [row("stable", difference=(-2.0, 0.1))], "20.0 % below that of"),
        (row("stable", 12.0), [row("stable", difference=(2.0, 0.1))], "20.0 % ABOVE that of"),
        (row("stable", 9.9), [row("stable", difference=(-0.1, 0.2))], NO_DIFFERENCE + "."),
        # A difference that pairing sees and the intervals do not.
        (row("stable", 9.9), [row("stable", difference=(-0.1, 0.01))], "1.0 % below that of the"),
        # Too small to be told, however sure.
        (row("stable", 9.999), [row("stable", difference=(-0.001, 1e-6))], NO_DIFFERENCE),
        # Tables of 1.0 to 1.2 hold no paired difference.
        (row("stable", 9.9), [row("stable")], NO_DIFFERENCE + " (unpaired)."),
        (row("stable", 8.0), [row("stable")], "stable policy beside it (unpaired)."),
        # The best policy counts, not the first one, and not one that is unstable.
        (
            row("stable", 9.0),
            [row("unstable"), row("stable", 12.0), row("stable", 10.0, difference=(-1.0, 0.1))],
            "10.0 % below",
        ),
    ],
)
def test_what_is_concluded(
    own: PolicyValidation, others: list[PolicyValidation], told: str
) -> None:
    assert told in conclusion_of_validation([own, *others])


@pytest.mark.parametrize(
    ("rate_per_s", "requests", "policies", "told"),
    [
        (2.0, 1500, ["greedy:watermark=0.01"], "no measurable difference"),
        (2.0, 1500, ["greedy:watermark=0.01", "greedy:cap=4"], "no measurable difference"),
        (2.0, 1500, ["greedy:cap=2"], "none of the policies beside it is stable"),
        (2.0, 1500, ["greedy:cap=2", "greedy:cap=4"], "below that of the best"),
        (60.0, 1500, ["greedy:cap=2"], "UNDECIDED"),
        (30.0, 12_000, ["greedy:cap=2"], "UNSTABLE"),
        (2.0, 1500, [], "The table HOLDS."),
    ],
)
def test_a_report_concludes_what_its_replay_did(
    table: ThresholdTable,
    tmp_path: Path,
    rate_per_s: float,
    requests: int,
    policies: list[str],
    told: str,
) -> None:
    """Through the file, where the paired differences are kept."""
    found = replay(table, policies, rate_per_s=rate_per_s, runs=Runs(6, requests))
    found.validated_table.write(tmp_path / "table.json")
    report = make_report(ThresholdTable.read(tmp_path / "table.json"), runs=Runs(1, 100))
    assert report.conclusion == found.conclusion
    assert told in found.conclusion
    assert report.conclusion in report.html()


def test_a_table_keeps_the_paired_differences(table: ThresholdTable) -> None:
    found = replay(table, ["greedy:cap=4", "greedy:cap=2"], runs=Runs(6, 1500))
    validated = found.validated_table.validated
    assert validated is not None
    own, capped, unstable = validated.policies
    assert unstable.verdict == "unstable"
    assert own.latency_difference_s is None
    assert unstable.latency_difference_s is None
    difference = capped.latency_difference_s
    assert difference is not None
    means_s = [np.array(one.latency_means_s) for one in found.results[:2]]
    assert difference.mean == pytest.approx((means_s[0] - means_s[1]).mean())
    assert own.latency_s is not None
    assert capped.latency_s is not None
    assert difference.half_width < own.latency_s.half_width + capped.latency_s.half_width


def test_a_recording_has_no_intervals_and_says_less(table: ThresholdTable, tmp_path: Path) -> None:
    tape = Tape(np.arange(600) / 2.0, np.full(600, 512), np.full(600, 100))
    found = replay(table, ["greedy"], tape=tape)
    assert "The table HOLDS" in found.conclusion
    kept = found.validated_table
    assert kept.validated is not None
    assert all(one.latency_difference_s is None for one in kept.validated.policies)
    report = make_report(kept, runs=Runs(1, 100))
    assert report.conclusion.startswith("The table HOLDS, as does a policy beside it; ")


def test_a_table_of_an_earlier_version_says_that_it_is_unpaired(
    table: ThresholdTable, tmp_path: Path
) -> None:
    found = replay(table, ["greedy:watermark=0.01"], runs=Runs(6, 1500))
    document = found.validated_table.document() | {"schema_version": "1.2"}
    del document["table_sha256"]
    for one in document["validated"]["policies"]:
        del one["latency_difference_s"]
    path = tmp_path / "older.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    report = make_report(ThresholdTable.read(path), runs=Runs(1, 100))
    assert report.conclusion == found.conclusion.removesuffix(".") + " (unpaired)."
