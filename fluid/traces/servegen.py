"""Reader of a ServeGen data set (``chunk-N-dataset.json``; arXiv 2505.09999).

An object of windows by their beginning in seconds, each with the distributions `input_tokens` and
`output_tokens`, written as a Python dict from length to probability. Rates are in another file.
Distributions of more than 64 lengths become buckets of equal ratio, with the exact mean.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.traces.documents import json_document
from fluid.traces.length_summary import LOST
from fluid.traces.marginals import Floats, Marginal
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import MOST_TOKENS, ReadOptions
from fluid.traces.trace_format import TraceFormat

PROMPTS, OUTPUTS = "input_tokens", "output_tokens"
MOST_LENGTHS = 64
NO_RATE = (
    "a ServeGen data set has no rate and no number of requests: they are in the chunk-N-trace.csv"
    " beside it"
)


def _detect(head: str) -> bool:
    return re.match(r'\s*\{\s*"\d+(\.\d+)?"\s*:\s*\{', head) is not None


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    windows = _windows(json_document(path), options.part, file)
    prompt, output = (_marginal(windows, field, file) for field in (PROMPTS, OUTPUTS))
    caveats = [LOST, NO_RATE]
    if len(windows) > 1:
        caveats.append(f"its {len(windows):,} windows weigh alike; part chooses one")
    others = sorted({name for one in windows.values() for name in one} - {PROMPTS, OUTPUTS})
    if others:
        caveats.append(f"{', '.join(others)} are not read")
    return Snapshot(prompt, output, 1, None, tuple(caveats), origin="distributions")


SERVEGEN = TraceFormat(
    "servegen", "ServeGen data set (JSON)", _detect, _open, takes=frozenset({"part"})
)


def _windows(document: dict[str, Any], part: str | None, file: str) -> dict[str, dict[str, Any]]:
    """The windows that have requests, or the one that was chosen."""
    if part is not None:
        if part not in document:
            known = ", ".join(list(document)[:8])
            raise InputError("part", part, f"the beginning of a window: {known} …")
        document = {part: document[part]}
    windows = {name: one for name, one in document.items() if isinstance(one, dict) and one}
    if not windows:
        raise InputError("", "no window with requests", "at least one", file)
    return windows


def _marginal(windows: dict[str, dict[str, Any]], field: str, file: str) -> Marginal:
    """The mixture of all windows, in at most `MOST_LENGTHS` buckets."""
    weights: dict[float, float] = {}
    for name, window in windows.items():
        found = _distribution(window.get(field), f"{name}.{field}", file)
        total = sum(found.values())
        for tokens, weight in found.items():
            weights[tokens] = weights.get(tokens, 0.0) + weight / total
    lengths = np.array(sorted(weights))
    shares = np.array([weights[tokens] for tokens in lengths]) / sum(weights.values())
    mean = float(shares @ lengths)
    if len(lengths) <= MOST_LENGTHS:
        return Marginal(shares, lengths, lengths, mean)
    return _in_buckets(lengths, shares, mean)


def _in_buckets(lengths: Floats, shares: Floats, mean: float) -> Marginal:
    ratio = np.log(lengths[-1] / lengths[0]) / MOST_LENGTHS
    cell = np.minimum((np.log(lengths / lengths[0]) / ratio).astype(int), MOST_LENGTHS - 1)
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    ends = np.append(starts[1:], len(lengths)) - 1
    return Marginal(np.add.reduceat(shares, starts), lengths[starts], lengths[ends], mean)


def _distribution(said: Any, place: str, file: str) -> dict[float, float]:
    """Probabilities by length; requests of no tokens are failed, and left out."""
    allowed = 'a text such as "{100: 0.5, 900: 0.5}"'
    try:
        found = ast.literal_eval(said)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise InputError(place, said, allowed, file) from None
    if not isinstance(found, dict) or not all(
        _is_number(tokens, MOST_TOKENS) and _is_number(share, np.inf)
        for tokens, share in found.items()
    ):
        raise InputError(place, said, allowed, file)
    kept = {float(tokens): float(p) for tokens, p in found.items() if tokens >= 1 and p > 0}
    if not kept:
        raise InputError(place, said, "at least one length ≥ 1 with a probability", file)
    return kept


def _is_number(value: Any, below: float) -> bool:
    return type(value) in (int, float) and 0 <= value < below
