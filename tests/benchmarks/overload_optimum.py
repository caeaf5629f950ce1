"""What `solve --overload` admits against enumeration.

    python -m tests.benchmarks.overload_optimum [--instances 300] [--first-seed 0]

First random affine servers with memory for many requests and two to six classes: the admitted worth
against the best of all ways to admit some classes whole and one in part. Then random tiny servers,
whose exact optimum is a linear program over all states: whether what is admitted is really carried
(where the two bounds agree to 1 % the fluid bound counts as certain), and its worth ÷ the optimum.
Five minutes.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace

import numpy as np

from fluid.iteration import IterationTime
from fluid.steady.stability import stability
from fluid.workload import Workload
from tests.support import builders
from tests.support.packing_cases import PackingCase, exact_scale, exact_worth, tiny_packing
from thresholds.overload import admission


def weighted(load: Workload, draw: np.random.Generator) -> Workload:
    """The load with random weights."""
    classes = tuple(
        one.model_copy(update={"weight": float(10 ** draw.uniform(-1, 1))}) for one in load.classes
    )
    return load.model_copy(update={"classes": classes})


def roomy(seed: int) -> PackingCase:
    """Two to six classes at 1.2 to 6 times what an affine server carries."""
    draw = np.random.default_rng(seed)
    classes = [
        (float(draw.uniform(0.2, 3)), int(10 ** draw.uniform(0, 3)), int(10 ** draw.uniform(0, 2)))
        for _ in range(draw.integers(2, 7))
    ]
    tau = IterationTime.affine(
        draw.uniform(0.005, 0.03),
        per_token_s=draw.choice([0, 2e-5]),
        per_kv_token_s=10 ** draw.uniform(-7, -5),
    )
    machine = builders.server(tau, str(draw.choice(["prefill", "decode"])), 1_000_000)
    load = weighted(builders.workload(*classes), draw)
    return PackingCase(
        load.scaled(draw.uniform(1.2, 6) * stability(load, machine).max_scale), machine
    )


def enumerated(case: PackingCase) -> float:
    """The best worth of any classes whole, and one more in part."""
    half_space = stability(case.workload, case.server).half_space_per_s
    assert half_space is not None
    rates = case.workload.rates_per_s
    loads = half_space * rates
    worth = rates * [one.weight for one in case.workload.classes]
    best = 0.0
    for size in range(len(rates)):
        for whole in itertools.combinations(range(len(rates)), size):
            room = 1 - loads[list(whole)].sum()
            if room < 0:
                continue
            part = max(
                worth[j] * min(1.0, room / loads[j]) for j in range(len(rates)) if j not in whole
            )
            best = max(best, float(worth[list(whole)].sum() + part))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.instances)
    wrong, proven = 0, 0
    for seed in seeds:
        case = roomy(seed)
        found = admission(case.workload, case.server)
        share = found.weight_per_s / enumerated(case)
        proven += found.is_optimal
        if abs(share - 1) > 1e-5:
            wrong += 1
            print(f"instance {seed}: {share:.8f} of the optimum, proven: {found.is_optimal}")
    print(
        f"memory for many: {len(seeds) - wrong} of {len(seeds)} worth the optimum, "
        f"{proven} said to be",
        flush=True,
    )
    shares, multiples, fluid = [], [], 0
    for seed in seeds:
        tiny = tiny_packing(seed)
        draw = np.random.default_rng(seed)
        scale = draw.uniform(1.0, 4.0) * exact_scale(tiny)
        case = replace(tiny, workload=weighted(tiny.workload.scaled(scale), draw))
        found = admission(case.workload, case.server)
        multiples.append(exact_scale(replace(case, workload=found.workload)))
        fluid += stability(case.workload, case.server).max_scale >= 1
        shares.append(found.weight_per_s / exact_worth(case))
    carried = sum(one >= 1 - 1e-6 for one in multiples)
    print(
        f"tiny servers: what is admitted is carried in {carried} of {len(seeds)}, "
        f"{min(multiples):.4f} of it in the worst"
    )
    print(f"  loads that the fluid bound would have let in whole: {fluid}")
    print(
        f"  worth ÷ exact optimum: least {min(shares):.4f}, median {np.median(shares):.4f}, most "
        f"{max(shares):.4f}; {sum(one > 0.999 for one in shares)} within 0.1 %"
    )


if __name__ == "__main__":
    main()
