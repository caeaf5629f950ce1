"""Runs the statements one after the other and gathers what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from validation.policies import POLICIES
from validation.theorems.statement import LEVEL, Effort, Finding, Policies, Statement


@dataclass(frozen=True)
class Outcome:
    """One statement and what its experiment found, in `seconds` of wall time."""

    statement: Statement
    finding: Finding
    seconds: float

    @property
    def verdict(self) -> str:
        """ "holds" or "fails"."""
        return "holds" if self.finding.holds else "fails"


@dataclass(frozen=True)
class Bench:
    """Outcomes of a run of the bench."""

    effort: Effort
    outcomes: tuple[Outcome, ...]

    @property
    def holds(self) -> bool:
        """Whether every statement holds."""
        return all(one.finding.holds for one in self.outcomes)

    @property
    def conclusion(self) -> str:
        """The result in one sentence."""
        failed = [one.statement.key for one in self.outcomes if not one.finding.holds]
        if not failed:
            return f"All {len(self.outcomes)} statements hold."
        return f"{len(failed)} of {len(self.outcomes)} statements fail: {', '.join(failed)}."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "holds": self.holds,
            "effort": self.effort.name,
            "seed": self.effort.seed,
            "confidence_level": LEVEL,
            "statements": [
                {
                    "key": one.statement.key,
                    "theory": one.statement.theory,
                    "claim": one.statement.claim,
                    "tried": one.statement.tried,
                    "verdict": one.verdict,
                    "seconds": round(one.seconds, 3),
                    "measures": [measure.as_dict() for measure in one.finding.measures],
                }
                for one in self.outcomes
            ],
        }


def run_bench(
    effort: Effort,
    statements: Sequence[Statement],
    policies: Policies = POLICIES,
    on_done: Callable[[Outcome], None] | None = None,
) -> Bench:
    """Try the statements.

    Args:
        policies: The registry; a test may have broken one of them.
        on_done: Called after each statement.
    """
    outcomes = []
    for statement in statements:
        begin_s = time.monotonic()
        finding = statement.run(effort, policies)
        outcome = Outcome(statement, finding, time.monotonic() - begin_s)
        outcomes.append(outcome)
        if on_done:
            on_done(outcome)
    return Bench(effort, tuple(outcomes))
