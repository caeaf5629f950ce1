"""Which batches to measure: decodes × context, prompts, chunks × context, and mixtures."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.errors import InputError


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
    def tokens(self) -> int:
        """Tokens computed."""
        return self.decodes + self.prefills * self.chunk

    @property
    def slots(self) -> int:
        """Requests that hold KV."""
        return self.decodes + self.prefills

    @property
    def length(self) -> int:
        """KV tokens that the longest request holds after the iteration."""
        return max(self.context, self.chunk + self.chunk_context)


@dataclass(frozen=True)
class BatchDesign:
    """How far a measurement reaches.

    Attributes:
        most_decodes: Decoding requests of the largest batch, at least 1.
        longest_context: KV tokens that a request reads at most, at least 64.
        longest_prompt: Prompt tokens of a request at most, at least 16.

    Raises:
        InputError: Naming the first field that is too small.
    """

    most_decodes: int = 128
    longest_context: int = 4096
    longest_prompt: int = 2048

    def __post_init__(self) -> None:
        least = {"most_decodes": 1, "longest_context": 64, "longest_prompt": 16}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(name, getattr(self, name), f"at least {value}")

    def batches(self) -> list[Composition]:
        """The batches, smallest first, so that an interrupted measurement is of use.

        Token counts stand on both sides of multiples of 64, where matrix products step to another
        tile.
        """
        decodes = [*_powers(1, min(8, self.most_decodes)), *range(16, self.most_decodes + 1, 16)]
        contexts = _powers(64, self.longest_context, 2)
        prompts = _powers(16, self.longest_prompt)
        prompts += [
            one + one // 2 for one in prompts if one >= 64 and one + one // 2 <= self.longest_prompt
        ]
        prompts += [one + 1 for one in prompts if 64 <= one < self.longest_prompt]
        chunks = [one for one in _powers(32, self.longest_prompt, 2) if one <= 512]
        found = [Composition(decodes=b, context=c) for b in decodes for c in contexts]
        found += [Composition(prefills=1, chunk=p) for p in prompts]
        found += [
            Composition(prefills=1, chunk=p, chunk_context=c)
            for p in chunks
            for c in contexts
            if p + c <= self.longest_context
        ]
        found += [Composition(prefills=k, chunk=c) for k in (2, 4) for c in chunks]
        found += [
            Composition(b, contexts[len(contexts) // 2], 1, p, c)
            for b in decodes[::3]
            for p in chunks
            for c in (0, *contexts[1::2])
            if p + c <= self.longest_context
        ]
        return sorted(set(found), key=lambda one: one.slots * one.length)


def _powers(low: int, high: int, factor: int = 2) -> list[int]:
    found = []
    while low <= high:
        found.append(low)
        low *= factor
    return found
