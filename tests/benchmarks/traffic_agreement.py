"""Engine and slow reference under every kind of traffic: many cases of each policy. Ten minutes.

Run as ``python -m tests.benchmarks.traffic_agreement [--cases 300] [POLICY …]``: so many of each
kind. The first difference ends it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from fluid.result import Table, as_text
from tests.support.traffic_cases import KINDS
from tests.validation.test_traffic_agreement import compare
from validation.policies import POLICIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policies", nargs="*", default=POLICIES, metavar="POLICY")
    parser.add_argument("--cases", type=int, default=300)
    asked = parser.parse_args()
    cases, rows = asked.cases, []
    for name in asked.policies:
        seen: Counter[str] = Counter()
        for number in range(cases * len(KINDS)):
            seen += compare(name, number)
        counts = ("evicted", "refused", "too_long", "gave_up", "started")
        figures = (f"{cases * len(KINDS):,}", *(f"{seen[one]:,}" for one in counts))
        rows.append((name, *figures))
        print(f"{name}: agrees", file=sys.stderr, flush=True)
    columns = ("policy", "cases", "with evictions", "refused", "too long", "gave up", "in service")
    print(as_text([Table("Request by request: all agree", columns, tuple(rows))]))


if __name__ == "__main__":
    main()
