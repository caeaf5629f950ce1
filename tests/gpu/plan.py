"""A reduced design of batches: decodes × context, prompts, chunks on context, and mixtures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from validation.measure.design import Composition


@dataclass(frozen=True)
class Reach:
    """Largest batches of the design.

    Attributes:
        kv_tokens: Slots × length at most: what fits into memory.
    """

    decodes: int
    context: int
    prompt: int
    kv_tokens: int


def reduced_design(reach: Reach, seed: int = 0) -> list[Composition]:
    """About 120 batches up to 256 decodes and prompts of 8,192, those that fit, in random order.

    So that what is left out when the time is up, and a card that slows down, bias no part of it.
    """
    found = {*_decodes(reach), *_prompts(reach), *_chunks(reach), *_mixtures(reach)}
    fitting = [one for one in found if one.slots * one.length <= reach.kv_tokens]
    ordered = sorted(fitting, key=lambda one: (one.slots * one.length, str(one)))
    random.Random(seed).shuffle(ordered)
    return ordered


def powers(low: int, high: int, factor: int = 2) -> list[int]:
    """low, low·factor, … up to high."""
    found = []
    while low <= high:
        found.append(low)
        low *= factor
    return found


def _decodes(reach: Reach) -> Iterator[Composition]:
    for decodes in powers(1, reach.decodes):
        for context in powers(64, reach.context):
            yield Composition(decodes=decodes, context=context)
    for decodes in powers(24, reach.decodes):
        for context in powers(256, reach.context, 4):
            yield Composition(decodes=decodes, context=context)


def _prompts(reach: Reach) -> Iterator[Composition]:
    """Both sides of the token counts at which matrix products step to another tile."""
    whole = powers(16, reach.prompt)
    more = [size + size // 2 for size in whole if size >= 64]
    more += [size + 1 for size in powers(64, reach.prompt, 4)]
    for size in (*whole, *more):
        if size <= reach.prompt:
            yield Composition(prefills=1, chunk=size)
    for count in (2, 4):
        for size in powers(128, reach.prompt // count, 4):
            yield Composition(prefills=count, chunk=size)


def _chunks(reach: Reach) -> Iterator[Composition]:
    for chunk in powers(32, reach.prompt // 2, 4):
        for context in powers(512, reach.prompt, 2):
            if chunk + context <= reach.prompt:
                yield Composition(prefills=1, chunk=chunk, chunk_context=context)


def _mixtures(reach: Reach) -> Iterator[Composition]:
    for decodes in powers(2, reach.decodes, 4):
        for chunk in powers(64, reach.prompt // 8, 4):
            for chunk_context in (0, reach.prompt // 8):
                yield Composition(decodes, reach.context // 8, 1, chunk, chunk_context)
