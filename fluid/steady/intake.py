"""Expected iteration time as a function of the intake, the one curve behind THEORY 2.

Let every iteration take in what arrives in y seconds (the *intake*): class j brings λ_j·y new
prompts and holds λ_j·y requests at each later stage. T(y) is the expected time of such an
iteration; it never decreases: where f falls, the least function above it that does not takes its
place. Equilibria are the points y = T(y), the workload times α is in balance where α = y/T(y), and
memory is y·Σ λ_j m_j, so that it is full at y_C = C/Σ λ_j m_j.

Three forms of the token part E[f(tokens)]: "closed-form" (f affine, exact), "poisson" (new prompts
are Poisson, decodes at their mean) and "mean" (f of the mean composition), THEORY 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import StageSums, stage_sums
from fluid.steady.prompt_law import PromptLaw
from fluid.workload import Workload, warn_of_prefixes

Floats = NDArray[np.float64]
MOST_LATTICE_TOKENS = 1 << 17
"""Of the last knot up to which the law of the tokens is summed; beyond it few vary by a share that
matters, and the sums would take seconds and gigabytes."""

_NEGLIGIBLE = 33.0
"""−ln of the probability of more tokens than a lattice holds, 5e-15."""

Method = Literal["closed-form", "poisson", "mean"]
Limit = Literal["memory", "max_num_batched_tokens", "max_num_seqs"]

TokenSeconds = Callable[[float, Floats], Floats]
"""(intake in seconds, extra tokens, any shape) → E[f(tokens of the intake + extra)] in seconds."""

_RESOLUTION, _COARSEST = 1e-3, 0.3
"""Least relative step of the search for the smallest solution of y = T(y); after `_FINE_STEPS` it
grows by a tenth each time, to the second at most."""

_FINE_STEPS = 50


@dataclass(frozen=True)
class Flow:
    """Tokens and requests that one second of intake brings into an iteration.

    Attributes:
        rates_per_s: λ_j, shape (m,).
        prompt_tokens: l_j, shape (m,).
        decodes: Decode stages of each class, shape (m,).
    """

    rates_per_s: Floats
    prompt_tokens: NDArray[np.int64]
    decodes: Floats

    @cached_property
    def decodes_per_s(self) -> float:
        """Decoding requests in the iteration per second of intake."""
        return float(self.rates_per_s @ self.decodes)

    @cached_property
    def tokens_per_s(self) -> float:
        """Tokens computed in the iteration per second of intake."""
        return float(self.rates_per_s @ self.prompt_tokens) + self.decodes_per_s

    @cached_property
    def squares_per_s(self) -> float:
        """Σ λ_j l_j²: variance of the prompt tokens per second of intake."""
        return float(self.rates_per_s @ self.prompt_tokens.astype(float) ** 2)

    def may_bring(self, prompt_tokens: Floats, intake_s: Floats) -> NDArray[np.bool_]:
        """Whether these prompt tokens are within seven deviations of what the intake brings."""
        mean = (self.tokens_per_s - self.decodes_per_s) * intake_s
        most = float(self.prompt_tokens.max())
        return np.abs(prompt_tokens - mean) <= 7 * np.sqrt(self.squares_per_s * intake_s) + most

    def seconds_above(self, tokens: float, deviations: float) -> float:
        """Intake beyond which the tokens stay above `tokens` up to so many deviations."""
        squares = self.squares_per_s
        spread = deviations * math.sqrt(squares)
        rate = self.tokens_per_s
        return ((spread + math.sqrt(spread**2 + 4 * rate * tokens)) / (2 * rate)) ** 2


@dataclass(frozen=True, eq=False)
class Added:
    """Seconds that one more request adds to the iterations it is in.

    Attributes:
        prefill_s: Stage 0 of each class, shape (m,).
        first_s: All stages up to the one that emits the first output token, shape (m,).
        request_s: w_j, all stages, shape (m,).
    """

    prefill_s: Floats
    first_s: Floats
    request_s: Floats


@dataclass(frozen=True, eq=False)
class Intake:
    """T(y) of one workload on one server.

    Attributes:
        method: How the token part is averaged.
        sums: What the stages of each class add up to.
        linear_s: Seconds that a request adds apart from f, over all its stages, shape (m,).
        memory_sums: m_j, block-rounded token·iterations, shape (m,).
        token_seconds: E[f], see `TokenSeconds`.
        linear_from_s: Intake from which T is a straight line (to double precision).
    """

    method: Method
    server: Server
    flow: Flow
    sums: StageSums
    linear_s: Floats
    memory_sums: Floats
    token_seconds: TokenSeconds
    linear_from_s: float

    @property
    def tau(self) -> IterationTime:
        """The server's iteration time, never falling."""
        return self.server.iteration_time.rising

    @property
    def overhead_s(self) -> float:
        """d0, the time of an iteration in the limit of no work."""
        return self.server.iteration_time.overhead_s

    @cached_property
    def kv_tokens_per_s(self) -> float:
        """KV tokens held per second of intake, Σ λ_j m_j."""
        return float(self.flow.rates_per_s @ self.memory_sums)

    @cached_property
    def limit(self) -> tuple[Limit, float]:
        """What an iteration can take in at most, and from which intake on, in seconds.

        Memory y_C = C/Σ λ_j m_j; where the engine has them, its tokens and requests per iteration.
        """
        server, per_s = self.server, self.flow.rates_per_s
        most: dict[Limit, tuple[int | None, float]] = {
            "memory": (server.usable_kv_tokens, self.kv_tokens_per_s),
            "max_num_batched_tokens": (server.max_num_batched_tokens, self.flow.tokens_per_s),
            "max_num_seqs": (server.max_num_seqs, float(per_s @ self.sums.count)),
        }
        intakes = {name: one / rate for name, (one, rate) in most.items() if one is not None}
        name = min(intakes, key=intakes.__getitem__)
        return name, intakes[name]

    @property
    def limit_s(self) -> float:
        """The largest intake that memory and engine allow."""
        return self.limit[1]

    @cached_property
    def linear_share(self) -> float:
        """Seconds per second of intake that the linear terms of τ take."""
        return float(self.flow.rates_per_s @ self.linear_s)

    @property
    def final_utilisation(self) -> float:
        """Slope of T at large intake: Σ λ_j w_j with the last slope of f (THEORY 2.1)."""
        return self.tau.last_slope_s * self.flow.tokens_per_s + self.linear_share

    @property
    def _least_utilisation(self) -> float:
        """The slope that T has at least, everywhere: with the least slope of f."""
        run, rise = np.diff(self.tau.knots.tokens), np.diff(self.tau.knots.seconds)
        slope_s = min(rise[run > 0] / run[run > 0], default=0.0)
        return float(slope_s) * self.flow.tokens_per_s + self.linear_share

    def time_s(self, intake_s: float) -> float:
        """T(y), seconds."""
        token_s = float(self.token_seconds(intake_s, np.zeros(1))[0])
        return token_s + self.linear_share * intake_s

    def jump_intakes_s(self, least_s: float, most_s: float) -> Floats:
        """Intakes between these at which T jumps: some prompts and all decodes reach a jump of f.

        Numbers of prompt tokens that an intake hardly ever brings are left out. T(y)/y has its
        local minima there and at no other place between them that a grid misses.
        """
        knots = self.tau.knots.tokens
        jumps = knots[1:][np.diff(knots) == 0]
        lengths = self.flow.prompt_tokens[self.flow.prompt_tokens > 0]
        step = max(1, int(np.gcd.reduce(lengths)))
        decodes = self.flow.decodes_per_s
        if not (len(jumps) and decodes):
            return np.empty(0)
        if self.method == "mean":
            intakes_s = jumps / self.flow.tokens_per_s
        else:
            prompts = step * np.arange(int(jumps[-1]) // step + 1.0)
            reached_s = np.maximum((jumps[:, None] - prompts) / decodes, 0.0)
            intakes_s = np.unique(reached_s[self.flow.may_bring(prompts, reached_s)])
        inside = (intakes_s > least_s) & (intakes_s < most_s)
        return np.asarray(intakes_s[inside])

    def added(self, intake_s: float) -> Added:
        """What one more request of each class adds to the iterations it is in."""
        lengths, kind = np.unique(self.flow.prompt_tokens, return_inverse=True)
        extra = np.concatenate([[0, 1], lengths]).astype(float)
        base_s, decode_s, *prompts_s = self.token_seconds(intake_s, extra).tolist()
        token_s, sums, tau = decode_s - base_s, self.sums, self.server.iteration_time
        prefill_s = sums.prefill_seconds(self.server) + (np.array(prompts_s) - base_s)[kind]
        first_s = (token_s + tau.per_decode_request_s) * sums.first_decodes
        first_s += tau.per_kv_token_s * sums.first_kv_read_tokens
        later_s = (token_s + tau.per_decode_request_s) * sums.decodes
        later_s += tau.per_kv_token_s * sums.kv_read_tokens
        return Added(prefill_s, prefill_s + first_s, prefill_s + later_s)

    def scaled(self, factor: float) -> Intake:
        """T of the same mix with every rate multiplied by `factor`."""
        rates_per_s = factor * self.flow.rates_per_s
        flow = Flow(rates_per_s, self.flow.prompt_tokens, self.flow.decodes)
        return curve_of(self.method, self.server, flow, self.sums)

    def least_balance_s(self, enough_s: float = math.inf) -> float | None:
        """ΔT*: the smallest y with T(y) ≤ y, or None where there is none (THEORY 2.2, 2.5).

        Args:
            enough_s: An intake known to satisfy T(y) ≤ y, if there is one.

        T never decreases and is nowhere flatter than its least slope σ, so that a solution y*
        above y is above (T(y) − σ·y)/(1 − σ) too: climbing by that bound cannot step over the
        smallest solution. The last 0.1 % is bracketed (up to 30 % after a long climb, where T stays
        close to y); a dip of T below y that is narrower is seen only if `enough_s` lies in it.
        """
        exact = self.method == "closed-form"
        slope = self.final_utilisation if exact else self._least_utilisation
        if slope >= 1:
            return None
        low_s, high_s = 0.0, self.overhead_s / (1 - slope)
        if exact:
            return high_s
        least, steps = _RESOLUTION, 0
        while (time_s := self.time_s(high_s)) > high_s:
            if high_s >= self.linear_from_s:
                return self._line_balance_s(high_s, time_s)
            low_s = high_s
            high_s = max((time_s - slope * low_s) / (1 - slope), low_s * (1 + least))
            steps += 1
            if steps > _FINE_STEPS:
                least = min(1.1 * least, _COARSEST)
            if low_s < enough_s < high_s:
                high_s = enough_s
        return self._bracketed_balance_s(low_s, high_s)

    def _line_balance_s(self, intake_s: float, time_s: float) -> float | None:
        """Where T, a straight line from `intake_s` on, meets y."""
        slope = self.final_utilisation
        return None if slope >= 1 else (time_s - slope * intake_s) / (1 - slope)

    def _bracketed_balance_s(self, low_s: float, high_s: float) -> float:
        from scipy.optimize import brentq

        return float(
            brentq(lambda y: self.time_s(y) - y, low_s, high_s, xtol=1e-15 * high_s, rtol=1e-14)
        )


def intake(workload: Workload, server: Server, method: Method | None = None) -> Intake:
    """T(y) of `workload` on `server`; by default exact if f is affine, else "poisson" where f has
    its knots within `MOST_LATTICE_TOKENS`, and "mean" beyond.

    Raises:
        InputError: "closed-form" asked for an f that is not affine, an unknown method, or a rate
            profile whose long-run mean is not 1.
    """
    warn_of_prefixes(workload)
    require_mean_rates(workload)
    return _intake(workload, server, chosen_method(server, method))


def chosen_method(server: Server, method: Method | None) -> Method:
    """The method asked for, or the best one for the server.

    Raises:
        InputError: As `intake`.
    """
    tau = server.iteration_time
    by_law: Method = "poisson" if tau.tokens_knots[-1] <= MOST_LATTICE_TOKENS else "mean"
    chosen: Method = method or ("closed-form" if tau.is_affine else by_law)
    if chosen not in _TOKEN_SECONDS:
        raise InputError("method", method, "one of " + ", ".join(_TOKEN_SECONDS))
    if chosen == "closed-form" and not tau.is_affine:
        raise InputError("method", chosen, "poisson or mean, as f of this server is not affine")
    return chosen


# Equilibrium, stability and solvers ask for the same curve one after the other.
@lru_cache(maxsize=16)
def _intake(workload: Workload, server: Server, method: Method) -> Intake:
    sums = stage_sums(workload, server)
    columns = workload.columns
    flow = Flow(columns.rates_per_s, columns.prefill_tokens, sums.decodes)
    return curve_of(method, server, flow, sums)


def curve_of(method: Method, server: Server, flow: Flow, sums: StageSums) -> Intake:
    """T(y) of requests that bring this flow and pass stages with these sums."""
    tau = server.iteration_time.rising
    build, deviations = _TOKEN_SECONDS[method]
    return Intake(
        method=method,
        server=server,
        flow=flow,
        sums=sums,
        linear_s=sums.linear_seconds(server),
        memory_sums=sums.memory_sum,
        token_seconds=build(flow, tau),
        linear_from_s=flow.seconds_above(tau.tokens_knots[-1], deviations),
    )


def require_mean_rates(workload: Workload) -> None:
    """The fluid model knows constant rates only: the given ones must be the long-run mean."""
    means = workload.mean_multipliers
    worst = int(np.abs(means - 1).argmax())
    mean = float(means[worst])
    if not math.isclose(mean, 1.0, rel_tol=1e-9):
        of_class = "" if np.ptp(means) == 0 else f" of class {workload.classes[worst].name}"
        rates = "each rate_per_s" if not of_class else "its rate_per_s"
        raise InputError(
            "rate_profile",
            f"long-run mean multiplier {mean:.6g}{of_class}",
            "constant rates; a profile only with long-run mean 1 "
            f"(multiply {rates} by {mean:.6g} and divide each multiplier by it)",
        )


def _token_seconds(tau: IterationTime, tokens: Floats) -> Floats:
    """f, with the overhead as the price of an iteration that happens to compute no token."""
    return np.maximum(tau.token_seconds(tokens), tau.overhead_s)


def _affine(flow: Flow, tau: IterationTime) -> TokenSeconds:
    def seconds(intake_s: float, extra: Floats) -> Floats:
        tokens = flow.tokens_per_s * intake_s + extra
        return np.asarray(tau.overhead_s + tau.last_slope_s * tokens)

    return seconds


def _mean(flow: Flow, tau: IterationTime) -> TokenSeconds:
    def seconds(intake_s: float, extra: Floats) -> Floats:
        return _token_seconds(tau, flow.tokens_per_s * intake_s + extra)

    return seconds


def _poisson(flow: Flow, tau: IterationTime) -> TokenSeconds:
    """E[f] = its last line at the mean + E[f − that line], which needs the law below one knot."""
    last_knot, slope_s = tau.tokens_knots[-1], tau.last_slope_s
    intercept_s = tau.seconds_knots[-1] - slope_s * last_knot
    some = flow.prompt_tokens > 0
    brought = flow.prompt_tokens[some], flow.rates_per_s[some]
    inside = flow.prompt_tokens <= last_knot
    lengths, rates = flow.prompt_tokens[inside].astype(float), flow.rates_per_s[inside]
    longest = _NEGLIGIBLE * lengths.max(initial=0.0) / 3
    lattices: dict[int, PromptLaw] = {}

    def law_of(intake_s: float) -> PromptLaw:
        """The smallest lattice, by halves, beyond which hardly any prompts below the knot lie."""
        variance = intake_s * float(rates @ lengths**2)
        most = intake_s * float(rates @ lengths) + longest
        most += math.sqrt(longest**2 + 2 * _NEGLIGIBLE * variance)  # Bernstein's inequality
        halves = max(0, int(math.log2(max(last_knot, 1.0) / max(most, 1.0))))
        if halves not in lattices:
            lattices[halves] = PromptLaw.up_to(int(last_knot) >> halves, *brought)
        return lattices[halves]

    def seconds(intake_s: float, extra: Floats) -> Floats:
        lattice = law_of(intake_s)
        tokens = lattice.prompts + flow.decodes_per_s * intake_s + extra[..., None]
        excess_s = _token_seconds(tau, tokens) - (intercept_s + slope_s * tokens)
        line_s = intercept_s + slope_s * (flow.tokens_per_s * intake_s + extra)
        excess_s = np.where(tokens < last_knot, excess_s, 0.0)
        return np.asarray(line_s + excess_s @ lattice.law(intake_s))

    return seconds


_TOKEN_SECONDS: dict[Method, tuple[Callable[[Flow, IterationTime], TokenSeconds], float]] = {
    "closed-form": (_affine, 0.0),
    "poisson": (_poisson, 12.0),
    "mean": (_mean, 0.0),
}
"""Builder of E[f], and how many standard deviations above the last knot f is surely linear."""
