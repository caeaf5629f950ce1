"""Second order: randomness of arrivals and its feedback through the iteration time (THEORY 2.7).

A request adds a_j(u) seconds to the u-th iteration after its admission. Longer iterations admit
more, who add time themselves: the *response* r^j_u is the total that one class-j request adds u
iterations after it, r^j_u = a_j(u) + Σ_{v<u} κ_v r^j_{u−1−v} with κ_v = Σ_i λ_i a_i(v). Arrivals
are Poisson, so all second moments follow from the responses. Affine servers, no evictions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Result, Table, columns_of, number, percent, seconds
from fluid.server import Server, require_fits
from fluid.stages import Stages, class_stages, linear_stage_seconds
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

Floats = NDArray[np.float64]

_NEGLIGIBLE = 1e-9
"""Responses are followed until they have decayed to this share of their largest value."""

_LONGEST = 1 << 22

KV_LABEL = "KV tokens, mean ± standard deviation"

_LEAST_SHARE = 1e-4
_HALVINGS = 8
"""The onset of evictions is sought from this share of the fluid limit on, ever closer to it, as
responses grow without bound there."""


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
        return float(self._kv().sf(capacity_tokens))

    def kv_tokens_needed(self, probability: float) -> float:
        """Memory that the residents exceed with this probability per iteration.

        Raises:
            InputError: The probability is not between 0 and 1.
        """
        return float(self._kv().isf(_checked(probability)))

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

    def _kv(self) -> Any:
        from scipy.stats import gamma

        shape = (self.kv_mean_tokens / self.kv_sd_tokens) ** 2
        return gamma(shape, scale=self.kv_sd_tokens**2 / self.kv_mean_tokens)


@dataclass(frozen=True)
class Overflow:
    """When memory overflows: second-order figures at a workload's own rate (THEORY 2.7).

    All but the onset are those of unlimited memory.

    Attributes:
        probability: Share of iterations that may exceed the memory, as asked.
        overflow_probability: Share of iterations that would exceed the server's memory.
        kv_tokens_needed: Memory that `probability` of the iterations exceed.
        eviction_onset_per_s: Total rate at which `probability` of them exceed the server's memory.
    """

    probability: float
    kv_mean_tokens: float
    kv_sd_tokens: float
    overflow_probability: float
    kv_tokens_needed: float
    eviction_onset_per_s: float
    latency_s: float
    ttft_s: float

    def table(self) -> Table:
        """The figures as text."""
        share = percent(self.probability, 2)
        kv = f"{number(self.kv_mean_tokens)} ± {number(self.kv_sd_tokens)}"
        return Table(
            "Fluctuations (Poisson arrivals, unlimited memory)",
            ("figure", "value"),
            (
                (KV_LABEL, kv),
                ("iterations that would exceed C", percent(self.overflow_probability, 2)),
                (f"KV exceeded in {share} of iterations", number(self.kv_tokens_needed)),
                (f"rate at which {share} exceed C", f"{number(self.eviction_onset_per_s)} /s"),
                ("mean TTFT", seconds(self.ttft_s)),
                ("mean latency", seconds(self.latency_s)),
            ),
        )


def overflow(workload: Workload, server: Server, probability: float) -> Overflow:
    """What is known of overflows without simulation.

    Raises:
        InputError: As `fluctuation`, or the probability is not between 0 and 1.
        InfeasibleError: As `fluctuation`.
    """
    onset_per_s = eviction_onset_per_s(workload, server, probability)
    here = fluctuation(workload, server)
    return Overflow(
        probability=probability,
        kv_mean_tokens=here.kv_mean_tokens,
        kv_sd_tokens=here.kv_sd_tokens,
        overflow_probability=here.overflow_probability(server.usable_kv_tokens),
        kv_tokens_needed=here.kv_tokens_needed(probability),
        eviction_onset_per_s=onset_per_s,
        latency_s=here.latency_s,
        ttft_s=here.ttft_s,
    )


def eviction_onset_per_s(workload: Workload, server: Server, probability: float) -> float:
    """Total rate of the mix at which residents exceed the memory with this probability.

    Below it greedy admission hardly evicts, whatever its watermark; per iteration, THEORY 2.7.

    Raises:
        InputError: As `fluctuation`, or the probability is not between 0 and 1.
    """
    from scipy.optimize import brentq

    _checked(probability)
    capacity = server.usable_kv_tokens
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s

    def excess(share: float) -> float:
        found = fluctuation(workload.at_rate(share * limit_per_s), server)
        # Compared as quantiles: the probability itself is flat at both ends.
        return found.kv_tokens_needed(probability) / capacity - 1

    shares = [_LEAST_SHARE, *(1 - 0.5**k for k in range(1, _HALVINGS))]
    if excess(shares[0]) >= 0:
        return 0.0
    for low, high in itertools.pairwise(shares):
        if excess(high) > 0:
            return float(brentq(excess, low, high, xtol=1e-4)) * limit_per_s
    return limit_per_s


def _checked(probability: float) -> float:
    if not 0 < probability < 1:
        raise InputError("probability", probability, "between 0 and 1")
    return probability


def fluctuation(workload: Workload, server: Server) -> Fluctuation:
    """Mean delays and variance of resident KV, memory unlimited (THEORY 2.7).

    Raises:
        InputError: The server is not affine in tokens, or a request does not fit into memory.
        InfeasibleError: ρ ≥ 1, so that there is no equilibrium to fluctuate around.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1000))
    >>> found = fw.fluctuation(load, fw.Server.named("paper-long-decode"))
    >>> found.overflow_probability(137_000) < found.overflow_probability(50_000)
    True
    """
    from scipy.signal import fftconvolve

    require_fits(workload, server)
    tau = server.iteration_time
    if not tau.is_affine:
        raise InputError(
            "iteration_time", f"{len(tau.tokens_knots)} knots", "f affine in tokens (THEORY 2.7)"
        )
    rates = np.array([one.rate_per_s for one in workload.classes])
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


def _summed(parts: list[Floats], rates: Floats) -> Floats:
    """Σ_j λ_j x_j(u) over sequences of different lengths."""
    total = np.zeros(max(map(len, parts)))
    for rate, part in zip(rates, parts, strict=True):
        total[: len(part)] += rate * part
    return total


def _feedback(kappa: Floats) -> Floats:
    """g with g_u = 1[u = 0] + Σ_{v<u} κ_v g_{u−1−v}, long enough to have died out.

    Every response is the request's own seconds convolved with it, r^j = a_j * g. Its generating
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
    """Σ_j λ_j Σ_u r^j_u r^j_{u+s} for s = 0, 1, …, by FFT."""
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
    """Σ_j λ_j Σ_u (h^j_u)², h^j the KV that one class-j request and its followers hold."""
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
