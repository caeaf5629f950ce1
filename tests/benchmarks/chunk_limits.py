"""Limits of engines with a token budget against simulation (THEORY 5.6).

    python -m tests.benchmarks.chunk_limits

Prints, for ten loads, the limit of whole prompts, that of any chunks, that of the budget, and what
`sarathi` completes behind a queue ÷ the limit of its budget. One minute.
"""

from __future__ import annotations

from fluid.steady.chunks import budget_limit, chunk_limit
from tests.support.chunk_cases import CASES, simulated_share
from validation.simulator.runs import Runs

RUNS = Runs(replications=4, requests=10_000)


def main() -> None:
    print("load               budget   whole /s     any /s  budget /s  simulated ÷ it  binding")
    for name, case in CASES.items():
        rate = case.workload.rate_per_s
        found = budget_limit(case.workload, case.server, case.budget_tokens)
        limits = (found.whole_scale, chunk_limit(case.workload, case.server).scale, found.scale)
        columns = " ".join(f"{one * rate:10.3f}" for one in limits)
        share = simulated_share(case, RUNS)
        print(f"{name:16} {case.budget_tokens:8} {columns} {share:15.4f}  {found.binding}")


if __name__ == "__main__":
    main()
