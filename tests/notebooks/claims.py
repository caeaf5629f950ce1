"""What the notebooks say of their figures, as assertions on their names after they have run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from thresholds.guaranteed import nested_boundary, wait_boundary

Names = Mapping[str, Any]


def workload_to_thresholds(names: Names) -> None:
    found, table, shown, answer = (names[one] for one in ("found", "table", "shown", "answer"))
    # Curves end before this load: memory is full too often for a law.
    assert found.prediction.latency.refusal is not None
    assert found.workload.rate_per_s > found.prediction.eviction_onset_per_s
    # Alike lengths: memory swings, and the table sets a pace. It holds, where greedy does not.
    assert names["load"].swing > 0.5
    assert table.limits.pace_per_iteration is not None
    own, *others = shown.results
    assert own.verdict == "stable"
    assert {one.verdict for one in others} == {"unstable"}
    assert all(np.mean(one.completed_shares) < 0.9 for one in others)
    assert len(answer["region"]["vertices_per_s"]) == 2
    assert answer["table"]["params"]


def stability_regions(names: Names) -> None:
    region, margins = names["region"], names["margins"]
    outer = region.boundary(len(next(iter(region.guaranteed_per_s.values()))) + 2)[1:-1].sum(axis=1)
    shares = np.array([line.sum(axis=1) / outer for line in region.guaranteed_per_s.values()])
    # Two lines to be seen: inside, apart from the boundary, and apart from each other.
    assert (shares > 0.5).all()
    assert (shares < 1).all()
    assert np.abs(shares[0] - shares[1]).max() > 0.03
    long = type(region)(names["workload"], names["servers"][0])
    assert not wait_boundary(long, 5).any()
    assert not nested_boundary(long, 5).any()
    assert (margins.margins > 0).any()
    assert (margins.margins < 0).any()
    assert (margins.margins[:, :-1] > margins.margins[:, 1:]).all()  # stable on the left
    assert (margins.memory_shares[0] > 0.5).any()  # little memory: more of it helps
    assert (margins.memory_shares[-1] < 0.5).any()


def why_greedy_collapses(names: Names) -> None:
    own, greedy = names["found"].results
    assert (own.verdict, greedy.verdict) == ("stable", "unstable")
    paths = names["paths"]
    assert paths["greedy"].evicted[-1] > 100 * paths["paced"].evicted[-1]
    assert paths["greedy"].waiting[-1] > 100
    assert paths["paced"].waiting[-1] < 1
    # Collapse is vermillion, and nothing else is.
    tipped, delayed = names["tipped"], names["delayed"]
    assert tipped.horizon_s == delayed.horizon_s
    never = np.isnan(tipped.recovery_s)
    assert never.any()
    assert not never[0].any()
    assert not never[:, 0].any()
    assert not np.isnan(delayed.recovery_s).any()
    assert (np.diff(delayed.recovery_s, axis=1) >= 0).all()


def nested_wait(names: Names) -> None:
    buffers = names["buffers"]
    columns = buffers.frame()
    total = np.array(columns["total_tokens"])
    least = int(np.argmin(total))
    assert 0 < least < len(total) - 1
    assert (np.diff(columns["base_tokens"]) < 0).all()
    assert (np.diff(columns["stochastic_buffer_tokens"]) > 0).all()
    assert max(columns["load"][:4]) > 1 > columns["load"][-1]  # pale bars: too few segments


def calibrate(names: Names) -> None:
    found = names["found"]
    rows = found.frame()
    residuals = rows["predicted_s"] / rows["measured_s"] - 1
    assert len(residuals) == len(found.estimate.measurements)
    assert np.median(np.abs(residuals)) < 0.5  # of a machine that may do other things


def own_policy(names: Names) -> None:
    rows = names["found"].results
    evictions = {(one.label, one.rate_per_s): one.evictions_per_request for one in rows}
    learning, greedy, paced = (
        next(label for label, _ in evictions if label.startswith(beginning))
        for beginning in ("learning-cap", "greedy:watermark", "greedy:pace")
    )
    figures = [np.mean(evictions[label, 2.6]) for label in (paced, learning, greedy)]
    assert figures == sorted(figures)
    assert figures[0] == 0


def trace_to_promise(names: Names) -> None:
    largest, balance = names["largest"], names["balance"]
    assert largest.decided
    assert largest.binding_limit == "tpot_s"
    pooled = balance.prediction.latency.pooled
    assert pooled.ttft_s.p99 < 0.5
    assert pooled.tpot_s.p99 < 0.7 * 0.05
    assert 0.4 < largest.rate_per_s / largest.limit_per_s < 0.6
    held = names["held"].frame()
    assert held["ttft_p99_s"][0] < 1.0
    assert held["tpot_p99_s"][0] < 0.05


CLAIMS: dict[str, Callable[[Names], None]] = {
    "01": workload_to_thresholds,
    "02": stability_regions,
    "03": why_greedy_collapses,
    "04": nested_wait,
    "06": calibrate,
    "07": own_policy,
    "08": trace_to_promise,
}
"""By number of a notebook; the assertions of 05 stand in its cells."""


def check(notebook: str, names: Names) -> None:
    claims = CLAIMS.get(notebook[:2])
    if claims is not None:
        claims(names)
