"""What is left of a race's winner when every flag has to show what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from validation.experiments.planning.race import Course, Tried, tried
from validation.experiments.planning.space import Setting
from validation.simulator.metrics import Interval
from validation.simulator.runs import Runs

SIMPLEST_FIRST = ("pace", "long_prefill_token_threshold")
"""Given up first: a pace needs a scheduler class of ours."""

NEGLIGIBLE = 0.002
"""A flag that is worth less than this, on average, and not for certain anything, is left out."""

CHECKED = 20
"""Replications of a check."""


@dataclass(frozen=True)
class Worth:
    """What a flag, or all of them, are worth.

    Attributes:
        name: Of the parameter; "policy" for the engine's rule itself.
        value: As set, and `usual` as the engine has it.
        gain: In the objective, as a share, with the 95 % interval of the paired difference.
    """

    name: str
    value: float | str
    usual: float | str
    gain: Interval


def pared(
    course: Course,
    winner: Setting,
    default: Setting,
    runs: Runs,
    rate_per_s: float,
    on_done: Callable[[], None],
) -> tuple[Setting, dict[str, Interval]]:
    """The winner without the flags that are not worth anything; what the others are worth.

    On fresh arrivals: the winner of many looks better than it is on those that it won.
    """
    fresh = replace(runs, seed=runs.seed + 1, replications=CHECKED)

    def worth(names: list[str]) -> dict[str, Interval]:
        others = [_reset(kept, name, default) for name in names]
        first, *rest = tried(
            course.model, [kept, *others], fresh, rate_per_s, course.quantile is not None
        )
        on_done()
        each = zip(names, rest, strict=True)
        return {name: first.better_by(one, course.objective) for name, one in each}

    kept = winner
    found: dict[str, Interval] = {}
    while names := _names(kept, default):
        found = worth(names)
        dropped = next((name for name in names if _is_nothing(found[name])), None)
        if dropped is None:
            return kept, found
        kept = _reset(kept, dropped, default)
    return kept, {}


def _names(setting: Setting, default: Setting) -> list[str]:
    """What is not as in the engine, the first to be given up first."""
    own = [name for name, _ in setting.values]
    simple = [name for name in SIMPLEST_FIRST if name in own]
    rest = [name for name in own if name not in simple]
    return [*simple, *rest, *(["policy"] if setting.policy != default.policy else [])]


def _reset(setting: Setting, name: str, default: Setting) -> Setting:
    return Setting(default.policy, setting.values) if name == "policy" else setting.without(name)


def _is_nothing(gain: Interval) -> bool:
    return gain.mean <= NEGLIGIBLE and gain.low <= 0


def compared(
    course: Course, setting: Setting, default: Setting, runs: Runs, rate_per_s: float
) -> tuple[Tried, Tried, Interval]:
    """A setting beside the engine's defaults on arrivals that nothing was chosen by."""
    fresh = replace(runs, seed=runs.seed + 2, replications=CHECKED)
    settings = [setting, default] if setting != default else [setting]
    found = tried(course.model, settings, fresh, rate_per_s, course.quantile is not None)
    return found[0], found[-1], found[0].better_by(found[-1], course.objective)
