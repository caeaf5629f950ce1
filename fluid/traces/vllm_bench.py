"""Reader of the results of ``vllm bench serve --save-result`` (JSON); see `bench_runs`.

With ``--save-detailed`` they have their requests; ``--append-result`` puts several runs in a file.
"""

from __future__ import annotations

from fluid.traces.bench_runs import bench_format
from fluid.traces.sglang_bench import OF_SGLANG


def _detect(head: str) -> bool:
    named = ('"input_lens"', '"total_input_tokens"')
    return (
        head.lstrip().startswith("{")
        and any(name in head for name in named)
        and OF_SGLANG not in head
    )


VLLM_BENCH = bench_format("vllm-bench", "result of vllm bench serve (JSON)", _detect)
