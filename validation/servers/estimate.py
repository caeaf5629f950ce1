"""``server estimate``: a server file from a model's config, for an engine on a GPU.

Times come from measured tables of single operations or from the GPU's data sheet, at the batches
that the engine can run (`validation.servers.batches`), and are fitted; the file's source says from
what, and how well the fit follows batches that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InfeasibleError, InputError
from fluid.files import write_document
from fluid.iteration import IterationTime
from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import MeasuredRange, Server
from validation.measure.composition import Floats
from validation.measure.fit import FitError, error_of
from validation.servers.batches import (
    Reach,
    Times,
    compositions_of,
    decode_rows,
    training_rows,
    unseen_rows,
)
from validation.servers.gpus import EngineLimits, Gpu, engine_defaults, gpu_named
from validation.servers.kv_memory import (
    BLOCK_TOKENS,
    gibibytes,
    kv_groups,
    require_divides,
    token_bytes_of,
)
from validation.servers.roofline import roofline
from validation.servers.sawtooth import fit_sawtooth
from validation.servers.shape import ModelShape, read_shape
from validation.servers.tables import Config, Deployment, Tables, find_config

MOST_P95 = 0.15
"""A fit that is further off than this at its 95th percentile is refused unless accepted."""

METHODS = ("tables", "roofline")


@dataclass(frozen=True, repr=False, eq=False)
class EstimatedServer(Result):
    """A server estimated from a model's config.

    Attributes:
        server: What the other commands read.
        method: "tables" or "roofline".
        held_out: Relative error of the fit on batches that it has not seen.
        few_decodes, many_decodes: The same on decodes alone, 1 to 8 and from 8 on.
        origins: Shares of the time by where it comes from; empty for a data sheet.
        kv_upper_tokens: KV tokens if nothing but weights took memory; None for hybrid models.
        notes: What to know before trusting it, in sentences.

    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import fluidwait as fw
    >>> config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...           "num_attention_heads": 32, "num_key_value_heads": 8,
    ...           "intermediate_size": 14336, "vocab_size": 128256}
    >>> folder = Path(mkdtemp()) / "my-8b"
    >>> folder.mkdir()
    >>> _ = (folder / "config.json").write_text(json.dumps(config))
    >>> found = fw.estimate_server(folder, gpu="l4", method="roofline", kv_tokens=20_000)
    >>> found.server.name, found.server.max_num_batched_tokens
    ('my-8b-l4-vllm', 2048)
    """

    server: Server
    method: str
    held_out: FitError
    few_decodes: FitError
    many_decodes: FitError
    origins: Mapping[str, float]
    kv_upper_tokens: int | None
    notes: tuple[str, ...]

    @property
    def iteration_time(self) -> IterationTime:
        """τ of a batch, as in the server file."""
        return self.server.iteration_time

    def write(self, path: str | Path) -> None:
        """Write the server file.

        Raises:
            InputError: The folder does not exist, or cannot be written to.
        """
        write_document(self.server.document(), path)

    def blocks(self) -> Iterable[Block]:
        server, tau = self.server, self.iteration_time
        yield Table(
            f"Estimated server {server.name}",
            ("quantity", "value"),
            (
                ("engine, GPU", f"{server.engine}, {server.gpu}"),
                ("KV capacity", f"{number(float(server.kv_capacity_tokens))} tokens"),
                ("tokens per iteration", number(float(server.max_num_batched_tokens or 0))),
                ("requests at once", number(float(server.max_num_seqs or 0))),
                ("one decode", f"{1e3 * float(tau(1, kv_tokens=512, decode_requests=1)):.2f} ms"),
                ("64 decodes", f"{1e3 * _decodes_s(tau, 64):.2f} ms"),
                ("prompt of 2,048 tokens", f"{1e3 * _prompt_s(tau, 2048):.1f} ms"),
            ),
        )
        yield Table(
            "Error of the fit",
            ("batches", "mean", "95 %", "largest"),
            tuple(
                (name, *(percent(one, 1) for one in (error.mean, error.p95, error.largest)))
                for name, error in (
                    ("not seen", self.held_out),
                    ("1 to 8 decodes", self.few_decodes),
                    ("more decodes", self.many_decodes),
                )
            ),
        )
        yield f"Source: {server.source}."
        for note in self.notes:
            yield Note(note)

    def document(self) -> dict[str, Any]:
        return {
            "server": self.server.document(),
            "method": self.method,
            "held_out": asdict(self.held_out),
            "few_decodes": asdict(self.few_decodes),
            "many_decodes": asdict(self.many_decodes),
            "origins": dict(self.origins),
            "kv_upper_tokens": self.kv_upper_tokens,
            "notes": list(self.notes),
        }


def estimate_server(
    model: str | Path,
    *,
    gpu: str,
    engine: str = "vllm",
    tp: int = 1,
    ep: int = 1,
    weights: str | None = None,
    kv_dtype: str = "bf16",
    memory: float = 0.9,
    kv_tokens: int | None = None,
    max_num_batched_tokens: int | None = None,
    max_num_seqs: int | None = None,
    max_model_len: int | None = None,
    method: str = "tables",
    accept_fit: bool = False,
    name: str | None = None,
) -> EstimatedServer:
    """A server from a model's ``config.json``, for an engine on a GPU; nothing is fetched.

    Args:
        model: A folder with a config.json, or (with the extra ``estimate``) a bundled model.
        gpu: Such as "h100_sxm".
        tp: GPUs of the tensor-parallel group.
        ep: GPUs among which whole experts are dealt out.
        weights: bf16, fp8, fp4 or int4; None takes what the checkpoint says.
        kv_dtype: bf16 or fp8.
        memory: Share of the memory that the engine may take.
        kv_tokens: KV tokens, from the engine's log; None for the upper figure that weights alone
            leave, which no engine reaches.
        max_num_batched_tokens, max_num_seqs: None for the engine's defaults on this GPU.
        max_model_len: None for what the model and the memory allow.
        method: "tables" (measured, with the extra) or "roofline" (the GPU's data sheet).
        accept_fit: Take a fit whose 95th percentile of errors is above 15 %.

    Raises:
        InputError: An unknown model, GPU, engine or option, a GPU without tables, a group that
            does not divide the heads or does not fit into a node, or a hybrid model without
            `kv_tokens`.
        InfeasibleError: The weights do not fit, or the fit is worse than may be accepted.
        FluidwaitError: The extra is needed and not installed.

    >>> import fluidwait as fw
    >>> fw.estimate_server("no-such-folder/", gpu="h100", method="roofline")
    Traceback (most recent call last):
    fluid.errors.InputError: gpu: got 'h100'; allowed: did you mean h100_sxm? One of a10, ...
    """
    card = gpu_named(gpu)
    if method not in METHODS:
        raise InputError("method", method, "one of " + ", ".join(METHODS))
    if not 0 < memory <= 1:
        raise InputError("memory", memory, "above 0 and at most 1")
    if weights is not None and weights not in ("bf16", "fp8", "fp4", "int4"):
        raise InputError("weights", weights, "bf16, fp8, fp4 or int4")
    if kv_dtype not in ("bf16", "fp8"):
        raise InputError("kv_dtype", kv_dtype, "bf16 or fp8")
    if tp > card.node_gpus:
        allowed = f"at most {card.node_gpus}, the GPUs of a node: no table reaches beyond it"
        raise InputError("tp", tp, allowed)
    config = find_config(str(model))
    on = Deployment(gpu, engine, tp, weights, kv_dtype, ep)
    defaults = engine_defaults(engine, gpu, card.memory_gib)
    limits = EngineLimits(
        max_num_batched_tokens or defaults.max_num_batched_tokens,
        max_num_seqs or defaults.max_num_seqs,
        defaults.source,
    )
    shape, unknown = _shape(config, weights, method, kv_tokens)
    upper = None
    if shape is not None:
        require_divides(shape, tp)
        _require_experts(shape, on)
        upper = _kv_upper_tokens(shape, card, on, memory, kv_tokens)
    capacity = kv_tokens or upper
    if capacity is None:
        allowed = f"the KV tokens of the engine's log: {unknown or _HYBRID}"
        raise InputError("kv_tokens", None, allowed)
    longest = max_model_len or (shape.longest_tokens if shape else None)
    reach = Reach.of(limits, capacity, longest)
    times, origin = _times(config, shape, card, on, method)
    fitted = _fit(reach, times)
    if fitted.held_out.p95 > MOST_P95 and not accept_fit:
        raise InfeasibleError(
            f"the fit is off by {percent(fitted.held_out.p95)} at the 95th percentile of batches "
            f"that it has not seen, {percent(fitted.held_out.mean)} in the mean",
            "iteration time",
            f"accept it (--accept-fit), or fewer tokens per iteration than {reach.tokens}",
        )
    source = (
        f"{origin.text}; {fitted.rows} batches, fitted by fluidwait server estimate: relative "
        f"error {percent(fitted.held_out.mean)} in the mean and {percent(fitted.held_out.p95)} at "
        f"the 95th percentile of batches not seen, {percent(fitted.few_decodes.mean)} and "
        f"{percent(fitted.many_decodes.mean)} on 1 to 8 and on more decodes; KV tokens "
        f"{'as given' if kv_tokens else 'an upper figure, from weights alone'}; "
        f"iterations of {limits.source}"
    )
    server = Server.from_document(
        {
            "name": name or _name(config, on),
            "source": source,
            "kv_capacity_tokens": capacity // BLOCK_TOKENS * BLOCK_TOKENS,
            "block_tokens": BLOCK_TOKENS,
            "first_token": "prefill",
            "iteration_time": fitted.tau.document(),
            "measured_range": fitted.seen.document(),
            "engine": engine,
            "gpu": gpu if tp == 1 else f"{tp} x {gpu}",
            "gpu_memory_gib": float(card.memory_gib),
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "max_num_seqs": limits.max_num_seqs,
            "max_model_len": reach.longest_tokens,
        }
    )
    return EstimatedServer(
        server=server,
        method=method,
        held_out=fitted.held_out,
        few_decodes=fitted.few_decodes,
        many_decodes=fitted.many_decodes,
        origins=origin.shares,
        kv_upper_tokens=upper,
        notes=_notes(config, shape, card, on, origin, kv_tokens, upper),
    )


_HYBRID = (
    "layers of several kinds share its memory, and what a request takes of it is no multiple of "
    "its tokens"
)


@dataclass(frozen=True)
class _Origin:
    """Where times come from: in words, and by share."""

    text: str
    shares: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fitted:
    tau: IterationTime
    rows: int
    seen: MeasuredRange
    held_out: FitError
    few_decodes: FitError
    many_decodes: FitError


def _shape(
    config: Config, weights: str | None, method: str, kv_tokens: int | None
) -> tuple[ModelShape | None, str | None]:
    """The model's shape, or why it is not known where tables and a log can do without."""
    try:
        return read_shape(config.path, config.name, weights), None
    except InputError as error:
        if method == "roofline" or kv_tokens is None:
            raise
        return None, f"{error.field} is {error.value!r}"


def _require_experts(shape: ModelShape, on: Deployment) -> None:
    if on.expert_parallel == 1:
        return
    if shape.experts is None or on.tp % on.expert_parallel:
        allowed = f"1, or for a model with experts a divisor of {on.tp}, the GPUs of the group"
        raise InputError("ep", on.expert_parallel, allowed)


def _kv_upper_tokens(
    shape: ModelShape, card: Gpu, on: Deployment, memory: float, kv_tokens: int | None
) -> int | None:
    """What weights alone leave; None for hybrid models, whose memory is not counted in tokens.

    Raises:
        InfeasibleError: Nothing, or less than is claimed.
    """
    memory_bytes = memory * card.memory_gib * 2**30
    free_bytes = memory_bytes - shape.weight_bytes / on.tp
    least_bytes = token_bytes_of(shape, on.tp, on.kv_dtype) * 1024 * shape.layers
    if free_bytes < least_bytes:
        needed = (shape.weight_bytes / on.tp + least_bytes) / memory / 2**30
        raise InfeasibleError(
            f"{gibibytes(shape.weight_bytes / on.tp):.1f} GiB of weights on each of {on.tp} GPUs "
            f"leave no room for a cache in {memory:g} of {card.memory_gib:g} GiB",
            "memory",
            f"GPUs of {needed:.0f} GiB, more of them, or smaller numbers of the weights",
        )
    if shape.is_hybrid:
        return None
    groups = kv_groups(shape, on.tp, on.kv_dtype)
    upper = groups.blocks(free_bytes) * groups.block_tokens
    if kv_tokens is not None and kv_tokens > upper:
        allowed = f"at most {upper}, what {gibibytes(free_bytes):.1f} GiB beside the weights hold"
        raise InputError("kv_tokens", kv_tokens, allowed)
    return upper


def _times(
    config: Config, shape: ModelShape | None, card: Gpu, on: Deployment, method: str
) -> tuple[Times, _Origin]:
    if method == "roofline":
        assert shape is not None
        sheet = roofline(shape, card, on.tp, on.kv_dtype, on.expert_parallel)
        return sheet.seconds, _Origin(sheet.source, {}, ())
    tables = Tables(config, on, _uses(shape))
    shares = tables.origins()
    words = ", ".join(f"{percent(share)} {name}" for name, share in shares.items())
    text = f"{tables.source}; of the time {words}"
    notes = list(tables.warnings)
    if tables.composed:
        notes.append(
            "mixed batches of these tables leave out what decodes read; it is added from batches "
            "of decodes alone"
        )
    if notes:
        text += f" ({'; '.join(notes)})"
    return tables.seconds, _Origin(text, shares, tuple(notes))


def _uses(shape: ModelShape | None) -> tuple[str, ...]:
    """Kinds of operations beyond plain attention that a model has."""
    if shape is None:
        return ("mla", "dsa", "moe", "msa", "gdn", "kda", "mamba", "mhc", "dsv4")
    found = [] if shape.latent is None else ["mla"]
    found += [] if shape.experts is None else ["moe"]
    found += [] if shape.state is None else ["gdn"]
    return tuple(found)


def _fit(reach: Reach, times: Times) -> _Fitted:
    rows = training_rows(reach, times)
    tau = fit_sawtooth(compositions_of(rows), times(rows))
    decodes = decode_rows(reach)
    few = decodes[:, 3] <= 8
    return _Fitted(
        tau=tau,
        rows=len(rows),
        seen=_range(rows),
        held_out=_error(tau, unseen_rows(reach), times),
        few_decodes=_error(tau, decodes[few], times),
        many_decodes=_error(tau, decodes[~few], times),
    )


def _error(tau: IterationTime, rows: Floats, times: Times) -> FitError:
    return error_of(compositions_of(rows).seconds(tau) / times(rows) - 1)


def _range(rows: Floats) -> MeasuredRange:
    prompts, tokens, _, decodes, kv_tokens = rows.T
    each = tokens[prompts > 0] / prompts[prompts > 0]
    computed = tokens + decodes
    spans = {"tokens": computed, "kv_tokens": kv_tokens, "decode_requests": decodes}
    found = {name: (float(one.min()), float(one.max())) for name, one in spans.items()}
    return MeasuredRange(**found, prompt_tokens=(float(each.min()), float(each.max())))


def _notes(
    config: Config,
    shape: ModelShape | None,
    card: Gpu,
    on: Deployment,
    origin: _Origin,
    kv_tokens: int | None,
    upper: int | None,
) -> tuple[str, ...]:
    found = [] if config.note is None else [config.note]
    found += origin.notes
    if kv_tokens is None and shape is not None and upper is not None:
        found.append(
            f"{upper:,} KV tokens are an upper figure, of the memory that weights alone leave: "
            "engines have logged two thirds of it and less; give kv_tokens from the log of yours"
        )
    return tuple(found)


def _name(config: Config, on: Deployment) -> str:
    model = config.name.split("/")[-1].lower().removesuffix("-instruct")
    model = model.removeprefix("meta-")
    weights = "" if on.weights is None or on.weights in model else f"-{on.weights}"
    group = "" if on.tp == 1 else f"-tp{on.tp}"
    return f"{model}{weights}-{on.gpu.replace('_', '-')}{group}-{on.engine}"


def _decodes_s(tau: IterationTime, count: int) -> float:
    return float(tau(count, kv_tokens=512 * count, decode_requests=count))


def _prompt_s(tau: IterationTime, tokens: int) -> float:
    return float(tau(tokens, prefill_tokens=tokens, prefill_tokens_sq=np.square(float(tokens))))
