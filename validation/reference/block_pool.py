"""vLLM's pool of KV blocks, with what earlier requests left in them, block by block.

A full block whose tokens are all known *enters*: it can be found by its content, which stands for
the block's tokens and all before them. Several blocks may hold the same content; the one that
entered first is found. A block that nobody uses is free, whether it has entered or not; it keeps
its content until it is handed out again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from validation.reference.request import Request


@dataclass
class BlockPool:
    """Blocks 1 … M − 1; block 0, the null block, is never handed out.

    Attributes:
        caching: Whether full blocks enter.
        free: Blocks that nobody uses, the next to be handed out first.
        tables: Blocks of each request that has any, from its first token on.
        users: How many requests use a block.
        contents: What the blocks hold that have entered.
        copies: Blocks by content, in order of entry.
        entered: How many of a request's blocks have entered, found ones included.
        order: Who held blocks after the last decision, in the order of the batch.
        found_tokens: Tokens that each request has found at its last admission.
        evicted: Blocks that were handed out again although they had entered.
    """

    blocks: int
    block_tokens: int
    caching: bool
    free: list[int] = field(default_factory=list)
    tables: dict[Request, list[int]] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    contents: dict[int, Hashable] = field(default_factory=dict)
    copies: dict[Hashable, list[int]] = field(default_factory=dict)
    entered: dict[Request, int] = field(default_factory=dict)
    order: list[Request] = field(default_factory=list)
    found_tokens: dict[Request, int] = field(default_factory=dict)
    evicted: int = 0

    def __post_init__(self) -> None:
        self.free = list(range(1, self.blocks))
        self.users = dict.fromkeys(self.free, 0)

    @property
    def used(self) -> int:
        """Blocks in use, each once."""
        return self.blocks - 1 - len(self.free)

    def blocks_for(self, tokens: int) -> int:
        """⌈tokens / block⌉."""
        return -(-tokens // self.block_tokens)

    def find(self, one: Request, known: int) -> list[int]:
        """The longest run of found blocks from the first on; at least one token is left over."""
        found: list[int] = []
        if self.caching:
            for index in range((known - 1) // self.block_tokens):
                copies = self.copies.get(content_of(one, index))
                if not copies:
                    break
                found.append(copies[0])
        return found

    def missing(self, one: Request, tokens: int, found: Sequence[int] = ()) -> int:
        """Free blocks that it takes to hold so many tokens: new ones, and found ones not in use."""
        new = self.blocks_for(tokens) - len(found) - len(self.tables.get(one, ()))
        return max(new, 0) + sum(self.users[block] == 0 for block in found)

    def take(self, one: Request, tokens: int, known: int, found: Sequence[int] = ()) -> None:
        """Give a request the blocks for so many tokens, of which `known` have a value already."""
        table = self.tables.setdefault(one, [])
        for block in found:
            if self.users[block] == 0:
                self.free.remove(block)
            self.users[block] += 1
            table.append(block)
        if found:
            self.entered[one] = len(found)
        while len(table) < self.blocks_for(tokens):
            block = self.free.pop(0)
            if block in self.contents:
                self.evicted += 1
                self._forget(block)
            self.users[block] = 1
            table.append(block)
        self.enter(one, min(tokens, known))

    def enter(self, one: Request, tokens: int) -> None:
        """Let the blocks enter that so many tokens fill."""
        if not self.caching:
            return
        for index in range(self.entered.get(one, 0), tokens // self.block_tokens):
            block, content = self.tables[one][index], content_of(one, index)
            self.contents[block] = content
            self.copies.setdefault(content, []).append(block)
            self.entered[one] = index + 1

    def release(self, one: Request) -> None:
        """Take back its blocks, the last first: those without content are handed out next."""
        first: list[int] = []
        last: list[int] = []
        for block in reversed(self.tables.pop(one)):
            self.users[block] -= 1
            if self.users[block] == 0:
                (last if block in self.contents else first).append(block)
        self.free = first + self.free + last
        self.entered.pop(one, None)

    def _forget(self, block: int) -> None:
        content = self.contents.pop(block)
        self.copies[content].remove(block)


def content_of(one: Request, index: int) -> Hashable:
    """What a full block of a request holds; nobody else's where the request does not say."""
    return one.content[index] if index < len(one.content) else (one.number, index)
