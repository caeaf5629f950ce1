"""What a simulation says about a table beside its baselines, in one sentence.

`replay` and `report` both say it: the one from the runs, the other from what a table keeps of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fluid.result import percent
from thresholds.fields import Interval as TableInterval
from thresholds.fields import PolicyValidation
from validation.experiments.simulate import PolicyResult, latency_difference
from validation.simulator.metrics import Interval

_NOTICEABLE = 5e-4
"""Differences of the mean latency below this share are told as none."""


@dataclass(frozen=True)
class Evidence:
    """What the conclusion needs to know of a policy.

    Attributes:
        latency_s: Mean with its interval; None where it does not exist, or was not kept.
        difference_s: Mean latency of the table less that of this policy, paired over replications;
            None for the table itself, where it does not exist, or was not kept.
    """

    verdict: str
    latency_s: Interval | None
    difference_s: Interval | None


def conclusion_of_results(results: Sequence[PolicyResult]) -> str:
    """The conclusion from simulated results, the table's own first."""
    return conclusion([_of_result(one, results[0]) for one in results])


def conclusion_of_validation(rows: Sequence[PolicyValidation]) -> str:
    """The conclusion from what a table keeps, its own row first; all at one rate."""
    return conclusion(
        [
            Evidence(
                one.verdict,
                _of_table(one.latency_s),
                _of_table(one.latency_difference_s),
            )
            for one in rows
        ]
    )


def conclusion(evidence: Sequence[Evidence]) -> str:
    """What the figures say, without flattery: also when the table does not help."""
    own, *others = evidence
    if own.verdict == "undecided":
        return "UNDECIDED: too few requests to tell whether the table holds."
    if own.verdict == "unstable":
        return "The table is UNSTABLE here: do not use it at this rate."
    if own.verdict != "stable":
        return _without_verdict(own, others)
    if not others:
        return "The table HOLDS."
    stable = [one for one in others if one.verdict == "stable"]
    if not stable:
        return "The table HOLDS; none of the policies beside it is stable at this rate."
    known = [(one.latency_s.mean, one) for one in stable if one.latency_s]
    if own.latency_s is None or not known:
        return "The table HOLDS, as does a policy beside it; their mean latencies are not kept."
    best_s, best = min(known, key=lambda one: one[0])
    ratio = own.latency_s.mean / best_s
    how = "same arrivals, paired" if best.difference_s else "unpaired"
    if _cannot_be_told_apart(own, best) or abs(ratio - 1) < _NOTICEABLE:
        unpaired = "" if best.difference_s else " (unpaired)"
        return (
            "The table HOLDS, and makes no measurable difference to the best policy beside it"
            f"{unpaired}."
        )
    better = "below" if ratio < 1 else "ABOVE"
    return (
        f"The table HOLDS; its mean latency is {percent(abs(ratio - 1))} {better} that of the best "
        f"stable policy beside it ({how})."
    )


def _without_verdict(own: Evidence, others: Sequence[Evidence]) -> str:
    """What can be said where the backlog cannot grow, whatever the policy."""
    known = [one for one in others if one.latency_s and one.difference_s]
    if own.latency_s is None or not known:
        return f"No verdict ({own.verdict}): see the figures."
    best = min(known, key=lambda one: one.latency_s.mean if one.latency_s else 0.0)
    assert best.latency_s is not None
    if _cannot_be_told_apart(own, best):
        how = "that cannot be told from"
    else:
        ratio = own.latency_s.mean / best.latency_s.mean
        how = f"{percent(abs(ratio - 1))} {'below' if ratio < 1 else 'ABOVE'}"
    return (
        f"No verdict ({own.verdict}); the table's mean latency is {how} that of the best policy "
        "beside it."
    )


def _of_result(result: PolicyResult, own: PolicyResult) -> Evidence:
    spread = result.latency_s
    latency_s = None
    if spread is not None:
        width_s = float("nan") if spread.half_width is None else spread.half_width
        latency_s = Interval(spread.mean, width_s)
    difference_s = None if result is own else latency_difference(own, result)
    return Evidence(result.verdict, latency_s, difference_s)


def _of_table(kept: TableInterval | None) -> Interval | None:
    return None if kept is None else Interval(kept.mean, kept.half_width)


def _cannot_be_told_apart(own: Evidence, other: Evidence) -> bool:
    """Whether the difference may be zero; without it, whether the intervals overlap."""
    if other.difference_s is not None:
        return other.difference_s.low <= 0 <= other.difference_s.high
    assert own.latency_s is not None
    assert other.latency_s is not None
    return own.latency_s.low <= other.latency_s.high and other.latency_s.low <= own.latency_s.high
