"""A threshold table beside greedy admission: does it hold, and what does it cost?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluid.errors import InputError
from fluid.traces.tape import Tape
from thresholds.fields import Validated
from thresholds.table import ThresholdTable
from validation.experiments.compare import PolicyResult, compare
from validation.experiments.evaluate import policy_validation, restrained
from validation.policies import POLICIES, ConfiguredPolicy, parse_policy
from validation.simulator.arrivals import Arrivals
from validation.simulator.model import Model, poisson_model, tape_model

BASELINES = ("greedy:watermark=0.01", "greedy:watermark=0.05")
"""What a table is compared with unless told otherwise: work-conserving admission."""


@dataclass(frozen=True)
class Replay:
    """Results of one replay, the table's own policy first.

    Attributes:
        arrivals: How requests came, as `thresholds.fields.Validated` has it.
    """

    table: ThresholdTable
    results: tuple[PolicyResult, ...]
    seed: int
    arrivals: str = "poisson"

    def validated_table(self) -> ThresholdTable:
        """The table with this replay as its validation."""
        validated = Validated(
            replications=self.results[0].replications,
            requests=self.results[0].requests,
            seed=self.seed,
            policies=tuple(
                policy_validation(one, self.results[0] if index else None)
                for index, one in enumerate(self.results)
            ),
            arrivals=self.arrivals,
        )
        return self.table.model_copy(update={"validated": validated})


def policy_of(table: ThresholdTable) -> ConfiguredPolicy:
    """The simulator's policy that follows the table.

    Raises:
        InputError: The table's policy is not one the simulator knows how to set from a table.
    """
    if table.policy == "paced":
        return restrained(table.scheduler, table.limits)
    if table.policy == "wait":
        return POLICIES["wait"].configure({}, tuple(int(t.threshold) for t in table.thresholds))
    if table.policy in ("nested-wait", "nested-cap"):
        thresholds = tuple(int(one.threshold) for one in table.thresholds)
        cuts = tuple(int(one.up_to_tokens or 0) for one in table.thresholds)
        return POLICIES[table.policy].configure({}, thresholds, cuts)
    raise InputError("policy", table.policy, "paced, wait, nested-wait or nested-cap")


def replay(
    table: ThresholdTable,
    *,
    baselines: Sequence[str] = BASELINES,
    tape: Tape | None = None,
    arrivals: Arrivals | None = None,
    replications: int = 20,
    requests: int = 10_000,
    seed: int = 0,
    rate_scale: float = 1.0,
    device: str = "cpu",
    on_done: Callable[[], None] | None = None,
) -> Replay:
    """Simulate the table's policy and the baselines on the same arrivals.

    Args:
        tape: Recorded arrivals in place of those of the table's own workload.
        arrivals: How that workload arrives; Poisson where None.
        rate_scale: Multiplies the arrival rate.
        device: "cpu", "cuda" or "auto".

    Raises:
        InputError: An unknown baseline, a tape together with `arrivals`, or a literal WAIT table on
            a tape, whose requests belong to no class of the table.
    """
    own = policy_of(table)
    if tape is not None and own.policy.per_class and len(table.thresholds) > 1:
        raise InputError("tape", "requests without classes", "a table of policy paced")
    policies = [own, *(parse_policy(one) for one in baselines)]
    results = compare(
        replay_model(table, tape, arrivals),
        policies,
        replications=replications,
        requests=requests,
        seed=seed,
        rate_scale=rate_scale,
        device=device,
        on_done=on_done,
    )
    process = arrivals.label if arrivals else "poisson"
    return Replay(table, tuple(results), seed, "tape" if tape else process)


def replay_model(
    table: ThresholdTable, tape: Tape | None = None, arrivals: Arrivals | None = None
) -> Model:
    """What the simulator runs on: the tape if there is one, else the table's workload.

    Raises:
        InputError: Both a tape and a kind of arrivals.
    """
    if tape is None:
        return poisson_model(table.workload, table.server, arrivals)
    if arrivals is not None:
        raise InputError("arrivals", arrivals.label, "none beside a tape, which has its own")
    return tape_model(tape, table.server)
