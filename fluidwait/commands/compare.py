"""``fluidwait compare``: policies × rates, with capacities and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fluid.errors import InputError
from fluid.server import load_server
from fluid.stability import stability
from fluid.traces.tape import read_tape
from fluid.workload import Workload
from fluidwait.console import new_table, number, percent, print_json, progress, say, show
from validation.capacity import Capacity, find_capacity
from validation.compare import PolicyResult
from validation.policies import ConfiguredPolicy, parse_policy
from validation.recovery import Recovery, recovery
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.model import Model, poisson_model, tape_model
from validation.sweep import Store, grid, sweep

MOST_RATES = 10_000


@dataclass(frozen=True)
class CompareOptions:
    """Options of the command, as given."""

    workload: Path | None
    tape: Path | None
    server: str
    policies: list[str]
    rates: str | None
    find_capacity: bool
    arrivals: str | None
    burst: int | None
    replications: int
    requests: int
    seed: int
    resume: Path | None
    plot: Path | None
    device: str
    as_json: bool


def run_compare(options: CompareOptions) -> None:
    """Validate everything, simulate, print and plot."""
    if options.plot:
        from fluid.plots import require_plot_path

        require_plot_path(options.plot)
    policies = [parse_policy(one) for one in options.policies]
    model, limit_per_s = _model(options)
    own_per_s = float(model.constants[0]["rate_per_s"])
    rates = parse_rates(options.rates) if options.rates else [own_per_s]
    store = Store(options.resume) if options.resume else None
    rows = grid(
        policies,
        rates,
        replications=options.replications,
        requests=options.requests,
        seed=options.seed,
    )
    with progress("compare", len(rows)) as advance:
        results = sweep(model, rows, store, device=options.device, on_done=advance)
    capacities = _capacities(model, policies, limit_per_s, options, store)
    recoveries = _recoveries(model, policies, rates, options)
    if options.plot:
        from validation.plots import plot_compare

        plot_compare(results, limit_per_s, options.plot)
    if options.as_json:
        print_json(_document(results, capacities, recoveries))
        return
    print_comparison(results, capacities, limit_per_s)
    if recoveries:
        _print_recoveries(recoveries)
    if options.plot:
        say(f"Wrote {options.plot}.")


def _model(options: CompareOptions) -> tuple[Model, float | None]:
    """What to simulate, and the fluid limit of its rate where there is a workload."""
    server = load_server(options.server)
    if (options.workload is None) == (options.tape is None):
        raise InputError("WORKLOAD", "both or neither", "a workload file, or --tape FILE")
    arrivals = parse_arrivals(options.arrivals) if options.arrivals else None
    if options.tape is not None:
        if arrivals is not None:
            raise InputError("arrivals", arrivals.label, "none beside a tape, which has its own")
        return tape_model(read_tape(options.tape), server), None
    assert options.workload is not None
    workload = Workload.read(options.workload)
    limit_per_s = stability(workload, server).max_scale * workload.rate_per_s
    return poisson_model(workload, server, arrivals), limit_per_s


def parse_rates(text: str) -> list[float]:
    """``a:b:step`` with both ends, or ``a,b,c``, or one rate; requests per second.

    Raises:
        InputError: Not of that form, not positive, or too many.
    """
    allowed = "rates > 0 as a:b:step, a,b,c or one number"
    try:
        if ":" in text:
            low, high, step = (float(part) for part in text.split(":"))
            if not (0 < low <= high < math.inf and 0 < step < math.inf):
                raise ValueError
            count = math.floor((high - low) / step * (1 + 1e-12) + 1e-9) + 1
            if count > MOST_RATES:
                raise InputError("--rates", text, f"at most {MOST_RATES} rates")
            return [low + index * step for index in range(count)]
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError("--rates", text, allowed) from None
    if not all(0 < rate < math.inf for rate in rates):
        raise InputError("--rates", text, allowed)
    return rates


def _capacities(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    limit_per_s: float | None,
    options: CompareOptions,
    store: Store | None,
) -> list[Capacity]:
    if not options.find_capacity:
        return []
    start_per_s = limit_per_s or float(model.constants[0]["rate_per_s"])
    with progress("capacity", len(policies)) as advance:
        found = []
        for policy in policies:
            found.append(
                find_capacity(
                    model,
                    policy,
                    start_per_s,
                    replications=options.replications,
                    requests=options.requests,
                    seed=options.seed,
                    store=store,
                    device=options.device,
                )
            )
            advance()
    return found


def _recoveries(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    rates: Sequence[float],
    options: CompareOptions,
) -> list[Recovery]:
    if options.burst is None:
        return []
    runs = len(policies) * len(rates) * options.replications
    with progress("recovery", runs) as advance:
        return [
            recovery(
                model,
                policy,
                options.burst,
                rate_per_s=rate,
                replications=options.replications,
                requests=options.requests,
                seed=options.seed,
                on_done=advance,
            )
            for rate in rates
            for policy in policies
        ]


def _document(
    results: Sequence[PolicyResult],
    capacities: Sequence[Capacity],
    recoveries: Sequence[Recovery],
) -> dict[str, object]:
    document: dict[str, object] = {"policies": [one.as_dict() for one in results]}
    if capacities:
        document["capacities"] = [asdict(one) for one in capacities]
        document["largest_stable_rate_per_s"] = {
            one.policy: one.largest_stable_rate_per_s for one in capacities
        }
    if recoveries:
        document["recoveries"] = [one.as_dict() for one in recoveries]
    return document


def _print_recoveries(recoveries: Sequence[Recovery]) -> None:
    title = f"Recovery from {recoveries[0].burst_requests} requests at one instant"
    table = new_table(title, "policy", "rate /s", "recovered", "after s", "watched for s")
    for one in recoveries:
        width = one.recovery_half_width_s
        time = number(one.recovery_s) + (f" ± {number(width, 2)}" if width else "")
        table.add_row(
            one.policy,
            number(one.rate_per_s),
            percent(one.recovered_share, 0),
            time if one.recovered_share else "never",
            number(one.horizon_s),
        )
    show(table)


def print_comparison(
    results: Sequence[PolicyResult], capacities: Sequence[Capacity], limit_per_s: float | None
) -> None:
    """One row per policy and rate, then the fluid limit and the largest stable rates."""
    columns = ("policy", "rate /s", "verdict", "completed", "collapsed", "latency s", "p99 s")
    table = new_table("Policies by rate", *columns, "evictions /req", "wasted", "KV mean")
    for one in results:
        latency = one.latency_s
        width = f" ± {number(latency.half_width, 2)}" if latency and latency.half_width else ""
        table.add_row(
            one.label,
            number(one.rate_per_s),
            one.verdict,
            percent(one.completed_share, 2),
            percent(one.collapsed_share, 0),
            number(latency.mean) + width if latency else "–",
            number(latency.p99) if latency else "–",
            number(one.evictions_per_request, 3),
            percent(one.wasted_token_share),
            number(one.kv_mean_tokens),
        )
    show(table)
    if limit_per_s is not None:
        say(f"Fluid limit: {number(limit_per_s)} /s.")
    for capacity in capacities:
        stable = number(capacity.largest_stable_rate_per_s)
        share = ""
        if limit_per_s and capacity.largest_stable_rate_per_s:
            share = f", {percent(capacity.largest_stable_rate_per_s / limit_per_s)} of that"
        say(f"{capacity.policy}: stable up to {stable} /s{share}.")
