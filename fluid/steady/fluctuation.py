"""Second order: randomness of arrivals and its feedback through the iteration time (THEORY 2.7).

A request adds w_ju seconds to the u-th iteration after its admission. Longer iterations admit
more, who add time themselves: the *response* g^j_u is the total that one class-j request adds u
iterations after it, g^j_u = w_ju + Σ_{v<u} κ_v g^j_{u−1−v} with κ_v = Σ_i λ_i w_iv. Arrivals
are Poisson, so all second moments follow from the responses. No evictions. Where f is not affine
in tokens the same figures come from the chain of iteration times and its slow part (THEORY 9.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.gamma import Gamma
from fluid.result import Block, Result, Table, columns_of, number, seconds
from fluid.server import Server, require_fits
from fluid.stages import Stages, class_stages, linear_stage_seconds
from fluid.steady.intake import intake
from fluid.workload import Workload, warn_of_prefixes

Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-9
"""Responses are followed until they have decayed to this share of their largest value."""

_LONGEST = 1 << 22

KV_LABEL = "KV tokens, mean ± standard deviation"


@dataclass(frozen=True)
class ClassDelay:
    """Second-order mean delays of one class in seconds; TPOT is None with one output token."""

    name: str
    ttft_s: float
    tpot_s: float | None
    latency_s: float


@dataclass(frozen=True, repr=False)
class Fluctuation(Result):
    """Second-order figures of a stable workload under work-conserving service.

    Attributes:
        iteration_time_s: ΔT*.
        iteration_time_sd_s: Standard deviation of the iteration time, √γ_0.
        kv_mean_tokens, kv_sd_tokens: Resident KV per iteration with unlimited memory.
        latency_s, ttft_s: Means over all requests.
        classes: Per class, in the order of the workload.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1000))
    >>> found = fw.fluctuation(load, fw.Server.named("paper-long-decode"))
    >>> print(f"{found.kv_mean_tokens:,.0f} ± {found.kv_sd_tokens:,.0f}")
    50,245 ± 10,882
    """

    workload: Workload
    server: Server
    iteration_time_s: float
    iteration_time_sd_s: float
    kv_mean_tokens: float
    kv_sd_tokens: float
    latency_s: float
    ttft_s: float
    classes: tuple[ClassDelay, ...]

    def overflow_probability(self, capacity_tokens: float) -> float:
        """P(KV > capacity) per iteration: gamma law with this mean and variance."""
        return self._kv().sf(capacity_tokens)

    def kv_tokens_needed(self, probability: float) -> float:
        """Memory that the residents exceed with this probability per iteration.

        Raises:
            InputError: The probability is not between 0 and 1.
        """
        return self._kv().isf(checked_probability(probability))

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        return columns_of(self.classes)

    def blocks(self) -> Iterator[Block]:
        mean, sd = self.iteration_time_s, self.iteration_time_sd_s
        kv = f"{number(self.kv_mean_tokens)} ± {number(self.kv_sd_tokens)}"
        yield Table(
            f"Fluctuations of {self.workload.name} on {self.server.name}",
            ("figure", "value"),
            (
                ("iteration time, mean ± standard deviation", f"{number(mean)} ± {seconds(sd)}"),
                (KV_LABEL, kv),
                ("mean TTFT", seconds(self.ttft_s)),
                ("mean latency", seconds(self.latency_s)),
            ),
        )
        yield Table(
            "Classes",
            ("class", "TTFT s", "TPOT s", "latency s"),
            tuple(
                (one.name, number(one.ttft_s), number(one.tpot_s), number(one.latency_s))
                for one in self.classes
            ),
        )
        yield "Second order, Poisson arrivals, unlimited memory."

    def document(self) -> dict[str, Any]:
        figures = (
            *("iteration_time_s", "iteration_time_sd_s", "kv_mean_tokens", "kv_sd_tokens"),
            *("latency_s", "ttft_s"),
        )
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            **{name: getattr(self, name) for name in figures},
            "classes": [asdict(one) for one in self.classes],
        }

    def _kv(self) -> Gamma:
        return Gamma(self.kv_mean_tokens, self.kv_sd_tokens)


def checked_probability(probability: float) -> float:
    """The probability.

    Raises:
        InputError: It is not between 0 and 1.
    """
    if not 0 < probability < 1:
        raise InputError("probability", probability, "between 0 and 1")
    return probability


def fluctuation(workload: Workload, server: Server) -> Fluctuation:
    """Mean delays and variance of resident KV, memory unlimited (THEORY 2.7).

    In closed form where f is affine in tokens; elsewhere by the laws of THEORY 9, whose slow part
    equals it there.

    Raises:
        InputError: A request does not fit into memory.
        InfeasibleError: ρ ≥ 1, so that there is no equilibrium to fluctuate around.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1000))
    >>> found = fw.fluctuation(load, fw.Server.named("paper-long-decode"))
    >>> found.overflow_probability(137_000) < found.overflow_probability(50_000)
    True
    """
    from scipy.signal import fftconvolve

    require_fits(workload, server)
    warn_of_prefixes(workload)
    tau = server.iteration_time
    if not tau.is_affine:
        return _of_chain(workload, server)
    rates = workload.rates_per_s
    stages = [class_stages(one, server) for one in workload.classes]
    added = [linear_stage_seconds(one, server, tau.last_slope_s) for one in stages]
    utilisation = float(sum(rate * a.sum() for rate, a in zip(rates, added, strict=True)))
    if utilisation >= 1:
        raise InfeasibleError(
            f"utilisation {utilisation:.3f} is not below 1",
            "compute",
            f"multiply all rates by less than {1 / utilisation:.4g}",
        )
    mean_s = tau.overhead_s / (1 - utilisation)
    kappa = _summed(added, rates)
    feedback = _feedback(kappa)
    responses = [fftconvolve(one, feedback) for one in added]
    covariance = mean_s * _autocovariance(responses, rates)
    classes = tuple(
        _delays(one.name, stage, r, covariance, mean_s)
        for one, stage, r in zip(workload.classes, stages, responses, strict=True)
    )
    shares = rates / rates.sum()
    return Fluctuation(
        workload=workload,
        server=server,
        iteration_time_s=mean_s,
        iteration_time_sd_s=math.sqrt(covariance[0]),
        kv_mean_tokens=mean_s * float(sum(rates * [one.memory_sum for one in stages])),
        kv_sd_tokens=math.sqrt(mean_s * _kv_variance_rate(stages, responses, rates)),
        latency_s=float(shares @ [one.latency_s for one in classes]),
        ttft_s=float(shares @ [one.ttft_s for one in classes]),
        classes=classes,
    )


def _of_chain(workload: Workload, server: Server) -> Fluctuation:
    """The same for any f (THEORY 9.2)."""
    # Their kernels are slow to import.
    from fluid.steady.latency.load import Load
    from fluid.steady.latency.whole import solve_whole

    start_s = intake(workload, server).least_balance_s()
    if start_s is None:
        raise InfeasibleError(
            "the load brings more work than the server can do", "compute", "lower the rates"
        )
    load = Load.of(workload, server)
    solved = solve_whole(load, start_s)
    gaps = load.later - load.first_output
    classes = tuple(
        ClassDelay(one.name, float(ttft_s), float(rest_s / gap) if gap else None, float(latency_s))
        for one, (ttft_s, rest_s, latency_s), gap in zip(
            workload.classes, solved.stage_s, gaps, strict=True
        )
    )
    return Fluctuation(
        workload=workload,
        server=server,
        iteration_time_s=solved.mean_s,
        iteration_time_sd_s=math.sqrt(solved.variance_s2),
        kv_mean_tokens=solved.kv_mean_tokens,
        kv_sd_tokens=solved.slow.kv_held_sd_tokens,
        latency_s=float(load.shares @ solved.stage_s[:, 2]),
        ttft_s=float(load.shares @ solved.stage_s[:, 0]),
        classes=classes,
    )


def _summed(parts: list[Floats], rates: Floats) -> Floats:
    """Σ_j λ_j x_j(u) over sequences of different lengths."""
    total = np.zeros(max(map(len, parts)))
    for rate, part in zip(rates, parts, strict=True):
        total[: len(part)] += rate * part
    return total


def _feedback(kappa: Floats) -> Floats:
    """g with g_u = 1[u = 0] + Σ_{v<u} κ_v g_{u−1−v}, long enough to have died out.

    Every response is the request's own seconds convolved with it, g^j = w_j * g. Its generating
    function is 1/(1 − z·κ(z)), taken back by FFT: what has not died out folds into the result, so
    that the length is doubled until nothing has.
    """
    length = 1 << (4 * len(kappa)).bit_length()
    while True:
        delayed = np.fft.rfft(np.concatenate([[0.0], kappa]), length)
        found = np.asarray(np.fft.irfft(1.0 / (1.0 - delayed), length))
        if found[-len(kappa) :].max() <= _NEGLIGIBLE * found.max() or length >= _LONGEST:
            return found
        length *= 2


def _autocovariance(responses: list[Floats], rates: Floats) -> Floats:
    """Σ_j λ_j Σ_u g^j_u g^j_{u+s} for s = 0, 1, …, by FFT."""
    length = max(map(len, responses))
    size = 1 << (2 * length - 1).bit_length()
    power = sum(
        rate * np.abs(np.fft.rfft(r, size)) ** 2 for rate, r in zip(rates, responses, strict=True)
    )
    return np.asarray(np.fft.irfft(power, size)[:length])


def _delays(
    name: str, stages: Stages, response: Floats, covariance: Floats, mean_s: float
) -> ClassDelay:
    """D(k) = (k + ½)ΔT* + Σ_{u<k} r_u + (½γ_0 + Σ_{s=1}^k γ_s)/ΔT* at the first and last token."""

    def through(k: int) -> float:
        variance = covariance[0] / 2 + covariance[1 : k + 1].sum()
        return float((k + 0.5) * mean_s + response[:k].sum() + variance / mean_s)

    first = stages.first_output + 1
    ttft_s, latency_s = through(first), through(stages.count)
    gaps = stages.count - first
    return ClassDelay(name, ttft_s, (latency_s - ttft_s) / gaps if gaps else None, latency_s)


def _kv_variance_rate(stages: list[Stages], responses: list[Floats], rates: Floats) -> float:
    """Σ_j λ_j Σ_u (H^j_u)², H^j the KV that one class-j request and its followers hold."""
    from scipy.signal import fftconvolve

    held = [one.held_kv_tokens.astype(float) for one in stages]
    all_held = _summed(held, rates)
    total = 0.0
    for rate, own, response in zip(rates, held, responses, strict=True):
        # Followers come one iteration after the one that they were delayed into.
        h = np.concatenate([[0.0], fftconvolve(all_held, response)])
        h[: len(own)] += own
        total += float(rate * (h**2).sum())
    return total
