"""Servers: KV capacity, block size, stage convention and iteration time (THEORY 1.2–1.4)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fluid.errors import InputError
from fluid.files import FileModel
from fluid.iteration import IterationTime
from fluid.workload import Name, Workload

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
    """

    name: Name
    source: str
    kv_capacity_tokens: Annotated[int, Field(ge=1)]
    block_tokens: Annotated[int, Field(ge=1)] = 1
    first_token: Literal["prefill", "decode"] = "prefill"
    iteration_time: IterationTime
    measured_range: MeasuredRange | None = None

    @property
    def usable_kv_tokens(self) -> int:
        """Capacity in whole blocks, in tokens."""
        return self.kv_capacity_tokens // self.block_tokens * self.block_tokens

    def block_rounded(self, tokens: int) -> int:
        """KV tokens that a request holding `tokens` occupies."""
        return -(-tokens // self.block_tokens) * self.block_tokens


def builtin_servers() -> list[str]:
    """Names of the servers shipped with the package."""
    folder = resources.files("fluid") / "servers"
    return sorted(
        entry.name.removesuffix(".json")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )


def load_server(name_or_path: str) -> Server:
    """A built-in server by name, or a server file by path.

    Raises:
        InputError: No such built-in server or file, or the file is not valid.
    """
    names = builtin_servers()
    if name_or_path in names:
        with resources.as_file(resources.files("fluid") / "servers" / f"{name_or_path}.json") as p:
            return Server.read(p)
    if not Path(name_or_path).exists():
        allowed = "a server file, or one of the built-in servers " + ", ".join(names)
        raise InputError("server", name_or_path, allowed)
    return Server.read(name_or_path)


def require_fits(workload: Workload, server: Server) -> None:
    """Refuse a class of which not even one request fits into the KV cache.

    Raises:
        InputError: Naming the class and its peak KV.
    """
    for index, one in enumerate(workload.classes):
        stored_outputs = one.decode_tokens
        if server.first_token == "prefill" and one.prefill_tokens:
            stored_outputs -= 1
        peak = server.block_rounded(one.prefill_tokens + one.context_tokens + stored_outputs)
        if peak > server.usable_kv_tokens:
            raise InputError(
                f"classes[{index}] ({one.name})",
                f"{peak} KV tokens at its end",
                f"at most the {server.usable_kv_tokens} tokens of server {server.name}",
            )
