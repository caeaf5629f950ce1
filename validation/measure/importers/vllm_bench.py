"""Result of ``vllm bench serve --save-result --save-detailed``, one request at a time.

With ``--max-concurrency 1`` every gap between tokens is one iteration that decodes one request
(its context is the prompt and the tokens so far), and the time to the first token is the prefill of
one prompt; both include the server's and the client's own overhead. With more requests at a time
the file does not say what a batch consisted of, and is refused. So is the engine's per-iteration
log: it counts requests and computed tokens, not the KV tokens that decodes read, and where
scheduling is asynchronous its elapsed time is that of the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.files import read_document
from validation.measure.composition import Measurements
from validation.measure.importers.iteration_csv import MOST, from_table

_FLAT = ("input_lens", "ttfts")
_DETAILED = "a list; run with --save-detailed"

LONGEST_PROMPT_TOKENS = 2048
"""Longer prompts may be prefilled in several iterations (the engine's smallest default budget)."""


def read_vllm_bench(path: Path) -> Measurements:
    """Read the detailed result.

    Raises:
        InputError: Not such a result, not detailed, or of more than one request at a time.
    """
    document = read_document(path)
    if not isinstance(document, dict):
        raise InputError("", "no mapping", "the JSON of vllm bench serve", str(path))
    concurrency = document.get("max_concurrency")
    if concurrency != 1:
        raise InputError("max_concurrency", concurrency, "1: batches are unknown above", str(path))
    prompts, firsts_s = (_numbers(document.get(name), name, path) for name in _FLAT)
    said = document.get("itls")
    if not isinstance(said, list):
        raise InputError("itls", said, _DETAILED, str(path))
    gaps = [_numbers(one, f"itls[{index}]", path) for index, one in enumerate(said)]
    lists: list[list[Any]] = [prompts, firsts_s, gaps]
    if len({len(one) for one in lists}) != 1:
        raise InputError("itls", "lists of different lengths", "one entry per request", str(path))
    rows: list[tuple[float, ...]] = []
    for prompt, first_s, gaps_s in zip(*lists, strict=True):
        if 1 <= prompt <= LONGEST_PROMPT_TOKENS and first_s > 0:
            rows.append((prompt, 0, 0, 0, first_s, 1))
        rows += [
            (0, 0, 1, prompt + 1 + index, gap_s, 0)
            for index, gap_s in enumerate(gaps_s)
            if gap_s > 0
        ]
    if not rows:
        raise InputError("ttfts", "no completed request", "at least one", str(path))
    table = np.array(rows, dtype=float)
    compositions, seen = from_table(table)
    model = document.get("model_id", "unknown model")
    source = f"{path.name}: vllm bench serve of {model}, one request at a time"
    return Measurements(compositions, table[:, 4], seen, source, name=path.stem)


def _numbers(found: Any, name: str, path: Path) -> list[float]:
    """A list of numbers from 0 to a billion; those that no run has are refused."""
    if not isinstance(found, list):
        raise InputError(name, found, _DETAILED, str(path))
    for index, one in enumerate(found):
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= MOST:
            allowed = f"a number from 0 to {MOST:g}"
            raise InputError(f"{name}[{index}]", one, allowed, str(path))
    return found
