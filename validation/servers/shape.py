"""A model as its ``config.json`` describes it: layers, attention, experts, numbers.

Sizes are of the whole model; what one GPU of a tensor-parallel group holds is a matter of
`validation.servers.kv_memory` and `validation.servers.roofline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluid.errors import InputError
from fluid.files import read_document

Kind = Literal["full", "sliding", "state"]

DTYPE_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5625, "int4": 0.5625}
"""Bytes of one number; 4-bit formats share a scale of 8 bits among 16 to 32 numbers."""

FULL_ATTENTION = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "olmo2"),
        *("minimax_m2", "glm4_moe", "deepseek_v2", "deepseek_v3", "kimi_k2"),
    }
)
HYBRID = frozenset({"gpt_oss", "gemma2", "gemma3_text", "qwen3_next", "qwen3_5", "qwen3_5_moe"})
"""Values of ``model_type`` whose layers differ, as ``layer_types`` says."""

_KINDS: dict[str, Kind] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "state",
}


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention (MLA): one compressed row per token in place of heads.

    Attributes:
        rank, rope_dim: Values cached per token and layer, `rank` + `rope_dim`.
        query_rank: Of the compressed query; None where it is not compressed.
        nope_dim, value_dim: Per head, uncompressed.
    """

    rank: int
    rope_dim: int
    query_rank: int | None
    nope_dim: int
    value_dim: int


@dataclass(frozen=True)
class State:
    """A gated delta net: a state of fixed size per request in place of a cache that grows.

    Attributes:
        kernel: Tokens that its convolution sees.
        value_bytes: Of one number of the state itself; the convolution keeps 2.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    value_bytes: int

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class Experts:
    """Layers with a mixture of experts.

    Attributes:
        count, active: Experts of a layer, and those that a token passes.
        intermediate: Width of one.
        shared_intermediate: Width of what every token passes beside them.
        dense_layers: First layers without experts.
    """

    count: int
    active: int
    intermediate: int
    shared_intermediate: int
    dense_layers: int


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        kinds: Kind of attention of each layer.
        window: Tokens that a sliding layer sees; None without any.
        weights: Numbers of the weights: bf16, fp8, fp4 or int4.
        longest_tokens: Positions that the model knows.
    """

    name: str
    kinds: tuple[Kind, ...]
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None
    latent: Latent | None
    state: State | None
    experts: Experts | None
    weights: str
    tied_embeddings: bool
    longest_tokens: int | None

    @property
    def layers(self) -> int:
        """All of them."""
        return len(self.kinds)

    @property
    def is_hybrid(self) -> bool:
        """Whether the memory of a request is no multiple of its tokens."""
        return len(set(self.kinds)) > 1 or "state" in self.kinds

    @property
    def attention_weights(self) -> int:
        """Of one layer with attention."""
        one = self.latent
        if one is None:
            return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        per_head = one.nope_dim + one.rope_dim
        query = self.hidden * self.heads * per_head
        if one.query_rank is not None:
            query = one.query_rank * (self.hidden + self.heads * per_head)
        down = self.hidden * (one.rank + one.rope_dim)
        up = one.rank * self.heads * (one.nope_dim + one.value_dim)
        return query + down + up + self.heads * one.value_dim * self.hidden

    @property
    def state_weights(self) -> int:
        """Of one layer with a state."""
        assert self.state is not None
        values = self.state.value_heads * self.state.value_dim
        return self.hidden * (self.state.channels + 2 * values)

    def expert_weights(self, experts: float) -> float:
        """Of the feed-forward part of one layer with so many experts."""
        one = self.experts
        assert one is not None
        width = experts * one.intermediate + one.shared_intermediate
        return 3 * self.hidden * width + self.hidden * one.count

    @property
    def mixer_weights(self) -> float:
        """Of all layers apart from their feed-forward parts."""
        states = self.kinds.count("state")
        attention = (self.layers - states) * self.attention_weights
        return attention + (states * self.state_weights if states else 0)

    @property
    def feed_forward_weights(self) -> float:
        """Of all layers, every expert counted."""
        dense = 3 * self.hidden * self.intermediate
        if self.experts is None:
            return self.layers * dense
        sparse = self.layers - self.experts.dense_layers
        with_experts = sparse * self.expert_weights(self.experts.count)
        return self.experts.dense_layers * dense + with_experts

    @property
    def total_weights(self) -> float:
        """Everything, embeddings included."""
        tables = self.hidden * self.vocabulary * (1 if self.tied_embeddings else 2)
        return self.mixer_weights + self.feed_forward_weights + tables

    @property
    def weight_bytes(self) -> float:
        """Of the checkpoint: embeddings stay in 16 bit, and mxfp4 quantises the experts alone."""
        tables = self.hidden * self.vocabulary * (1 if self.tied_embeddings else 2)
        size = DTYPE_BYTES[self.weights]
        mixer = size if self.weights != "fp4" else DTYPE_BYTES["bf16"]
        return 2.0 * tables + mixer * self.mixer_weights + size * self.feed_forward_weights


def read_shape(config: Path, name: str, weights: str | None = None) -> ModelShape:
    """The shape in a ``config.json``; its neighbour ``hf_quant_config.json`` counts as well.

    Args:
        weights: Numbers of the weights; None takes what the files say.

    Raises:
        InputError: No such file, a field that is missing, or a kind of model that is not known.
    """
    document = read_document(config)
    beside = config.with_name(config.name.replace("config.json", "hf_quant_config.json"))
    if weights is None and beside.is_file():
        weights = _weights(read_document(beside).get("quantization"))
    try:
        return shape_of(document, name, weights)
    except InputError as error:
        raise error.in_file(str(config)) from None


def shape_of(document: Any, name: str, weights: str | None = None) -> ModelShape:
    """The shape that a parsed ``config.json`` describes.

    Raises:
        InputError: As `read_shape`.

    >>> from validation.servers.shape import shape_of
    >>> config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...           "num_attention_heads": 32, "num_key_value_heads": 8,
    ...           "intermediate_size": 14336, "vocab_size": 128256}
    >>> round(shape_of(config, "llama-3.1-8b").total_weights / 1e9, 2)
    8.03
    """
    if not isinstance(document, Mapping):
        raise InputError("", document, "the mapping of a config.json")
    text = document.get("text_config", document)
    kind = text.get("model_type", document.get("model_type"))
    kind = {"gemma3": "gemma3_text", "qwen3_5_text": "qwen3_5"}.get(kind, kind)
    kind = "qwen3_5_moe" if kind == "qwen3_5_moe_text" else kind
    if kind not in FULL_ATTENTION | HYBRID:
        known = ", ".join(sorted(FULL_ATTENTION | HYBRID))
        raise InputError("model_type", kind, f"one of {known}; else give the KV tokens")
    fields = _Fields(text)
    heads, hidden = fields.whole("num_attention_heads"), fields.whole("hidden_size")
    kinds = _kinds(fields, kind)
    return ModelShape(
        name=name,
        kinds=kinds,
        hidden=hidden,
        intermediate=fields.optional("intermediate_size") or 0,
        vocabulary=fields.whole("vocab_size"),
        heads=heads,
        kv_heads=fields.optional("num_key_value_heads") or heads,
        head_dim=fields.optional("head_dim") or hidden // heads,
        window=fields.whole("sliding_window") if "sliding" in kinds else None,
        latent=_latent(fields),
        state=_state(fields) if "state" in kinds else None,
        experts=_experts(fields, kind),
        weights=weights
        or _weights(text.get("quantization_config", document.get("quantization_config"))),
        tied_embeddings=bool(text.get("tie_word_embeddings", document.get("tie_word_embeddings"))),
        longest_tokens=fields.optional("max_position_embeddings"),
    )


@dataclass(frozen=True)
class _Fields:
    document: Mapping[str, Any]

    def whole(self, name: str) -> int:
        """A whole number ≥ 1 that must be there."""
        value = self.document.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(name, value, "a whole number of at least 1")
        return value

    def optional(self, name: str) -> int | None:
        """A whole number ≥ 1, or None where it is missing or null."""
        return None if self.document.get(name) is None else self.whole(name)


def _kinds(fields: _Fields, model_type: str) -> tuple[Kind, ...]:
    count = fields.whole("num_hidden_layers")
    types = fields.document.get("layer_types")
    if model_type in FULL_ATTENTION:
        types = ["full_attention"] * count
    elif types is None:
        types = _pattern(fields, model_type, count)
    if not isinstance(types, list) or len(types) != count or not set(types) <= set(_KINDS):
        allowed = f"{count} of {', '.join(_KINDS)}"
        raise InputError("layer_types", types, allowed)
    kinds: tuple[Kind, ...] = tuple(_KINDS[one] for one in types)
    return kinds


def _pattern(fields: _Fields, model_type: str, count: int) -> list[str]:
    """What configs without ``layer_types`` mean."""
    if model_type == "qwen3_next":
        every, other = fields.whole("full_attention_interval"), "linear_attention"
    elif model_type == "gemma3_text":
        every, other = fields.whole("sliding_window_pattern"), "sliding_attention"
    else:
        raise InputError("layer_types", None, "a kind of attention for each layer")
    return ["full_attention" if (one + 1) % every == 0 else other for one in range(count)]


def _latent(fields: _Fields) -> Latent | None:
    rank = fields.optional("kv_lora_rank")
    if rank is None:
        return None
    return Latent(
        rank=rank,
        rope_dim=fields.whole("qk_rope_head_dim"),
        query_rank=fields.optional("q_lora_rank"),
        nope_dim=fields.whole("qk_nope_head_dim"),
        value_dim=fields.whole("v_head_dim"),
    )


def _state(fields: _Fields) -> State:
    return State(
        key_heads=fields.whole("linear_num_key_heads"),
        value_heads=fields.whole("linear_num_value_heads"),
        key_dim=fields.whole("linear_key_head_dim"),
        value_dim=fields.whole("linear_value_head_dim"),
        kernel=fields.whole("linear_conv_kernel_dim"),
        value_bytes=4 if fields.document.get("mamba_ssm_dtype") == "float32" else 2,
    )


def _experts(fields: _Fields, model_type: str) -> Experts | None:
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    count = next((fields.whole(one) for one in names if fields.document.get(one)), None)
    if count is None:
        return None
    width = fields.optional("moe_intermediate_size") or fields.whole("intermediate_size")
    shared = (fields.document.get("n_shared_experts") or 0) * width
    shared = fields.document.get("shared_expert_intermediate_size") or shared
    dense = fields.document.get("first_k_dense_replace") or 0
    active = "num_experts_per_tok" if model_type != "gpt_oss" else "experts_per_token"
    if fields.document.get(active) is None:
        active = "num_experts_per_tok"
    return Experts(count, fields.whole(active), width, shared, dense)


def _weights(quantisation: Any) -> str:
    """Numbers of a checkpoint, by its ``quantization_config``."""
    if not quantisation:
        return "bf16"
    method = str(quantisation.get("quant_algo", quantisation.get("quant_method"))).lower()
    if "fp4" in method:
        return "fp4"
    if "fp8" in method:
        return "fp8"
    if method in ("awq", "gptq"):
        return "int4"
    allowed = "fp8, mxfp4, nvfp4, awq, gptq or none; else say the numbers of the weights"
    raise InputError("quantization_config", method, allowed)
