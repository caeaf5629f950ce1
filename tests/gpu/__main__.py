"""Everything that a machine with a GPU can tell, in minutes: python -m tests.gpu

Parts in this order, each in a process of its own and within its share of the time: `card`, `agree`,
`speed`, `sweep`, `fit`, `loop`. Each writes PART.json and PART.md into the folder while it runs;
`report.md` has them all. Exit code 1 if a part failed or found a disagreement, 2 for a machine or
an argument that cannot do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.gpu.report import write_report
from tests.gpu.requirements import missing_modules, ptx_hint, versions, why_no_gpu
from tests.gpu.result import FAILED
from tests.gpu.runner import PARTS, limits, run_part

DEFAULT_LIMIT_S = 420


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; see the module's own words."""
    begin = time.time()
    given = _parser().parse_args(arguments)
    if refusal := refused(given.only, given.toy):
        print(refusal, file=sys.stderr)
        return 2
    parts = [part for name, part in PARTS.items() if name in (given.only or PARTS)]
    given.out.mkdir(parents=True, exist_ok=True)
    found = versions(given.toy)
    print(", ".join(f"{name} {one}" for name, one in found.items()), flush=True)
    if hint := ptx_hint(found):
        print(f"warning: {hint}", flush=True)
    failed = False
    for index, part in enumerate(parts):
        left_s = begin + given.limit_s - time.time()
        result = run_part(part, given.out, given.toy, max(limits(parts[index:], left_s), 0.0))
        failed |= result.status == FAILED
        print(f"\n{result.brief()}", flush=True)
        write_report(given.out, found)
    print(f"{given.out / 'report.md'}: {time.time() - begin:.0f} s")
    return int(failed)


def refused(only: Sequence[str] | None, toy: bool) -> str | None:
    """Why nothing can be run, in one line; None where it can."""
    unknown = [name for name in only or () if name not in PARTS]
    if unknown:
        return f"--only: got {', '.join(unknown)}; allowed: {', '.join(PARTS)}"
    if missing := missing_modules():
        return f"missing: {', '.join(missing)}"
    reason = None if toy else why_no_gpu()
    return f"no GPU: {reason}; --toy runs every part on the processor" if reason else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--only", action="append", metavar="PART", help="this part; repeatable")
    parser.add_argument("--toy", action="store_true", help="everything tiny, on the processor")
    parser.add_argument("--limit-s", type=float, default=DEFAULT_LIMIT_S, help="for the whole")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
