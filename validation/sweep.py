"""Policies × rates on the simulator: interruptible, resumable, one row per configuration.

Results go to an SQLite file, one transaction per configuration (sqlite3: atomic, in the standard
library, readable everywhere): a killed sweep leaves whole rows only, and the next run of the same
sweep continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from fluid.errors import InputError
from fluid.files import require_folder
from validation.compare import PolicyResult, compare
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model

_RESULT = TypeAdapter(PolicyResult)
_SCHEMA = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, label TEXT, result TEXT)"


@dataclass(frozen=True)
class Configuration:
    """One row of a sweep: a policy at a rate, with what makes its result reproducible."""

    policy: ConfiguredPolicy
    rate_per_s: float
    replications: int
    requests: int
    seed: int

    def key(self, model: Model) -> str:
        """Identity of the row: SHA-256 over the configuration and everything the model holds."""
        settings = [
            self.policy.label,
            self.policy.numbers.tolist(),
            self.rate_per_s,
            self.replications,
            self.requests,
            self.seed,
        ]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for array in model:
            digest.update(str(array.dtype).encode() + array.tobytes())
        return digest.hexdigest()


class Store:
    """Finished rows of sweeps in an SQLite file.

    Raises:
        InputError: The file cannot be opened or is something else.
    """

    def __init__(self, path: Path) -> None:
        require_folder(path)
        self.path = path
        try:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise InputError("--resume", str(path), f"a sweep file ({error})") from None

    def find(self, key: str) -> PolicyResult | None:
        """The stored result of a configuration, if it has run."""
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute("SELECT result FROM results WHERE key = ?", (key,))
            row = rows.fetchone()
        return _RESULT.validate_json(row[0]) if row else None

    def add(self, key: str, label: str, result: PolicyResult) -> None:
        """Keep a finished row, whole or not at all."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?)",
                (key, label, _RESULT.dump_json(result).decode()),
            )


def grid(
    policies: Sequence[ConfiguredPolicy],
    rates_per_s: Iterable[float],
    *,
    replications: int,
    requests: int,
    seed: int = 0,
) -> list[Configuration]:
    """Every policy at every rate."""
    return [
        Configuration(policy, rate_per_s, replications, requests, seed)
        for rate_per_s in rates_per_s
        for policy in policies
    ]


def sweep(
    model: Model,
    configurations: Sequence[Configuration],
    store: Store | None = None,
    threads: int | None = None,
    device: str = "cpu",
    on_done: Callable[[], None] | None = None,
) -> list[PolicyResult]:
    """Run the configurations that the store does not hold yet; results in their order.

    Args:
        on_done: Called after each configuration.
    """
    results = []
    for configuration in configurations:
        key = configuration.key(model)
        result = store.find(key) if store else None
        if result is None:
            result = run_one(model, configuration, threads, device)
            if store:
                store.add(key, configuration.policy.label, result)
        results.append(result)
        if on_done:
            on_done()
    return results


def run_one(
    model: Model,
    configuration: Configuration,
    threads: int | None = None,
    device: str = "cpu",
) -> PolicyResult:
    """Simulate one configuration."""
    base_per_s = float(model.constants[0]["rate_per_s"])
    return compare(
        model,
        [configuration.policy],
        replications=configuration.replications,
        requests=configuration.requests,
        seed=configuration.seed,
        rate_scale=configuration.rate_per_s / base_per_s,
        threads=threads,
        device=device,
    )[0]
