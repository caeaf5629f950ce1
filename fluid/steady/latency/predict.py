"""Means and quantiles of TTFT, TPOT and latency of a load on a server under a rule (THEORY 9)."""

from __future__ import annotations

import math

from fluid.server import Server, require_fits
from fluid.steady.intake import intake
from fluid.steady.latency.chain import Unresolved
from fluid.steady.latency.chunk_answer import limit_of_budget, solve_chunked
from fluid.steady.latency.load import Load
from fluid.steady.latency.result import ClassLatency, Figures, Latency, Spread
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.solved import Cdfs, Solved
from fluid.steady.latency.sums import ClassLaws, class_laws, pooled, quantiles
from fluid.steady.latency.validity import validity
from fluid.steady.latency.whole import COARSE, solve_whole
from fluid.workload import Workload, warn_of_prefixes

_SHARES = (0.5, 0.9, 0.99)


def latency(workload: Workload, server: Server, rule: BatchRule | None = None) -> Latency:
    """Means and quantiles per class and pooled, and how far they may be believed.

    Args:
        rule: How requests enter a batch; whole prompts without limits by default.

    Returns:
        An answer without figures, and with the reason, where the load has no equilibrium, needs
        more than the token budget, fills the memory in more than 1 % of iterations, or the seats
        in more than 5 %.

    Raises:
        InputError: One request of a class does not fit, the rates vary around another mean than
            the given ones, or prompts in chunks are asked for where prefill emits no token.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=512, output=120))
    >>> found = fw.latency(load, fw.Server.named("a100-80gb-llama-2-7b"), fw.BatchRule.greedy())
    >>> found.pooled.ttft_s.p99 > 2 * found.pooled.ttft_s.mean
    True
    """
    rule = rule or BatchRule()
    rule.require_suits(server)
    solved = solve(workload, server, rule)
    if isinstance(solved, str):
        return Latency(workload, server, rule, refusal=solved)
    believed = validity(solved, rule)
    if (reason := believed.refusal()) is not None:
        return Latency(workload, server, rule, refusal=reason, validity=believed)
    try:
        laws = class_laws(solved)
    except Unresolved as error:
        return Latency(workload, server, rule, refusal=str(error), validity=believed)
    iteration_mean_s, iteration_sd_s = solved.working_iteration_s
    return Latency(
        workload,
        server,
        rule,
        classes=tuple(
            _class_latency(solved, j, one.name, laws[j]) for j, one in enumerate(workload.classes)
        ),
        pooled=_pooled(solved, laws),
        iteration_s=Spread(iteration_mean_s, iteration_sd_s),
        kv_tokens=Spread(solved.kv_mean_tokens, solved.slow.kv_held_sd_tokens),
        validity=believed,
    )


def solve(workload: Workload, server: Server, rule: BatchRule) -> Solved | str:
    """The chain of the load under the rule, or why there is none."""
    try:
        return _solve(workload, server, rule)
    except Unresolved as error:
        return str(error)


def _solve(workload: Workload, server: Server, rule: BatchRule) -> Solved | str:
    require_fits(workload, server)
    warn_of_prefixes(workload)
    start_s = intake(workload, server).least_balance_s()
    if start_s is None:
        return "the load brings more work than the server can do"
    load = Load.of(workload, server)
    needed = start_s * load.kv_held_per_s
    if needed > server.usable_kv_tokens:
        return f"the load holds {needed:,.0f} KV tokens on average, more than there are"
    if rule.budget_tokens is None or not load.prompts.any():
        return solve_whole(load, start_s)
    share = limit_of_budget(load, rule.budget_tokens)
    if share >= 1:
        return f"the load needs {share:.3f} of the token budget"
    return solve_chunked(load, rule.budget_tokens, solve_whole(load, start_s, COARSE))


def _class_latency(solved: Solved, j: int, name: str, laws: ClassLaws) -> ClassLatency:
    ttft_s, rest_s, latency_s = solved.stage_s[j]
    gaps = int(solved.load.later[j] - solved.load.first_output[j])
    tpot = _figures(rest_s / gaps, laws.tpot) if laws.tpot is not None else None
    return ClassLatency(
        name,
        float(solved.load.rates_per_s[j]),
        _figures(ttft_s, laws.ttft),
        tpot,
        _figures(latency_s, laws.latency),
    )


def _pooled(solved: Solved, laws: list[ClassLaws]) -> ClassLatency:
    load, shares = solved.load, solved.load.shares
    decoding = load.later > load.first_output
    tpot = None
    if decoding.any():
        gaps = (load.later - load.first_output)[decoding]
        weights = shares[decoding] / shares[decoding].sum()
        mean_s = float(weights @ (solved.stage_s[decoding, 1] / gaps))
        tpot = _figures(mean_s, pooled([one.tpot for one in laws if one.tpot is not None], weights))
    return ClassLatency(
        "all",
        load.rate_per_s,
        _figures(float(shares @ solved.stage_s[:, 0]), pooled([one.ttft for one in laws], shares)),
        tpot,
        _figures(
            float(shares @ solved.stage_s[:, 2]), pooled([one.latency for one in laws], shares)
        ),
    )


def _figures(mean_s: float, law: Cdfs) -> Figures:
    assert math.isfinite(mean_s)
    return Figures(float(mean_s), *quantiles(law, _SHARES))
