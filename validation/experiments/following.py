"""How the simulator follows a threshold table: one entry per policy, one per scheduler below it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fluid.errors import InputError
from thresholds.fields import PolicyValidation, Scheduler
from thresholds.limits import Limits
from thresholds.table import ThresholdTable
from validation.policies import POLICIES, ConfiguredPolicy

_NO_CAP = 10**6

SCHEDULERS: dict[Scheduler, Mapping[str, float | str]] = {
    "greedy": {},
    "vllm-v1": {"max_num_seqs": _NO_CAP},
}
"""What is set in a scheduler below a table: vLLM's own cap on sequences is lifted, as the table's
cap is the one that counts."""


def restrained(scheduler: Scheduler, limits: Limits) -> ConfiguredPolicy:
    """A scheduler with the limits of a practical table."""
    given: dict[str, float | None] = {
        "pace": limits.pace_per_iteration,
        "cap": limits.cap_requests,
        "watermark": limits.watermark_fraction,
    }
    values = {name: value for name, value in given.items() if value is not None}
    return POLICIES[scheduler].configure({**values, **SCHEDULERS[scheduler]})


def _limited(table: ThresholdTable) -> ConfiguredPolicy:
    return restrained(table.scheduler, table.limits)


def _by_class(table: ThresholdTable) -> ConfiguredPolicy:
    thresholds = tuple(int(one.threshold) for one in table.thresholds)
    return POLICIES[table.policy].configure({}, thresholds)


def _by_segment(table: ThresholdTable) -> ConfiguredPolicy:
    thresholds = tuple(int(one.threshold) for one in table.thresholds)
    cuts = tuple(int(one.up_to_tokens or 0) for one in table.thresholds)
    return POLICIES[table.policy].configure({}, thresholds, cuts)


FOLLOWED: dict[str, Callable[[ThresholdTable], ConfiguredPolicy]] = {
    "paced": _limited,
    "wait": _by_class,
    "nested-wait": _by_segment,
    "nested-cap": _by_segment,
}
"""The simulator's policy for a table, by the table's policy."""


def policy_of_row(row: PolicyValidation) -> ConfiguredPolicy:
    """The simulator's policy behind a row of a table's validation.

    Raises:
        InputError: A policy that the simulator does not know, or other parameters than it has.
    """
    if row.policy not in POLICIES:
        raise InputError("policy", row.policy, "one of " + ", ".join(POLICIES))
    values: dict[str, float | str] = {}
    tables: dict[str, tuple[int, ...]] = {}
    for name, value in row.params.items():
        if isinstance(value, tuple):
            tables[name] = value
        else:
            values[name] = value
    return POLICIES[row.policy].configure(values, **tables)


def policy_of(table: ThresholdTable) -> ConfiguredPolicy:
    """The simulator's policy that follows the table.

    Raises:
        InputError: The table's policy is not one the simulator knows how to set from a table.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=64, output=20))
    >>> fw.policy_of(fw.solve(load, fw.Server.named("paper-lmsys"))).label.split("=")[0]
    'greedy:pace'
    """
    if table.policy not in FOLLOWED:
        raise InputError("policy", table.policy, "one of " + ", ".join(FOLLOWED))
    return FOLLOWED[table.policy](table)
