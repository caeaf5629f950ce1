"""Iterations per second by threads per block: python -m tests.gpu.blocks [--registers N]

A minute on a card: `greedy` and `vllm-v1` with 20 in service, `greedy` with 400.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from numba import cuda as numba_cuda

from tests.gpu.launch import launch
from tests.gpu.speed import REAL, Sizes, loaded
from validation.policies import parse_policy
from validation.simulator import cuda

# mypy: disable-error-code="no-untyped-call"

THREADS = (1, 2, 4, 8, 16, 32, 64, 128)
LOADS = (("greedy", 20), ("vllm-v1", 20), ("greedy", 400))
REPLICATIONS = (1_000, 10_000, 100_000)
MOST_SLOTS = 4_000_000
"""Replications × residents of a launch at most."""


def measured(
    loads: Iterable[tuple[str, int]],
    sizes: Sizes,
    replications: Iterable[int],
    registers: int | None,
) -> Iterator[str]:
    """A line for each load and number of replications: iterations/s by threads per block.

    Args:
        registers: That a thread has at most; None for as many as the compiler takes.
    """
    limit = {} if registers is None else {"max_registers": registers}
    for policy, residents in loads:
        source = cuda.kernel_source(parse_policy(policy).policy, reacts=False)
        kernel = numba_cuda.jit(**limit)(source)
        model, requests = loaded(residents), sizes.requests[residents]
        launch(model, policy, 1, requests, kernel=kernel)
        for number in replications:
            if number * residents > MOST_SLOTS:
                continue
            found = (
                launch(model, policy, number, requests, threads_per_block=threads, kernel=kernel)
                for threads in THREADS
            )
            rates = (
                f"{threads}:{one.iterations_per_s:.3g}"
                for threads, one in zip(THREADS, found, strict=True)
            )
            yield " ".join([policy, str(residents), str(number), *rates])


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.blocks", description=__doc__)
    parser.add_argument("--registers", type=int, help="of a thread at most")
    for line in measured(LOADS, REAL, REPLICATIONS, parser.parse_args().registers):
        print(line, flush=True)


if __name__ == "__main__":
    main()
