"""Servers: KV capacity, block size, stage convention and iteration time (THEORY 1.2–1.4)."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from fluid.errors import InputError
from fluid.files import FileModel
from fluid.iteration import IterationTime
from fluid.ranges import MOST_TOKENS, Name
from fluid.result import Result, Table, number
from fluid.workload import Workload

MOST_KV_TOKENS = 10**12
"""Of a server: a petabyte or more, and times a thousand stages still a whole number in a double."""

FirstToken = Literal["prefill", "decode"]

Span = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class MeasuredRange(FileModel):
    """Least and most of what the batches behind an iteration time consisted of.

    Attributes:
        tokens: n_tok, tokens computed in an iteration.
        kv_tokens: K, KV tokens read by decodes.
        decode_requests: B, decoding requests.
        prompt_tokens: p, prefill tokens of one request, over the batches with any; (0, 0) if none.
    """

    tokens: Span
    kv_tokens: Span
    decode_requests: Span
    prompt_tokens: Span

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, (low, high) in self:
            if high < low:
                raise ValueError(f"{name} must be [least, most]")
        return self

    def outside(self, quantity: str, value: float) -> str | None:
        """What is wrong with a value of the named quantity, in words; None where it was seen."""
        low, high = getattr(self, quantity)
        if low <= value <= high:
            return None
        words = quantity.replace("_", " ").replace("kv", "KV")
        return f"{value:,.6g} {words}, measured from {low:,.10g} to {high:,.10g}"


class Server(FileModel):
    """One server (one GPU, or one tensor-parallel group) that runs one batch at a time.

    Attributes:
        source: Where the numbers come from.
        kv_capacity_tokens: C, tokens of KV cache.
        block_tokens: Granularity of KV allocation; 1 is token-granular.
        first_token: Which stage emits the first output token: "prefill" (engine convention,
            S = l' stages) or "decode" (paper convention, S = l' + 1), THEORY 1.2.
        iteration_time: τ of a batch.
        measured_range: The batches that τ was fitted to, where it was; beyond them it is a guess.
        engine, gpu, gpu_memory_gib: What runs there and on what, where that is known.
        max_num_batched_tokens: Tokens that the engine computes in an iteration at most; `vllm-v1`
            takes vLLM's default for `gpu_memory_gib` where it is not given, as for the next.
        max_num_seqs: Requests that it has in service at most.
        max_model_len: Tokens of one request at most, prompt and output.

    >>> import fluidwait as fw
    >>> server = fw.Server.named("a100-80gb-llama-2-7b")
    >>> server.usable_kv_tokens, server.first_token
    (118784, 'prefill')
    """

    name: Name
    source: str
    kv_capacity_tokens: Annotated[int, Field(ge=1, le=MOST_KV_TOKENS)]
    block_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 1
    first_token: FirstToken = "prefill"
    iteration_time: IterationTime
    measured_range: MeasuredRange | None = None
    engine: Literal["vllm", "sglang", "trtllm"] | None = None
    gpu: str | None = None
    gpu_memory_gib: Annotated[float, Field(gt=0)] | None = None
    max_num_batched_tokens: Annotated[int, Field(ge=1)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _holds_a_block(self) -> Self:
        if self.block_tokens > self.kv_capacity_tokens:
            raise ValueError(
                f"kv_capacity_tokens of at least one block, {self.block_tokens} tokens, "
                f"not {self.kv_capacity_tokens}"
            )
        return self

    @classmethod
    def named(cls, name: str) -> Server:
        """A server that is shipped with the package; `builtin_servers` lists them.

        Raises:
            InputError: There is none of that name.
        """
        if name not in builtin_servers():
            raise InputError("server", name, _near(name))
        with resources.as_file(_FOLDER / f"{name}.json") as path:
            return cls.read(path)

    @property
    def usable_kv_tokens(self) -> int:
        """Capacity in whole blocks, in tokens."""
        return self.kv_capacity_tokens // self.block_tokens * self.block_tokens

    @property
    def vllm_limits(self) -> tuple[int | None, int | None]:
        """Tokens and requests per iteration under vLLM: as the file says, else vLLM's defaults.

        None where neither the limit nor the GPU's memory is known, or another engine runs here.
        """
        tokens, requests = self.max_num_batched_tokens, self.max_num_seqs
        if self.gpu_memory_gib is None or self.engine not in (None, "vllm"):
            return tokens, requests
        defaults = vllm_defaults(self.gpu or "", self.gpu_memory_gib)
        return tokens or defaults[0], requests or defaults[1]

    def block_rounded(self, tokens: int) -> int:
        """KV tokens that a request holding `tokens` occupies."""
        return -(-tokens // self.block_tokens) * self.block_tokens


def vllm_defaults(gpu: str, memory_gib: float) -> tuple[int, int]:
    """Tokens and requests per iteration of a vLLM server that is not told otherwise.

    Source: `EngineArgs.get_batch_defaults` of vLLM 0.29 to 0.33 (API server; offline there are more
    tokens).

    Args:
        gpu: Its name.
        memory_gib: Of one GPU.

    >>> from fluid.server import vllm_defaults
    >>> vllm_defaults("a100_sxm", 80), vllm_defaults("h100_sxm", 80), vllm_defaults("b200", 180)
    ((2048, 256), (8192, 1024), (16384, 1024))
    """
    if memory_gib >= 160:
        return 16_384, 1_024
    if memory_gib >= 70 and "a100" not in gpu.lower():
        return 8_192, 1_024
    return 2_048, 256


_FOLDER = resources.files("fluid") / "servers"


def builtin_servers() -> list[str]:
    """Names of the servers shipped with the package."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def load_server(name_or_path: str) -> Server:
    """A built-in server by name, or a server file by path.

    Raises:
        InputError: No such built-in server or file, or the file is not valid.
    """
    if name_or_path in builtin_servers():
        return Server.named(name_or_path)
    if not os.path.exists(name_or_path):
        raise InputError("server", name_or_path, f"a server file, or {_near(name_or_path)}")
    return Server.read(name_or_path)


def _near(name: str) -> str:
    """Built-in servers that may have been meant, in words."""
    names = builtin_servers()
    near = [one for one in names if name.lower().replace("_", "-") in one]
    near = near or difflib.get_close_matches(name, names, n=6, cutoff=0.3) or names
    return f"one of the built-in servers (fluidwait server list): {', '.join(near[:6])}, …"


@dataclass(frozen=True, repr=False)
class ServerList(Result):
    """Servers beside each other."""

    servers: tuple[Server, ...]

    @classmethod
    def builtin(cls, model: str | None = None, gpu: str | None = None) -> ServerList:
        """Those that are shipped with the package.

        Args:
            model: Part of the name, as "llama"; case does not matter.
            gpu: Part of the name, as "h100".

        Raises:
            InputError: There is none like that.
        """
        found = builtin_servers()
        for field, part in (("model", model), ("gpu", gpu)):
            if part is not None:
                kept = [one for one in found if part.lower().replace("_", "-") in one]
                if not kept:
                    raise InputError(field, part, "part of a name: " + ", ".join(found))
                found = kept
        return cls(tuple(Server.named(name) for name in found))

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each server."""
        return {
            "name": [one.name for one in self.servers],
            "kv_capacity_tokens": [one.kv_capacity_tokens for one in self.servers],
            "block_tokens": [one.block_tokens for one in self.servers],
            "first_token": [one.first_token for one in self.servers],
            "engine": [one.engine for one in self.servers],
            "gpu": [one.gpu for one in self.servers],
            "overhead_s": [one.iteration_time.overhead_s for one in self.servers],
        }

    def blocks(self) -> Iterator[Table]:
        yield Table(
            "Built-in servers",
            ("name", "engine", "GPU", "KV tokens", "block", "first token", "overhead s"),
            tuple(
                (
                    one.name,
                    one.engine or "–",
                    one.gpu or "–",
                    number(float(one.kv_capacity_tokens)),
                    str(one.block_tokens),
                    one.first_token,
                    number(one.iteration_time.overhead_s),
                )
                for one in self.servers
            ),
            spare=("first token", "block", "engine", "GPU"),
        )

    def document(self) -> dict[str, Any]:
        return {"servers": [one.document() for one in self.servers]}


def peak_kv_tokens(
    prefill_tokens: ArrayLike,
    output_tokens: ArrayLike,
    context_tokens: ArrayLike = 0,
    *,
    first_token: FirstToken = "prefill",
    block_tokens: int = 1,
) -> NDArray[np.int64]:
    """KV that requests occupy in their last stage, in whole blocks (THEORY 1.2); all broadcast.

    The KV of the last output is never written where prefill emits the first one.

    Args:
        prefill_tokens: Prompts computed here; 0 for decode-only requests, which bring
            `context_tokens` instead.
    """
    prompts = np.asarray(prefill_tokens)
    unwritten = (prompts > 0) & (first_token == "prefill")
    peak = prompts + np.asarray(context_tokens) + np.asarray(output_tokens) - unwritten
    return np.asarray(-(-peak // block_tokens) * block_tokens)


class Fit(NamedTuple):
    """Requests beside what a server takes; arrays of the shape of the requests.

    Attributes:
        tokens: Of prompt, context and output.
        peak_kv_tokens: KV in the last stage.
        too_long: Whether they have more tokens than `max_model_len`.
        too_large: Whether they need more than the KV cache.
    """

    tokens: NDArray[np.int64]
    peak_kv_tokens: NDArray[np.int64]
    too_long: NDArray[np.bool_]
    too_large: NDArray[np.bool_]

    def require(self, server: Server, name: Callable[[int], str], longer: str) -> None:
        """Refuse the first request that the server cannot take.

        Args:
            name: What an error calls the request of an index.
            longer: What it says can be left out.

        Raises:
            InputError: Naming the request and its tokens.
        """
        for over, tokens, what, most, limit in (
            (
                self.too_long,
                self.tokens,
                "tokens of prompt and output",
                server.max_model_len,
                f"max_model_len {server.max_model_len}",
            ),
            (
                self.too_large,
                self.peak_kv_tokens,
                "KV tokens at its end",
                server.usable_kv_tokens,
                f"the {server.usable_kv_tokens} tokens",
            ),
        ):
            if over.any():
                index = int(np.argmax(over))
                raise InputError(
                    name(index),
                    f"{tokens[index]} {what}",
                    f"at most {limit} of server {server.name}; "
                    f"drop_longer_than={most} leaves {longer} out",
                )


def fit_of(
    prefill_tokens: NDArray[np.int64],
    output_tokens: NDArray[np.int64],
    context_tokens: NDArray[np.int64] | int,
    server: Server,
) -> Fit:
    """Which requests are too long or too large for a server; all of shape (n,)."""
    tokens = prefill_tokens + context_tokens + output_tokens
    peaks = peak_kv_tokens(
        prefill_tokens,
        output_tokens,
        context_tokens,
        first_token=server.first_token,
        block_tokens=server.block_tokens,
    )
    longest = np.inf if server.max_model_len is None else server.max_model_len
    return Fit(tokens, peaks, tokens > longest, peaks > server.usable_kv_tokens)


def require_fits(workload: Workload, server: Server) -> None:
    """Refuse a class of which not even one request fits into the KV cache, or is served.

    Of a conversation the last turn has to fit.

    Raises:
        InputError: Naming the class and its peak KV, or its tokens above `max_model_len`.
    """
    columns = workload.columns
    longest = workload.longest_prompts_tokens
    fit = fit_of(longest, columns.decode_tokens, columns.context_tokens, server)

    def name(index: int) -> str:
        one = workload.classes[index]
        turn = f", turn {len(one.turns.shares)}" if one.conversation else ""
        return f"classes[{index}] ({one.name}{turn})"

    fit.require(server, name, "longer requests of a trace")
