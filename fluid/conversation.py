"""Conversations: requests whose prompts repeat all that was said before them (THEORY 10.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from fluid.files import FileModel
from fluid.ranges import MOST, MOST_TOKENS, PositiveFloat

MOST_TURNS = 10_000
"""Of a conversation."""

MOST_MEAN_TURNS = 500

RARE = 1e-6
"""A mean number of turns stands for a geometric law, cut after the turn that fewer conversations
than this share reach."""


def _one_sentence(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    try:
        return inner(value)
    except ValidationError:
        raise ValueError(
            f"a mean from 1 to {MOST_MEAN_TURNS}, or weights by number of turns,"
            f" 1 to {MOST_TURNS:,}, such as {{1: 0.5, 4: 0.5}}"
        ) from None


def _some_weight(weights: dict[int, float]) -> dict[int, float]:
    if not weights or sum(weights.values()) <= 0:
        raise ValueError("some turns")
    return weights


TurnLaw = Annotated[
    Annotated[float, Field(ge=1, le=MOST_MEAN_TURNS)]
    | Annotated[
        dict[Annotated[int, Field(ge=1, le=MOST_TURNS, strict=False)], PositiveFloat],
        AfterValidator(_some_weight),
    ],
    WrapValidator(_one_sentence),
]
"""How many turns a conversation has; a file may have the numbers as texts, as JSON does."""


class Conversation(FileModel):
    """How the requests of a class follow each other: turn k repeats all that was said before.

    Attributes:
        turns: Mean number of turns, then geometric; or the weight of each number of turns.
        think_time_s: Mean time from the end of a turn to the arrival of the next one; 0 is allowed.
        new_tokens: What each turn adds to the prompt.
        think_time_law: "exponential", or "fixed" where every think time is the mean.

    >>> import fluidwait as fw
    >>> chat = fw.Conversation(turns=5.0, think_time_s=20.0, new_tokens=200)
    >>> chat.mean_turns.round(3), fw.Conversation(
    ...     turns={1: 1.0, 3: 1.0}, think_time_s=0.0, new_tokens=64
    ... ).reached.tolist()
    (np.float64(5.0), [1.0, 0.5, 0.5])
    """

    turns: TurnLaw
    think_time_s: Annotated[float, Field(ge=0, le=MOST)]
    new_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    think_time_law: Literal["exponential", "fixed"] = "exponential"

    def __hash__(self) -> int:
        turns = tuple(self.turns.items()) if isinstance(self.turns, dict) else self.turns
        return hash((turns, self.think_time_s, self.new_tokens, self.think_time_law))

    @property
    def reached(self) -> NDArray[np.float64]:
        """Share of the conversations that have a k-th turn, k = 1 … K, shape (K,)."""
        if isinstance(self.turns, dict):
            weights = np.zeros(max(self.turns))
            for turns, weight in self.turns.items():
                weights[turns - 1] += weight
            shares = np.cumsum(weights[::-1])[::-1]
            return np.asarray(shares / shares[0])
        go_on = 1 - 1 / self.turns
        most = 1 if go_on == 0 else 1 + math.ceil(math.log(RARE) / math.log(go_on))
        return np.asarray(go_on ** np.arange(min(most, MOST_TURNS)))

    @property
    def mean_turns(self) -> np.float64:
        """Turns of a conversation on average."""
        return np.float64(self.reached.sum())

    def said_before(self, decode_tokens: int) -> NDArray[np.int64]:
        """c_k: tokens of the turns before the k-th, shape (K,)."""
        return np.arange(len(self.reached)) * (self.new_tokens + decode_tokens)


@dataclass(frozen=True, eq=False)
class Turns:
    """The requests of a class by their place in a conversation; arrays of shape (K,).

    A class without conversations has one turn.

    Attributes:
        shares: Share of the class's requests that are k-th turns.
        go_on: Share of the k-th turns that another one follows.
        prefill_tokens: Prompt, whatever of it is cached.
        context_tokens: c_k, what of it was said in earlier turns.
    """

    shares: NDArray[np.float64]
    go_on: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    context_tokens: NDArray[np.int64]


def turns_of(
    conversation: Conversation | None, shared_tokens: int, prefill_tokens: int, decode_tokens: int
) -> Turns:
    """The turns of a class.

    Args:
        shared_tokens: With which each conversation begins.
        prefill_tokens: Of a class without conversations.
    """
    if conversation is None:
        one = np.ones(1)
        return Turns(one, np.zeros(1), np.array([prefill_tokens]), np.zeros(1, dtype=np.int64))
    reached = conversation.reached
    before = conversation.said_before(decode_tokens)
    return Turns(
        shares=reached / reached.sum(),
        go_on=np.append(reached[1:], 0.0) / reached,
        prefill_tokens=shared_tokens + before + conversation.new_tokens,
        context_tokens=before,
    )
