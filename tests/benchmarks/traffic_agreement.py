"""Engine and slow reference under every kind of traffic: many cases of each policy. Ten minutes.

Run as ``python -m tests.benchmarks.traffic_agreement [CASES]``: so many of each kind, 300 unless
told. The first difference ends it.
"""

from __future__ import annotations

import sys
from collections import Counter

from fluid.result import Table, as_text
from tests.support.traffic_cases import KINDS
from tests.validation.test_traffic_agreement import compare
from validation.policies import POLICIES


def main(cases: int) -> None:
    rows = []
    for name in POLICIES:
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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
