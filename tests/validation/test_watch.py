"""The run that a picture shows is one of those that the table counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fluid.server import load_server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from thresholds.solvers.paced.solver import Paced
from validation.experiments.following import policy_of
from validation.experiments.paths import MOST_POINTS, counted, thinned
from validation.experiments.replay import replay
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.arrivals import as_arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

SERVER = load_server("paper-long-decode")
CHAT = RequestClass(name="chat", rate_per_s=2.0, prefill_tokens=512, decode_tokens=100)
TABLE = Paced().solve(Workload(name="chat", classes=(CHAT,)), SERVER)
TAPE = Tape(np.arange(300) / 3.0, np.full(300, 400), np.full(300, 50))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate_per_s": 14.0, "runs": Runs(5, 900, seed=3)},
        {"arrivals": "gamma:cv=2", "runs": Runs(5, 900)},
        {"tape": TAPE},
        {"tape": TAPE, "rate_per_s": 9.0},
    ],
    ids=str,
)
def test_the_picture_of_a_replay_is_of_its_own_runs(settings: Mapping[str, Any]) -> None:
    given = {"runs": Runs(5, 900), **settings}
    found = replay(TABLE, ["greedy:cap=3"], **given)
    watched, own, beside = found.watched, *found.results
    share = beside.completed_shares[watched.replication]
    assert share == sorted(beside.completed_shares)[len(beside.completed_shares) // 2]
    load = given.get("tape") or TABLE.workload
    model = model_of(load, SERVER, given.get("arrivals"))
    scale = own.rate_per_s / model.rate_per_s
    for policy, path in zip(
        (policy_of(TABLE), parse_policy("greedy:cap=3")), watched.paths, strict=True
    ):
        job = cpu.Job(policy, watched.replication, given["runs"].seed, scale)
        trace = cpu.run_traced(model, job, own.requests)
        end_s = trace.arrived_at_s[int(0.8 * own.requests)]
        assert watched.end_s == end_s
        shown = trace.series[trace.series[:, 0] <= end_s]
        assert path.time_s == thinned(shown[:, 0])
        assert path.waiting_requests == thinned(shown[:, 3])
        assert max(path.kv_share) <= 1
        assert path.completed[-1] == (trace.completed_at_s <= end_s).sum()
        assert (watched.arrived_at_s, watched.arrived) == counted(trace.arrived_at_s, end_s)
        assert len(path.time_s) <= MOST_POINTS
    assert found.arrivals == (
        "tape" if "tape" in given else as_arrivals(given.get("arrivals")).label
    )


def test_a_traced_run_of_known_length_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, job = model_of(TABLE.workload, SERVER), cpu.Job(parse_policy("greedy"), 1)
    known = cpu.run(model, [job], 300)[0].iterations
    plain = cpu.run_traced(model, job, 300)
    runs: list[int] = []
    genuine = cpu._simulate
    monkeypatch.setattr(cpu, "_simulate", lambda *one: (runs.append(1), genuine(*one)))
    for iterations, expected in ((known, 1), (known + 7, 1), (known - 7, 2), (None, 2)):
        runs.clear()
        again = cpu.run_traced(model, job, 300, iterations)
        assert len(runs) == expected
        np.testing.assert_array_equal(again.series, plain.series)
        np.testing.assert_array_equal(again.completed_at_s, plain.completed_at_s)


def test_thinned_points_keep_both_ends() -> None:
    values = np.arange(5000.0)
    points = thinned(values)
    assert len(points) == MOST_POINTS
    assert (points[0], points[-1]) == (0.0, 4999.0)
    assert thinned(values[:10]) == tuple(values[:10])
    assert counted(np.array([3.0, 1.0, np.nan, 9.0]), 5.0) == ((1.0, 3.0), (1.0, 2.0))
