"""Runs the statements one after the other and reports what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fluid.errors import InputError
from fluid.files import write_text
from fluid.result import Block, Result, Table, number
from validation.policies import POLICIES
from validation.theorems import STATEMENTS
from validation.theorems.statement import LEVEL, Effort, Estimate, Finding, Policies, Statement


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

    def __str__(self) -> str:
        statement = self.statement
        return f"{statement.theory} {statement.key}: {self.verdict}, {self.seconds:.1f} s"


@dataclass(frozen=True, repr=False)
class TheoremReport(Result):
    """Statements of the theory, each with a verdict that an experiment could have refuted.

    >>> import fluidwait as fw
    >>> found = fw.theorem_report("quick", keys=["exponent"])
    >>> found.holds, found.conclusion
    (True, 'All 1 statements hold.')
    """

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

    def blocks(self) -> Iterable[Block]:
        """A line per measured figure, and the conclusion."""
        rows = []
        for outcome in self.outcomes:
            key, theory = outcome.statement.key, outcome.statement.theory
            for measure in outcome.finding.measures:
                found, verdict = estimate_text(measure.found), "holds" if measure.holds else "FAILS"
                seen = deviation_text(measure.would_see)
                rows.append((key, theory, measure.name, found, measure.expected, seen, verdict))
                key = theory = ""
        yield Table(
            f"Theorem bench, {self.effort.name}, seed {self.effort.seed}",
            ("statement", "THEORY", "figure", "measured", "expected", "would see", "verdict"),
            tuple(rows),
            left=(0, 1, 2, 3, 4, 5, 6),
            spare=("THEORY", "would see", "expected", "measured"),
        )
        yield (
            f"{self.conclusion} Intervals at {LEVEL:.2%}; where none is given the figure is exact. "
            "An interval that contains a figure does not prove it: a deviation as large as under "
            "“would see” would have failed in 99 of 100 repetitions, smaller ones less often."
        )

    def document(self) -> dict[str, Any]:
        """Every statement with its claim, what it was tried on, its verdict and its figures."""
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

    def frame(self) -> dict[str, list[Any]]:
        """A row per measured figure, with its interval."""
        pairs = [(one.statement, each) for one in self.outcomes for each in one.finding.measures]
        return {
            "statement": [one.key for one, _ in pairs],
            "theory": [one.theory for one, _ in pairs],
            "figure": [each.name for _, each in pairs],
            "value": [each.found.value for _, each in pairs],
            "low": [each.found.low for _, each in pairs],
            "high": [each.found.high for _, each in pairs],
            "expected": [each.expected for _, each in pairs],
            "would_see": [each.would_see for _, each in pairs],
            "holds": [each.holds for _, each in pairs],
        }

    def plot(self, ax: Any = None) -> Any:
        """A panel per statement: measured points with their intervals, expectations as lines.

        Args:
            ax: As many axes as there are statements; None for a new figure.
        """
        from validation.theorems.drawing import draw_plots

        plots = {one.statement.key: one.finding.plot for one in self.outcomes}
        return draw_plots(plots, ax)

    def html(self) -> str:
        """The page: verdicts first, then every statement with its figures and its picture."""
        from fluid.plots.style import save
        from validation.report.page import inline_svg, render_page
        from validation.theorems.drawing import draw_plot

        pictures = {}
        for one in self.outcomes:
            key, draw = one.statement.key, partial(draw_plot, one.finding.plot)
            pictures[key] = inline_svg(key, partial(save, draw))
        return render_page(
            "theorems.html.jinja",
            bench=self,
            pictures=pictures,
            level=LEVEL,
            estimate=estimate_text,
            deviation=deviation_text,
        )

    def write(self, path: str | Path) -> None:
        """Write the page.

        Raises:
            InputError: The folder does not exist, or cannot be written to.
        """
        write_text(path, self.html())


def theorem_report(
    effort: Effort | Literal["quick", "full"] = "full",
    keys: Sequence[str] | None = None,
    *,
    policies: Policies = POLICIES,
    on_done: Callable[[Outcome], None] = lambda _: None,
) -> TheoremReport:
    """Try the statements of THEORY 2–5 on the simulator.

    Args:
        effort: "full" for the record, "quick" for small runs of a minute; or with its seed.
        keys: Statements by their keys (docs/theorems.md); all of them if None.
        policies: The registry; a test may have broken one of them.
        on_done: Called after each statement.

    Raises:
        InputError: No statement of this key.

    >>> import fluidwait as fw
    >>> found = fw.theorem_report("quick", keys=["exponent"])
    >>> set(found.frame()["statement"])
    {'exponent'}
    """
    if not isinstance(effort, Effort):
        effort = Effort(effort)
    chosen = list(STATEMENTS) if keys is None else list(keys)
    for key in chosen:
        if key not in STATEMENTS:
            raise InputError("keys", key, "one of " + ", ".join(STATEMENTS))
    outcomes = []
    for key in chosen:
        statement = STATEMENTS[key]
        begin_s = time.monotonic()
        finding = statement.run(effort, policies)
        outcomes.append(Outcome(statement, finding, time.monotonic() - begin_s))
        on_done(outcomes[-1])
    return TheoremReport(effort, tuple(outcomes))


def estimate_text(found: Estimate) -> str:
    """A figure with its interval, or alone where it is exact."""
    if found.is_exact:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def deviation_text(would_see: float | None) -> str:
    """A deviation that would have been seen, to both sides; empty where there is none."""
    return "" if would_see is None else f"±{number(would_see)}"
