"""Configurations and where they run: one row each, those that a store holds not again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fluid.errors import ClusterError, InputError
from validation.experiments.simulate import PolicyResult, simulate
from validation.experiments.store import Store
from validation.policies import ConfiguredPolicy
from validation.simulator.compiling import source_digest
from validation.simulator.model import Model
from validation.simulator.runs import Runs

MOST_ROWS = 1_000_000
"""They are held in memory, some kilobytes each."""


@dataclass(frozen=True)
class Configuration:
    """One row: a policy at a rate, with what makes its result reproducible."""

    policy: ConfiguredPolicy
    rate_per_s: float
    runs: Runs

    def key(self, model: str) -> str:
        """Identity of the row: SHA-256 over the configuration, the model and the simulator's code.

        Devices give the same rows.

        Args:
            model: The model's digest (`model_digest`).
        """
        settings = [
            source_digest(),
            model,
            self.policy.label,
            self.policy.numbers.tolist(),
            self.rate_per_s,
            self.runs.replications,
            self.runs.requests,
            self.runs.seed,
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def grid(
    policies: Sequence[ConfiguredPolicy], rates_per_s: Sequence[float], runs: Runs, seeds: int = 1
) -> list[Configuration]:
    """Every policy at every rate under each of `seeds` seeds from that of the runs on.

    Raises:
        InputError: More than `MOST_ROWS`.
    """
    row_count(policies, rates_per_s, seeds)
    return [
        Configuration(policy, rate_per_s, replace(runs, seed=seed))
        for rate_per_s in rates_per_s
        for policy in policies
        for seed in range(runs.seed, runs.seed + seeds)
    ]


def row_count(
    policies: Sequence[ConfiguredPolicy], rates_per_s: Sequence[float] | None, seeds: int
) -> int:
    """How many rows a `grid` has; one rate where None.

    Raises:
        InputError: More than `MOST_ROWS`.
    """
    count = len(policies) * (1 if rates_per_s is None else len(rates_per_s)) * seeds
    if count > MOST_ROWS:
        raise InputError("policies × rates × seeds", count, f"at most {MOST_ROWS:,} rows")
    return count


Runner = Callable[[Model, Sequence[Configuration]], Iterable[tuple[int, PolicyResult]]]
"""Where configurations run: (model, configurations) → (position, result) as they finish."""


@dataclass(frozen=True)
class Local:
    """Runs configurations in this process, one after another.

    Attributes:
        threads: Of the CPU, for the replications of a configuration; all of its cores if None.
    """

    threads: int | None = None

    def __call__(
        self, model: Model, configurations: Sequence[Configuration]
    ) -> Iterator[tuple[int, PolicyResult]]:
        for position, configuration in enumerate(configurations):
            yield position, run_one(model, configuration, self.threads)


LOCAL = Local()


def model_digest(model: Model) -> str:
    """SHA-256 over everything the model holds."""
    digest = hashlib.sha256()
    for array in model:
        digest.update(str(array.dtype).encode() + array.tobytes())
    return digest.hexdigest()


def run_rows(
    model: Model,
    configurations: Sequence[Configuration],
    store: Store | None = None,
    *,
    runner: Runner = LOCAL,
    on_done: Callable[[], None] | None = None,
) -> list[PolicyResult]:
    """Run the configurations that the store does not hold yet; results in their order.

    Args:
        runner: Where they run; the results do not depend on it.
        on_done: Called after each configuration.

    Raises:
        InputError: A configuration that cannot run.
        ClusterError: The runner lost its cluster; the rows so far are in the store.
    """
    digest = model_digest(model)
    keys = [configuration.key(digest) for configuration in configurations]
    results: dict[str, PolicyResult] = {}
    missing: dict[str, Configuration] = {}
    for key, configuration in zip(keys, configurations, strict=True):
        found = None if store is None else store.find(key)
        if found is None:
            missing[key] = configuration
        else:
            results[key] = found
    advance = on_done or (lambda: None)
    for _ in range(len(keys) - len(missing)):
        advance()
    missing_keys = list(missing)
    try:
        for position, result in runner(model, list(missing.values())):
            key = missing_keys[position]
            results[key] = result
            if store is not None:
                store.add(key, result, model=digest, seed=missing[key].runs.seed)
            advance()
    except ClusterError as error:
        if store is None:
            raise
        kept = f"{len(store)} rows are kept in {store.path}"
        raise ClusterError(f"{error}; {kept}: start again to continue from them") from None
    return [results[key] for key in keys]


def run_one(model: Model, configuration: Configuration, threads: int | None = None) -> PolicyResult:
    """Simulate one configuration."""
    rate_per_s, runs = configuration.rate_per_s, configuration.runs
    return simulate(model, [configuration.policy], runs, rate_per_s, threads=threads)[0]
