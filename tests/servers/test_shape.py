"""Sizes of models from their configs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fluid.errors import InputError
from tests.support.model_configs import CONFIGS, MODELS, shape_named
from validation.servers.shape import read_shape, shape_of

PUBLISHED = {
    # Parameters in thousands of millions, as the models' own cards say.
    "llama-3.1-8b": 8.03,
    "llama-3.1-70b": 70.6,
    "qwen3-32b-fp8": 32.8,
    "qwen3-30b-a3b": 30.5,
    "mixtral-8x7b": 46.7,
    "gpt-oss-120b": 116.8,
    "gpt-oss-20b": 20.9,
    "deepseek-v3": 671.0,
    "qwen3.5-27b": 27.0,
    "qwen3.5-35b-a3b": 35.0,
}


@pytest.mark.parametrize("model", MODELS)
def test_weights_add_up_to_what_the_card_says(model):
    """Norms, biases and gates of a state are left out: 0.3 %, or 3 % with states and a tower."""
    within = 0.03 if model.startswith("qwen3.5") else 0.003
    assert shape_named(model).total_weights / 1e9 == pytest.approx(PUBLISHED[model], rel=within)


def test_bytes_by_number():
    assert shape_named("llama-3.1-70b").weight_bytes / 1e9 == pytest.approx(141, rel=0.01)
    # One byte each, embeddings two.
    assert shape_named("qwen3-32b-fp8").weight_bytes / 1e9 == pytest.approx(34.3, rel=0.01)
    assert shape_named("gpt-oss-120b").weight_bytes / 1e9 == pytest.approx(65, rel=0.08)


def test_kinds_of_layers():
    sliding, state = shape_named("gpt-oss-120b"), shape_named("qwen3.5-27b")
    assert (sliding.kinds[:2], sliding.window) == (("sliding", "full"), 128)
    assert state.kinds.count("state") == 3 * state.kinds.count("full") == 48
    assert sliding.is_hybrid
    assert state.is_hybrid
    assert not shape_named("deepseek-v3").is_hybrid


def test_a_pattern_stands_for_a_list_of_kinds():
    config = config_of("qwen3.5-27b")["text_config"]
    config |= {"model_type": "qwen3_next", "full_attention_interval": 4}
    listed = shape_of({"text_config": config}, "x").kinds
    del config["layer_types"]
    assert shape_of({"text_config": config}, "x").kinds == listed


def config_of(model: str) -> dict[str, Any]:
    """A config to change."""
    text = (CONFIGS / model / "config.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model_type", "t5", "one of deepseek_v2"),
        ("hidden_size", None, "at least 1"),
        ("num_attention_heads", 0, "at least 1"),
        ("vocab_size", "many", "at least 1"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "say the numbers of the weights"),
    ],
)
def test_a_config_that_says_too_little(tmp_path, field, value, words):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_of("llama-3.1-8b") | {field: value}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_shape(path, "mine")
    assert (caught.value.field, caught.value.file) == (field, str(path))
    assert words in caught.value.allowed


def test_numbers_of_a_neighbour_and_of_the_caller(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_of("llama-3.1-8b")), encoding="utf-8")
    assert read_shape(path, "mine").weights == "bf16"
    beside = tmp_path / "hf_quant_config.json"
    beside.write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}), encoding="utf-8")
    assert read_shape(path, "mine").weights == "fp8"
    assert read_shape(path, "mine", "int4").weights == "int4"


@pytest.mark.parametrize("types", [["full_attention"], ["full_attention"] * 35 + ["mystery"], 7])
def test_layers_of_no_known_kind(types):
    with pytest.raises(InputError, match="layer_types"):
        shape_of(config_of("gpt-oss-120b") | {"layer_types": types}, "x")
