"""The compiled engine against the slow reference, request by request: more cases than the tests.

Run as ``python -m tests.benchmarks.agreement [--cases 300] [--first 0] [POLICY …]``.
Random workloads, servers and parameters under every policy, with evictions in a third of the cases.
"""

from __future__ import annotations

import argparse

from fluidwait.console import say
from tests.support.agreement import compare
from tests.support.random_cases import random_case
from validation.policies import POLICIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="*", default=POLICIES, metavar="POLICY")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    for name in asked.policies:
        numbers = range(asked.first, asked.first + asked.cases)
        evictions = [compare(random_case(name, number)) for number in numbers]
        evicting = sum(count > 0 for count in evictions)
        say(f"{name}: {len(evictions)} of {asked.cases} agree, {evicting} with evictions")


if __name__ == "__main__":
    main()
