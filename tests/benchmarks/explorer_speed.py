"""How long a slider of the explorer waits: ``python -m tests.benchmarks.explorer_speed``.

Milliseconds in Python, medians of steps that change the answer: of a length or the memory (the
boundary is traced anew) and of a rate; then all latencies of the second panel, one after the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from fluid.explorer.state import CURVE, Explorer, Setting
from fluid.server import load_server
from fluid.workload import Requests, Workload

STEPS = 9
TWO = {"chat": Requests(3.0, 512, 200), "report": Requests(0.8, 512, 1000)}
THREE = TWO | {"code": Requests(0.5, 2048, 100)}
SERVERS = ("engine-long-decode", "a100-80gb-llama-2-7b", "llama-3.1-8b-h100-sxm-vllm")


def took_ms(function: Callable[[Setting], object], settings: list[Setting]) -> float:
    """Median over the settings."""
    times = []
    for one in settings:
        start = time.perf_counter()
        function(one)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    print("classes  server                       length step  rate step  latency panel  (ms)")
    for load in (TWO, THREE):
        for name in SERVERS:
            explorer = Explorer(Workload.of(**load), (load_server(name),))
            start = explorer.start

            def panel(setting: Setting, explorer: Explorer = explorer) -> None:
                for share in (None, *CURVE):
                    if "refusal" in explorer.latency(setting, share):
                        return

            explorer.region(start)
            panel(start)
            lengths = [
                start.model_copy(update={"output_factor": 0.98**k, "memory_factor": 1.03**k})
                for k in range(1, STEPS + 1)
            ]
            rates = [
                start.model_copy(
                    update={"rates_per_s": (1.05**k * start.rates_per_s[0], *start.rates_per_s[1:])}
                )
                for k in range(1, STEPS + 1)
            ]
            figures = [took_ms(explorer.region, lengths), took_ms(explorer.region, rates)]
            figures.append(took_ms(panel, lengths[:5]))
            print(f"{len(load):7}  {name:27} " + "".join(f"{one:12.1f}" for one in figures))


if __name__ == "__main__":
    main()
