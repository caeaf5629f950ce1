"""What the summary needs of a trace, in bounded memory however long the trace is.

Requests of equal prompt and output length are one group, kept as sums of φ (`FIGURES`) over its
requests. Beyond `MOST_GROUPS` distinct pairs, the groups become cells of a logarithmic grid, 4 %
wide; the sums stay exact, so that the figures of the trace do, and only the cut of a trace into
classes sees the cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.traces.tape import Tape
from fluid.traces.trace import Chunk

FIGURES = ("rate", "mean prefill tokens", "mean decode tokens", "memory sum", "prefill tokens²")
MOST_GROUPS = 1 << 18
# Lengths below 2³⁰ fall into at most 480 cells, so that all cells are fewer than MOST_GROUPS.
_CELLS_PER_OCTAVE = 16
_FEWEST_MERGED = 1 << 12


@dataclass(frozen=True)
class Digest:
    """A trace by groups of similar requests.

    Attributes:
        sums: Σ φ over the requests of each group, in the order of `FIGURES`, shape (groups, 5);
            the first column counts requests.
        rate_per_s: Arrivals per second, None where the trace does not tell.
        dropped: Requests that are not in it: failed, or too long.
    """

    sums: NDArray[np.float64]
    rate_per_s: float | None
    dropped: int = 0

    @property
    def requests(self) -> int:
        """How many requests it is made of."""
        return round(float(self.sums[:, 0].sum()))

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of φ per request, shape (5,); its first entry is 1."""
        totals = self.sums.sum(axis=0)
        return np.asarray(totals / totals[0])

    def rate(self) -> float:
        """The arrival rate.

        Raises:
            InputError: The trace has none.
        """
        if self.rate_per_s is None:
            raise InputError("rate", "none", "requests that arrive over time, or a rate given")
        return self.rate_per_s

    @classmethod
    def of(cls, tape: Tape) -> Digest:
        """The digest of a tape."""
        chunk = Chunk(tape.arrived_at_s, tape.num_prefill_tokens, tape.num_decode_tokens)
        return digest([chunk])


def moments(prefill_tokens: ArrayLike, decode_tokens: ArrayLike) -> NDArray[np.float64]:
    """φ per request in the order of `FIGURES`, shape (n, 5)."""
    prompt, output = np.asarray(prefill_tokens, float), np.asarray(decode_tokens, float)
    memory = output * (prompt + (output - 1) / 2)
    return np.column_stack([np.ones_like(prompt), prompt, output, memory, prompt**2])


def digest(chunks: Iterable[Chunk]) -> Digest:
    """The digest of a trace, chunk by chunk.

    Raises:
        InputError: No request is left, or what the chunks raise.
    """
    groups = _Groups()
    requests = dropped = 0
    first_s = last_s = None
    for chunk in chunks:
        dropped += chunk.dropped
        if len(chunk.num_prefill_tokens) == 0:
            continue
        requests += len(chunk.num_prefill_tokens)
        groups.add(chunk)
        if chunk.arrived_at_s is not None:
            first_s = chunk.arrived_at_s[0] if first_s is None else first_s
            last_s = chunk.arrived_at_s[-1]
    if requests == 0:
        allowed = "at least one request that succeeded, and is not longer than it may be"
        raise InputError("", "only requests that were left out", allowed)
    span_s = float(last_s - first_s) if first_s is not None and last_s is not None else 0.0
    rate_per_s = (requests - 1) / span_s if span_s > 0 else None
    return Digest(groups.sums(), rate_per_s, dropped)


class _Groups:
    """Sums of φ by key: a pair of lengths, or of cells once there are too many pairs."""

    def __init__(self) -> None:
        self._keys = np.empty(0, dtype=np.int64)
        self._sums = np.empty((0, len(FIGURES)))
        self._new: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._cells = False

    def add(self, chunk: Chunk) -> None:
        pairs, counts = np.unique(
            _joined(chunk.num_prefill_tokens, chunk.num_decode_tokens), return_counts=True
        )
        sums = moments(*_parted(pairs)) * counts[:, None]
        self._new.append((_cell(pairs) if self._cells else pairs, sums))
        # As many new groups as old ones, so that merging costs a constant time per request.
        if sum(len(keys) for keys, _ in self._new) >= max(len(self._keys), _FEWEST_MERGED):
            self._merge()

    def sums(self) -> NDArray[np.float64]:
        self._merge()
        return self._sums

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._new)])
        sums = np.concatenate([self._sums, *(sums for _, sums in self._new)])
        self._new.clear()
        self._keys, self._sums = _grouped(keys, sums)
        if len(self._keys) > MOST_GROUPS and not self._cells:
            self._cells = True
            self._keys, self._sums = _grouped(_cell(self._keys), self._sums)


def _grouped(
    keys: NDArray[np.int64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    distinct, place = np.unique(keys, return_inverse=True)
    columns = [np.bincount(place, column, len(distinct)) for column in sums.T]
    return distinct, np.column_stack(columns)


def _joined(prompts: NDArray[np.int64], outputs: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray((prompts << 32) | outputs)


def _parted(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return pairs >> 32, pairs & 0xFFFFFFFF


def _cell(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    prompts, outputs = (
        (np.log2(tokens) * _CELLS_PER_OCTAVE).astype(np.int64) for tokens in _parted(pairs)
    )
    return _joined(prompts, outputs)
