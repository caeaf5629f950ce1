"""Reader of the results of ``sglang.bench_serving --output-file`` (JSON lines); see `bench_runs`.

Each run is a line, with its requests if it ran with ``--output-details``. A run without a rate says
`Infinity`, which is no JSON and is read all the same.
"""

from __future__ import annotations

from fluid.traces.bench_runs import bench_format

OF_SGLANG = '"dataset_name"'


def _detect(head: str) -> bool:
    named = (OF_SGLANG, '"total_input_tokens"')
    return head.lstrip().startswith("{") and all(name in head for name in named)


SGLANG_BENCH = bench_format("sglang-bench", "result of sglang.bench_serving (JSON lines)", _detect)
