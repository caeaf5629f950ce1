"""Times of a data sheet against the limits that it states."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.model_configs import MODELS, shape_named
from validation.servers.gpus import GPUS, gpu_named
from validation.servers.roofline import (
    BANDWIDTH_SHARE,
    LAYER_S,
    OPERATIONS_SHARE,
    roofline,
)


def seconds(model: str, *row: float, gpu: str = "h100_sxm", tp: int = 1) -> float:
    sheet = roofline(shape_named(model), gpu_named(gpu), tp, "bf16")
    return float(sheet.seconds(np.array([row], dtype=float))[0])


def test_one_decode_reads_every_weight_once():
    """Llama-3.1-8B: 7.5 thousand million weights of two bytes beside the table of embeddings."""
    shape, gpu = shape_named("llama-3.1-8b"), gpu_named("h100_sxm")
    read = shape.weight_bytes - 2 * shape.hidden * shape.vocabulary
    expected = read / (BANDWIDTH_SHARE * gpu.bandwidth_bytes_per_s) + 32 * LAYER_S
    assert seconds("llama-3.1-8b", 0, 0, 0, 1, 0) == pytest.approx(expected, rel=1e-9)


def test_a_long_prompt_multiplies_every_weight():
    shape, gpu = shape_named("llama-3.1-8b"), gpu_named("h100_sxm")
    weights = shape.mixer_weights + shape.feed_forward_weights
    rate = OPERATIONS_SHARE * gpu.operations_per_s["bf16"]
    without_attention = 2 * weights * 8192 / rate
    assert 1.0 < seconds("llama-3.1-8b", 1, 8192, 0, 0, 0) / without_attention < 1.25


@pytest.mark.parametrize("model", MODELS)
def test_more_work_takes_longer_and_more_gpus_less(model):
    assert seconds(model, 0, 0, 0, 8, 8000) <= seconds(model, 0, 0, 0, 64, 64_000)
    assert seconds(model, 0, 0, 0, 8, 8000) < seconds(model, 0, 0, 0, 8, 800_000)
    assert seconds(model, 1, 1024, 0, 0, 0) < seconds(model, 1, 2048, 0, 0, 0)
    assert seconds(model, 1, 1024, 0, 0, 0) < seconds(model, 1, 1024, 100_000, 0, 0)
    assert seconds(model, 1, 4096, 0, 0, 0, tp=4) < seconds(model, 1, 4096, 0, 0, 0)


def test_experts_are_read_as_they_are_touched():
    """One token passes 8 of 128 experts; thousands pass them all."""
    shape = shape_named("qwen3-30b-a3b")
    few, many = seconds("qwen3-30b-a3b", 0, 0, 0, 1, 0), seconds("qwen3-30b-a3b", 0, 0, 0, 512, 0)
    bandwidth = BANDWIDTH_SHARE * gpu_named("h100_sxm").bandwidth_bytes_per_s
    assert few < 0.25 * shape.weight_bytes / bandwidth
    assert many > 0.95 * shape.feed_forward_weights * 2 / bandwidth


def test_a_window_limits_what_is_read():
    grown = seconds("gpt-oss-120b", 0, 0, 0, 1, 100_128) - seconds("gpt-oss-120b", 0, 0, 0, 1, 128)
    shape = shape_named("gpt-oss-120b")
    read = 18 * 2 * 8 * 64 * 2 * 100_000
    bandwidth = BANDWIDTH_SHARE * gpu_named("h100_sxm").bandwidth_bytes_per_s
    assert shape.kinds.count("full") == 18
    assert grown == pytest.approx(read / bandwidth, rel=1e-6)


def test_data_sheets_are_complete():
    for gpu in GPUS.values():
        assert gpu.operations_per_s["bf16"] > 1e13
        assert gpu.source.startswith("NVIDIA")
        assert 1 <= gpu.node_gpus <= 8
