"""Workloads: what arrives at the server (THEORY 1.1).

A workload file lists request classes; each arrives as a Poisson stream, its rate constant unless
there is a rate profile, with a fixed prompt and output length. See README for the format.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from fluid.conversation import Conversation, Turns, turns_of
from fluid.errors import InputError
from fluid.files import FileModel, without_collection, write_document, write_text
from fluid.ranges import LEAST, MOST, MOST_OUTPUT_TOKENS, MOST_TOKENS, Name, PositiveFloat


def _in_one_sentence(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
    """One error for all alternatives of a union, where pydantic names only the first."""
    try:
        return inner(value)
    except ValidationError:
        raise ValueError('"mean", or a share between 0 and 1') from None


def _percentile(value: Any) -> Any:
    """The share that a percentile names: 0.99 of "p99"; anything else as it is."""
    named = re.fullmatch(r"p(\d{1,2}(?:\.\d{1,9})?)", value) if isinstance(value, str) else None
    return float(named[1]) / 100 if named else value


Statistic = Annotated[
    Literal["mean"] | Annotated[float, Field(gt=0, lt=1)],
    WrapValidator(_in_one_sentence),
    BeforeValidator(_percentile),
]
"""Which figure of a distribution: its mean, or a quantile, as a share or as "p99"."""

LIMITS = ("ttft_s", "tpot_s", "latency_s")
"""What a service level may limit, as the fields are called."""


class Slo(FileModel):
    """Service levels: TTFT, TPOT and latency stay below these seconds.

    A request *attains* them if it meets every limit that is given.

    Attributes:
        quantile: Which share of the requests has to attain them, also as a percentile ("p99"); or
            "mean": each limit is one of the mean.

    >>> import fluidwait as fw
    >>> fw.Slo(ttft_s=1.0, tpot_s=0.05).quantile, fw.Slo(ttft_s=1.0, quantile="p95").quantile
    (0.99, 0.95)
    """

    ttft_s: PositiveFloat | None = None
    tpot_s: PositiveFloat | None = None
    latency_s: PositiveFloat | None = None
    quantile: Statistic = 0.99

    @property
    def limits_s(self) -> dict[str, float]:
        """The limits that are given, by field."""
        found = {name: getattr(self, name) for name in LIMITS}
        return {name: limit_s for name, limit_s in found.items() if limit_s is not None}

    @property
    def words(self) -> str:
        """What is asked, as "p99" or "mean"."""
        return "mean" if self.quantile == "mean" else f"p{100 * self.quantile:.9g}"


class RequestClass(FileModel):
    """One class j of requests.

    Attributes:
        rate_per_s: Arrival rate λ_j in requests per second.
        prefill_tokens: Prompt length l_j; 0 only together with `context_tokens`.
        decode_tokens: Output length l'_j.
        context_tokens: KV already present on arrival (decode-only servers, THEORY 5.5).
        slo: Service-level objective, if the class has one.
        weight: Relative worth of a request of this class where classes compete.
        shared_prefix_tokens: With which every prompt of the class begins (THEORY 10.1).
        conversation: How requests follow each other (THEORY 10.2). `rate_per_s` then counts turns,
            and `prefill_tokens` follows: the mean prompt over turns, in whole tokens.

    >>> import fluidwait as fw
    >>> chat = fw.RequestClass(name="chat", rate_per_s=7.0, prefill_tokens=512, decode_tokens=120)
    >>> chat.decode_tokens
    120
    """

    name: Name
    rate_per_s: PositiveFloat
    prefill_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)]
    decode_tokens: Annotated[int, Field(ge=1, le=MOST_OUTPUT_TOKENS)]
    context_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 0
    slo: Slo | None = None
    weight: PositiveFloat = 1.0
    shared_prefix_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    conversation: Conversation | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_prompt_yet(cls, fields: Any) -> Any:
        """Where there are conversations the prompt is not given: room for the one that follows."""
        if isinstance(fields, dict) and fields.get("conversation") is not None:
            return {"prefill_tokens": 0} | fields
        return fields

    @model_validator(mode="after")
    def _prompt_of_conversation(self) -> Self:
        if self.conversation is None:
            return self
        if self.context_tokens:
            raise ValueError("context_tokens is not for conversations, whose context follows")
        turns = self.turns
        if turns.prefill_tokens[-1] > MOST_TOKENS:
            raise ValueError(f"a conversation must not grow beyond {MOST_TOKENS:,} tokens")
        mean = round(float(turns.shares @ turns.prefill_tokens))
        if self.prefill_tokens not in (0, mean):
            raise ValueError(
                "prefill_tokens must be left out beside conversation, from which it follows"
            )
        self.__dict__["prefill_tokens"] = mean
        return self

    @model_validator(mode="after")
    def _prefix_within_prompt(self) -> Self:
        if self.prefix_tokens and self.prefix_tokens > self.prefill_tokens:
            raise ValueError("shared_prefix_tokens must not be above prefill_tokens")
        return self

    @model_validator(mode="after")
    def _prompt_or_context(self) -> Self:
        if self.prefill_tokens and self.context_tokens:
            raise ValueError("prefill_tokens must be 0 where context_tokens is given")
        if not self.prefill_tokens and not self.context_tokens:
            raise ValueError("prefill_tokens ≥ 1, or context_tokens ≥ 1 for decode-only servers")
        return self

    def changed(self, **fields: Any) -> Self:
        """As `FileModel.changed`; the prompt of a conversation follows anew."""
        follows = {} if self.conversation is None else {"prefill_tokens": 0}
        return super().changed(**follows | fields)

    @property
    def prefix_tokens(self) -> int:
        """`shared_prefix_tokens`, 0 where there are none."""
        return self.shared_prefix_tokens or 0

    @property
    def has_prefix(self) -> bool:
        """Whether a prompt may begin like an earlier one, so that a prefix cache can help."""
        return self.conversation is not None or bool(self.shared_prefix_tokens)

    @property
    def turns(self) -> Turns:
        """The requests by their place in a conversation."""
        return turns_of(
            self.conversation, self.prefix_tokens, self.prefill_tokens, self.decode_tokens
        )

    @property
    def longest_prompt_tokens(self) -> int:
        """Prompt of the last turn; `prefill_tokens` where there are no conversations."""
        return int(self.turns.prefill_tokens[-1]) if self.conversation else self.prefill_tokens


@dataclass(frozen=True)
class Requests:
    """The requests of a class that has no name yet, in short: for `Workload.of`.

    Attributes:
        rate_per_s: Arrival rate in requests per second.
        prompt: Prompt length in tokens; 0 only together with `context`.
        output: Output length in tokens.
        context: KV tokens already present on arrival (decode-only servers, THEORY 5.5).
        slo: Service-level objective, if there is one.
        weight: Relative worth of such a request where classes compete.
        shared_prefix: Tokens with which every prompt begins.
        conversation: How requests follow each other; `prompt` is 0 then, since it follows.

    Raises:
        InputError: Naming the first of them that is out of range.

    >>> import fluidwait as fw
    >>> fw.Requests(7.0, prompt=512, output=120).named("chat").prefill_tokens
    512
    """

    rate_per_s: float
    prompt: int
    output: int
    _: KW_ONLY
    context: int = 0
    slo: Slo | None = None
    weight: float = 1.0
    shared_prefix: int = 0
    conversation: Conversation | None = None

    def __post_init__(self) -> None:
        try:
            self.named("requests")
        except InputError as error:
            field = _SHORT_NAMES.get(error.field, error.field)
            raise InputError(field, error.value, error.allowed) from None

    def named(self, name: str) -> RequestClass:
        """The class of these requests.

        Raises:
            InputError: The name is empty.
        """
        return RequestClass(
            name=name,
            rate_per_s=self.rate_per_s,
            prefill_tokens=self.prompt,
            decode_tokens=self.output,
            context_tokens=self.context,
            slo=self.slo,
            weight=self.weight,
            shared_prefix_tokens=self.shared_prefix or None,
            conversation=self.conversation,
        )


_SHORT_NAMES = {
    "prefill_tokens": "prompt",
    "decode_tokens": "output",
    "context_tokens": "context",
    "shared_prefix_tokens": "shared_prefix",
}
"""Fields of `RequestClass` that `Requests` calls by another name."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The classes of a workload side by side; read-only arrays of shape (m,).

    Attributes:
        rates_per_s: λ_j.
        prefill_tokens: l_j.
        decode_tokens: l'_j.
        context_tokens: KV already present on arrival.
    """

    rates_per_s: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decode_tokens: NDArray[np.int64]
    context_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        for one in vars(self).values():
            one.flags.writeable = False

    @cached_property
    def kinds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Classes of the same lengths are one kind: first class of each, (k,), kind of each, (m,).

        Kinds are in the order of their first classes.
        """
        shapes = [self.prefill_tokens, self.context_tokens, self.decode_tokens]
        _, first, kind = np.unique(
            np.column_stack(shapes), axis=0, return_index=True, return_inverse=True
        )
        rank = np.argsort(np.argsort(first))
        return np.sort(first), rank[kind.ravel()]


class RatePiece(FileModel):
    """From `start_s` on, until the next piece, every rate is multiplied by `multiplier`.

    Attributes:
        class_multipliers: By class name, what the rate of that class is multiplied by besides, so
            that the mix varies too.
    """

    start_s: Annotated[float, Field(ge=0, le=MOST)]
    multiplier: Annotated[float, Field(ge=0, le=MOST)]
    class_multipliers: dict[Name, PositiveFloat] | None = None

    def __hash__(self) -> int:
        return hash(
            (self.start_s, self.multiplier, *sorted((self.class_multipliers or {}).items()))
        )

    def factor(self, name: str) -> float:
        """What the rate of a class is multiplied by."""
        return self.multiplier * (self.class_multipliers or {}).get(name, 1.0)


class Workload(FileModel):
    """A mix of request classes.

    Attributes:
        classes: At least one class, names unique.
        slo: Service levels of the classes that have none of their own, all of them together.
        decode_known: Whether a scheduler may use a request's output length before it ends.
        source: Where the numbers come from (attribution), kept in every table made from them.
        rate_profile: Piecewise constant multipliers of all rates over time (THEORY 5.1), from 0 s
            on; the last holds for ever unless the profile is periodic.
        period_s: After so many seconds the profile starts again.
        observed_s: Seconds over which the rates were counted, where a recording is behind them: so
            many requests and no more stand for each rate (THEORY 5.7).

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, 512, 120), code=fw.Requests(1.0, 2048, 250))
    >>> load.rate_per_s, [one.name for one in load.classes]
    (8.0, ['chat', 'code'])
    >>> load.at_rate(4.0).classes[0].rate_per_s
    3.5
    """

    name: Name
    classes: Annotated[tuple[RequestClass, ...], Field(min_length=1)]
    slo: Slo | None = None
    decode_known: bool = True
    source: str | None = None
    rate_profile: Annotated[tuple[RatePiece, ...], Field(min_length=1)] | None = None
    period_s: PositiveFloat | None = None
    observed_s: PositiveFloat | None = None

    @classmethod
    def of(cls, name: str = "workload", /, **classes: Requests) -> Workload:
        """A workload of named classes, written down in one line.

        Raises:
            InputError: No class, or a value that is not `Requests`.
        """
        for field, one in classes.items():
            if not isinstance(one, Requests):
                raise InputError(field, one, "Requests(rate_per_s, prompt, output)")
        return cls(name=name, classes=tuple(one.named(field) for field, one in classes.items()))

    def write(self, path: str | Path, comment: str = "") -> None:
        """Write a workload file, whole or not at all; fields at their defaults are left out.

        A ``.yaml`` or ``.yml`` file starts with `comment`, one ``#`` line per line; any other
        suffix means JSON, which has no comments.

        Raises:
            InputError: The folder is missing or not writable.
        """
        document = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        for one in document["classes"]:
            if "conversation" in one:
                del one["prefill_tokens"]
        if Path(path).suffix not in {".yaml", ".yml"}:
            write_document(document, path)
            return
        classes = document.pop("classes")
        lines = [f"# {line}".rstrip() for line in comment.splitlines()]
        lines += [_yaml(document), "classes:"]
        lines += [f"  - {_yaml(one, flow=True)}" for one in classes]
        write_text(path, "\n".join(lines) + "\n")

    @model_validator(mode="after")
    def _profile_makes_sense(self) -> Self:
        if self.rate_profile is None:
            if self.period_s is not None:
                raise ValueError("period_s needs a rate_profile")
            return self
        starts = [one.start_s for one in self.rate_profile]
        if starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
            raise ValueError("start_s of rate_profile must be 0 first and then increase")
        if self.period_s is not None and self.period_s <= starts[-1]:
            raise ValueError(f"period_s must be above the last start_s, {starts[-1]:g}")
        if self.mean_multiplier == 0:
            ends = "its mean" if self.period_s else "its last multiplier"
            raise ValueError(f"rate_profile must not end all arrivals: {ends} must be above 0")
        return self

    @model_validator(mode="after")
    def _profile_names_classes(self) -> Self:
        known = {one.name for one in self.classes}
        for piece in self.rate_profile or ():
            for name in piece.class_multipliers or ():
                if name not in known:
                    raise ValueError(
                        f"class_multipliers must name classes of the workload, {name!r} is none"
                    )
        return self

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names):
            ((name, _),) = Counter(names).most_common(1)
            raise ValueError(f"class names must be unique, {name!r} is not")
        return self

    def __hash__(self) -> int:
        """Of a part: a workload of many classes is asked for its hash wherever a result is kept."""
        return hash((self.name, len(self.classes), self.classes[0], self.classes[-1]))

    @cached_property
    def columns(self) -> Columns:
        """The classes as arrays, for whoever computes with all of them at once."""
        classes = self.classes
        return Columns(
            rates_per_s=np.array([one.rate_per_s for one in classes]),
            prefill_tokens=np.array([one.prefill_tokens for one in classes]),
            decode_tokens=np.array([one.decode_tokens for one in classes]),
            context_tokens=np.array([one.context_tokens for one in classes]),
        )

    @cached_property
    def longest_prompts_tokens(self) -> NDArray[np.int64]:
        """The longest prompt of each class, that of the last turn of a conversation, shape (m,)."""
        if not self.has_prefixes:
            return self.columns.prefill_tokens
        return np.array([one.longest_prompt_tokens for one in self.classes])

    @cached_property
    def has_prefixes(self) -> bool:
        """Whether prompts of some class may begin like earlier ones."""
        return any(one.has_prefix for one in self.classes)

    @cached_property
    def rate_per_s(self) -> float:
        """Total arrival rate Σ λ_j in requests per second."""
        return sum(one.rate_per_s for one in self.classes)

    @property
    def rates_per_s(self) -> NDArray[np.float64]:
        """λ_j in requests per second, shape (m,)."""
        return self.columns.rates_per_s

    @property
    def shares(self) -> NDArray[np.float64]:
        """λ_j/λ, shape (m,)."""
        rates = self.rates_per_s
        return np.asarray(rates / rates.sum())

    @property
    def factors(self) -> NDArray[np.float64]:
        """What each piece of the rate profile multiplies λ_j by, shape (pieces, m)."""
        pieces = self.rate_profile or (RatePiece(start_s=0, multiplier=1),)
        factors = np.empty((len(pieces), len(self.classes)))
        for row, piece in zip(factors, pieces, strict=True):
            row[:] = piece.multiplier
            if piece.class_multipliers:
                row[:] = [piece.factor(one.name) for one in self.classes]
        return factors

    @property
    def mean_multipliers(self) -> NDArray[np.float64]:
        """Long-run mean of each class's multiplier, shape (m,): over a period, or the last piece,
        which never ends."""
        if self.rate_profile is None or self.period_s is None:
            return np.asarray(self.factors[-1])
        ends = [*(one.start_s for one in self.rate_profile[1:]), self.period_s]
        seconds = np.array(
            [end - one.start_s for end, one in zip(ends, self.rate_profile, strict=True)]
        )
        return np.asarray(seconds @ self.factors / self.period_s)

    @property
    def mean_multiplier(self) -> float:
        """Long-run mean of the total rate ÷ Σ λ_j."""
        return float(self.shares @ self.mean_multipliers)

    def scaled(self, factor: float) -> Workload:
        """The same mix with every rate multiplied by `factor`; requests observed stay as many.

        Raises:
            InputError: The factor is not a positive finite number.
        """
        if not 0 < factor < math.inf:
            raise InputError("factor", factor, "a positive finite number")
        with without_collection():
            classes = tuple(
                one.model_copy(update={"rate_per_s": one.rate_per_s * factor})
                for one in self.classes
            )
        observed_s = self.observed_s and self.observed_s / factor
        return self.model_copy(update={"classes": classes, "observed_s": observed_s})

    def at_rate(self, rate_per_s: float) -> Workload:
        """The same mix at a total rate in requests per second.

        Raises:
            InputError: The rate is not a positive number within bounds.
        """
        if not LEAST <= rate_per_s <= MOST:
            raise InputError("rate_per_s", rate_per_s, f"a positive number, {LEAST:g} to {MOST:g}")
        return self.scaled(rate_per_s / self.rate_per_s)


class PrefixesIgnored(UserWarning):
    """A question whose answer counts every prompt as computed whole, at the mean of its class."""


def warn_of_prefixes(workload: Workload) -> None:
    """Say that what follows knows no prefix cache; silent for a workload without prefixes."""
    if workload.has_prefixes:
        warnings.warn(
            f"{workload.name}: no prefix cache is counted here: every prompt is computed whole, and"
            " each turn of a conversation has the mean prompt of its class",
            PrefixesIgnored,
            stacklevel=3,
        )


def _yaml(value: object, flow: bool = False) -> str:
    text = yaml.safe_dump(
        value, default_flow_style=flow, sort_keys=False, width=10_000, allow_unicode=True
    )
    return text.rstrip("\n")
