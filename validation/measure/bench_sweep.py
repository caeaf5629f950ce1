"""Calibration from a running server: results of ``vllm bench serve`` at several concurrencies.

Nothing in such a result says what a batch consisted of. So the engine is simulated with as many
clients, and three factors on an estimated server of the same model are fitted: on its overhead, on
what tokens cost, and on what reading KV costs. Least squares on the logarithms of TPOT, requests
per second and TTFT, under a prior on the factors; the last counts little, as it holds what client
and network take as well. A factor of which the results say less than the prior does is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.files import read_document, write_document
from fluid.iteration import IterationTime
from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import Server
from fluid.workload import Requests, Workload
from validation.experiments.compare import compare
from validation.measure.composition import Floats
from validation.simulator.runs import Runs
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.traffic import Traffic

FACTORS = ("overhead", "per_token", "per_kv_token")
PRIOR_SD = 0.5
"""Of the logarithm of a factor: an estimate is nearly always within 2.7 times of the truth."""
TOLERANCES = {"tpot_s": 0.03, "requests_per_s": 0.03, "ttft_s": 0.3}
"""Standard deviation of the logarithm of what is measured, less what a server can explain."""
_SAYS_LITTLE = 0.6
"""Share of the prior's deviation that a factor must fall below to count as found."""
_SPREAD = (0.9, 1.0, 1.1)
"""Lengths around their mean: with one length all clients would stay in step for ever."""
_STEP = 0.08
_WAVES = 12


@dataclass(frozen=True)
class SweepPoint:
    """One result.

    Attributes:
        clients: `max_concurrency`.
        prompt_tokens, output_tokens: Means.
        tpot_s, requests_per_s, ttft_s: As measured, means.
    """

    file: str
    clients: int
    prompt_tokens: int
    output_tokens: int
    tpot_s: float
    requests_per_s: float
    ttft_s: float

    @property
    def measured(self) -> Floats:
        """Figures in the order of `TOLERANCES`, shape (3,)."""
        return np.array([getattr(self, name) for name in TOLERANCES])


def read_sweep(folder: str | Path) -> tuple[SweepPoint, ...]:
    """Results in a folder, one JSON file each, by file name.

    Raises:
        InputError: Fewer than two files, one that is no such result, or one without a fixed number
            of clients.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError("", str(folder), "a folder of results of vllm bench serve")
    files = sorted(path.glob("*.json"))
    if len(files) < 2:
        raise InputError("", f"{len(files)} JSON files", "at least 2 results", str(path))
    return tuple(_point(one) for one in files)


def _point(path: Path) -> SweepPoint:
    document = read_document(path)
    if not isinstance(document, dict):
        raise InputError("", "no mapping", "the JSON of vllm bench serve", str(path))
    names = ("max_concurrency", "completed", "total_input_tokens", "total_output_tokens")
    clients, completed, prompts, outputs = (_positive(document, one, path) for one in names)
    return SweepPoint(
        file=path.name,
        clients=round(clients),
        prompt_tokens=max(1, round(prompts / completed)),
        output_tokens=max(2, round(outputs / completed)),
        tpot_s=_positive(document, "mean_tpot_ms", path) / 1e3,
        requests_per_s=_positive(document, "request_throughput", path),
        ttft_s=_positive(document, "mean_ttft_ms", path) / 1e3,
    )


def _positive(document: dict[str, Any], name: str, path: Path) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(name, value, "a number above 0", str(path))
    return float(value)


@dataclass(frozen=True, repr=False, eq=False)
class BenchCalibration(Result):
    """An estimated server, made to fit results of a running one.

    Attributes:
        server: What the other commands read.
        factors: By name, from `FACTORS`: (value, low, high), 95 %.
        unidentified: Factors of which the results say too little; they stay near the prior.
        points: What was measured.
        fitted: What the server says of it, shape (points, 3), in the order of `TOLERANCES`.

    >>> import fluidwait as fw
    >>> fw.BenchCalibration.__name__
    'BenchCalibration'
    """

    server: Server
    factors: dict[str, tuple[float, float, float]]
    unidentified: tuple[str, ...]
    points: tuple[SweepPoint, ...]
    fitted: Floats

    def write(self, path: str | Path) -> None:
        """Write the server file.

        Raises:
            InputError: The folder does not exist, or cannot be written to.
        """
        write_document(self.server.document(), path)

    @property
    def errors(self) -> Floats:
        """Fitted ÷ measured − 1, shape (points, 3)."""
        return np.asarray(self.fitted / np.array([one.measured for one in self.points]) - 1)

    def blocks(self) -> Iterable[Block]:
        yield Table(
            f"Factors on the prior, {self.server.name}",
            ("factor", "value", "from", "to"),
            tuple((name, *map(number, values)) for name, values in self.factors.items()),
        )
        yield Table(
            "Fitted against measured",
            ("file", "clients", "TPOT", "requests/s", "TTFT"),
            tuple(
                (one.file, str(one.clients), *(percent(value, 1) for value in errors))
                for one, errors in zip(self.points, self.errors.tolist(), strict=True)
            ),
        )
        for name in self.unidentified:
            yield Note(f"{name}: these results say too little, it stays near the prior")

    def document(self) -> dict[str, Any]:
        return {
            "server": self.server.document(),
            "factors": {name: list(values) for name, values in self.factors.items()},
            "unidentified": list(self.unidentified),
            "points": [
                asdict(one) | {"errors": dict(zip(TOLERANCES, errors, strict=True))}
                for one, errors in zip(self.points, self.errors.tolist(), strict=True)
            ],
        }


def calibrate_from_bench(
    folder: str | Path,
    prior: Server,
    *,
    name: str | None = None,
    kv_tokens: int | None = None,
    seed: int = 0,
) -> BenchCalibration:
    """The prior with the factors that results of ``vllm bench serve`` ask for.

    Args:
        folder: One JSON file for each concurrency, lengths may differ.
        prior: An estimated server of the same model, with the engine's limits.
        name: Of the server; that of the prior if None.
        kv_tokens: KV tokens of the engine's log; the prior's if None.

    Raises:
        InputError: As `read_sweep`, or requests that do not fit into the prior's memory.
    """
    from scipy.optimize import least_squares

    points = read_sweep(folder)
    if kv_tokens is not None:
        prior = prior.model_copy(update={"kv_capacity_tokens": kv_tokens})
    measured = np.log([one.measured for one in points])
    tolerance = np.array(list(TOLERANCES.values()))

    def residuals(logs: Floats) -> Floats:
        said = np.log(_simulated(points, scaled(prior, np.exp(logs)), seed))
        return np.concatenate([((said - measured) / tolerance).ravel(), logs / PRIOR_SD])

    found = least_squares(
        residuals,
        np.zeros(len(FACTORS)),
        diff_step=np.full(len(FACTORS), _STEP),
        x_scale=0.3,
        max_nfev=10,
    )
    # Where the fit is worse than its tolerances, they were too narrow.
    excess = max(1.0, 2 * found.cost / max(measured.size - len(FACTORS), 1))
    jacobian = np.asarray(found.jac, dtype=float)
    deviations = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)) * excess)
    ends = np.exp(found.x + 1.96 * np.outer([0, -1, 1], deviations)).T
    little = np.minimum(deviations, PRIOR_SD) > _SAYS_LITTLE * PRIOR_SD
    server = scaled(prior, ends[:, 0])
    words = ", ".join(
        f"{factor} × {value:.3g}" for factor, value in zip(FACTORS, ends[:, 0], strict=True)
    )
    source = (
        f"{prior.source}; then fitted by fluidwait calibrate to {len(points)} results of vllm "
        f"bench serve at {points[0].clients} to {points[-1].clients} clients: {words}"
    )
    named = {"source": source, "name": name or prior.name}
    return BenchCalibration(
        server=server.model_copy(update=named),
        factors={
            one: (values[0], values[1], values[2])
            for one, values in zip(FACTORS, ends.tolist(), strict=True)
        },
        unidentified=tuple(one for one, flag in zip(FACTORS, little, strict=True) if flag),
        points=points,
        fitted=_simulated(points, server, seed),
    )


def scaled(server: Server, factors: Sequence[float] | Floats) -> Server:
    """The server with its overhead, its cost of tokens and that of KV times these."""
    overhead, token, kv = (float(one) for one in factors)
    tau = server.iteration_time
    floor_s = tau.overhead_s
    time = IterationTime(
        tokens_knots=tau.tokens_knots,
        seconds_knots=tuple(
            overhead * min(one, floor_s) + token * max(one - floor_s, 0.0)
            for one in tau.seconds_knots
        ),
        per_kv_token_s=kv * tau.per_kv_token_s,
        per_prefill_token_s=token * tau.per_prefill_token_s,
        per_decode_request_s=token * tau.per_decode_request_s,
        per_prefill_token_sq_s=token * tau.per_prefill_token_sq_s,
        per_prefill_context_token_s=kv * tau.per_prefill_context_token_s,
    )
    return server.model_copy(update={"iteration_time": time})


def _simulated(points: Sequence[SweepPoint], server: Server, seed: int) -> Floats:
    """What the server does with these clients, shape (points, 3)."""
    found = []
    for one in points:
        mix = {
            f"{share:g}": Requests(
                1.0,
                max(1, round(share * one.prompt_tokens)),
                max(2, round(share * one.output_tokens)),
            )
            for share in _SPREAD
        }
        result = compare(
            Workload.of("sweep", **mix),
            server,
            "vllm-v1",
            traffic=Traffic(clients=Clients(one.clients)),
            runs=Runs(1, max(_WAVES * one.clients, 60), seed),
        ).results[0]
        assert result.tpot_s is not None
        assert result.ttft_s is not None
        found.append([result.tpot_s.mean, result.completed_per_s, result.ttft_s.mean])
    return np.array(found)
