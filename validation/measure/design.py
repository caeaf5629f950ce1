"""Which batches to measure: decodes × context, prompts, chunks × context, and mixtures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Composition:
    """One batch.

    Attributes:
        decodes: Decoding requests.
        context: KV tokens that each of them reads, its own new one included.
        prefills: Requests in prefill.
        chunk: Prompt tokens of each of them computed in this iteration.
        chunk_context: Tokens of each of them already in the cache.
    """

    decodes: int = 0
    context: int = 0
    prefills: int = 0
    chunk: int = 0
    chunk_context: int = 0

    @property
    def kind(self) -> str:
        """decode, prefill or mixed."""
        if not self.prefills:
            return "decode"
        return "mixed" if self.decodes else "prefill"

    @property
    def slots(self) -> int:
        """Requests that hold KV."""
        return self.decodes + self.prefills

    @property
    def length(self) -> int:
        """KV tokens that the longest request holds after the iteration."""
        return max(self.context, self.chunk + self.chunk_context)


def sweep_design(most_decodes: int, longest_context: int, longest_prompt: int) -> list[Composition]:
    """The design of a sweep, smallest batches first, so that an interrupted one is of use.

    Token counts stand on both sides of multiples of 64, where matrix products step to another tile.
    """
    decodes = [*_powers(1, min(8, most_decodes)), *range(16, most_decodes + 1, 16)]
    contexts = _powers(64, longest_context, 2)
    prompts = _powers(16, longest_prompt)
    prompts += [one + one // 2 for one in prompts if one >= 64 and one + one // 2 <= longest_prompt]
    prompts += [one + 1 for one in prompts if 64 <= one < longest_prompt]
    chunks = [one for one in _powers(32, longest_prompt, 2) if one <= 512]
    found = [Composition(decodes=b, context=c) for b in decodes for c in contexts]
    found += [Composition(prefills=1, chunk=p) for p in prompts]
    found += [
        Composition(prefills=1, chunk=p, chunk_context=c)
        for p in chunks
        for c in contexts
        if p + c <= longest_context
    ]
    found += [Composition(prefills=k, chunk=c) for k in (2, 4) for c in chunks]
    found += [
        Composition(b, contexts[len(contexts) // 2], 1, p, c)
        for b in decodes[::3]
        for p in chunks
        for c in (0, *contexts[1::2])
        if p + c <= longest_context
    ]
    return sorted(set(found), key=lambda one: one.slots * one.length)


def _powers(low: int, high: int, factor: int = 2) -> list[int]:
    found = []
    while low <= high:
        found.append(low)
        low *= factor
    return found
