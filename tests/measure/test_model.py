"""The decoder against `transformers`' Llama with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from validation.measure.batch import Chunk, make_batch  # noqa: E402
from validation.measure.kv_cache import KVCache  # noqa: E402
from validation.measure.model import random_decoder  # noqa: E402
from validation.measure.runner import EagerRunner  # noqa: E402
from validation.measure.shapes import SHAPES, ModelShape  # noqa: E402

CPU = torch.device("cpu")


def pair(shape: ModelShape, seed: int = 0):
    """Our decoder, and the reference with its weights."""
    ours = random_decoder(shape, CPU, torch.float32, seed)
    # Weights large enough that attention is far from uniform.
    for name, weight in ours.named_parameters():
        if "norm" not in name:
            weight.mul_(5)
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
    )
    reference = transformers.LlamaForCausalLM(config).eval()
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": weight
        for name, weight in ours.checkpoint_weights().items()
    }
    reference.load_state_dict(weights)
    return ours, reference


def random_chunks(rng: np.random.Generator, length: int) -> list[int]:
    """Sizes of the chunks in which a prompt is computed."""
    sizes = []
    while sum(sizes) < length:
        most = int(rng.choice([8, length]))
        sizes.append(min(int(rng.integers(1, most + 1)), length - sum(sizes)))
    return sizes


@pytest.mark.parametrize("name", ["tiny", "tiny-grouped"])
@pytest.mark.parametrize("seed", range(4))
def test_logits_of_mixed_batches_equal_the_reference(name: str, seed: int) -> None:
    """Six requests start at random times; prompts come in random chunks, decodes reuse their KV."""
    shape, rng = SHAPES[name], np.random.default_rng(seed)
    ours, reference = pair(shape, seed)
    cache = KVCache(shape, slots=8, length=160, device=CPU, dtype=torch.float32)
    slots = rng.permutation(8)[:6] if seed % 2 else np.arange(6)
    sequences = [rng.integers(0, shape.vocabulary, int(rng.integers(40, 150))) for _ in slots]
    prompts = [int(rng.integers(1, len(one) - 5)) for one in sequences]
    waiting = [random_chunks(rng, prompt) for prompt in prompts]
    done = [0] * 6
    compared = mixed = 0
    with torch.inference_mode():
        expected = [reference(torch.tensor(one)[None]).logits[0] for one in sequences]
        while any(at < len(one) for at, one in zip(done, sequences, strict=True)):
            decodes, prefills, order = [], [], []
            for one in range(6):
                left = len(sequences[one]) - done[one]
                if left == 0 or rng.random() < 0.3:
                    continue
                count = waiting[one].pop(0) if waiting[one] else 1
                tokens = sequences[one][done[one] : done[one] + count].tolist()
                chunk = Chunk(int(slots[one]), done[one], tokens)
                is_decode = done[one] >= prompts[one]
                (decodes if is_decode else prefills).append(chunk)
                order.append((not is_decode, one, count))
            if not order:
                continue
            mixed += bool(decodes and prefills)
            logits = ours(make_batch(cache, decodes, prefills), cache)
            for row, (_, one, count) in zip(logits, sorted(order, key=lambda x: x[0]), strict=True):
                done[one] += count
                torch.testing.assert_close(row, expected[one][done[one] - 1], atol=1e-4, rtol=0)
                compared += 1
    assert compared > 100
    assert mixed > 3


def test_greedy_tokens_equal_the_reference() -> None:
    shape = SHAPES["tiny-grouped"]
    ours, reference = pair(shape)
    cache = KVCache(shape, slots=1, length=64, device=CPU, dtype=torch.float32)
    prompt = np.random.default_rng(0).integers(0, shape.vocabulary, 20).tolist()
    runner = EagerRunner(ours, cache)
    tokens = runner.run([], [Chunk(0, 0, prompt)])
    while len(tokens) < 20:
        start = len(prompt) + len(tokens) - 1
        tokens += runner.run([Chunk(0, start, tokens[-1:])], [])
    with torch.inference_mode():
        whole = reference(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
    assert tokens == whole.argmax(dim=-1).tolist()


def test_a_slot_can_be_moved() -> None:
    shape = SHAPES["tiny"]
    ours, _ = pair(shape)
    cache = KVCache(shape, slots=3, length=64, device=CPU, dtype=torch.float32)
    EagerRunner(ours, cache).run([], [Chunk(2, 0, list(range(30)))])
    cache.move(2, 0, 30)
    with torch.inference_mode():
        there, here = (
            ours(make_batch(cache, [Chunk(slot, 30, [7])], []), cache) for slot in (2, 0)
        )
    torch.testing.assert_close(there, here)


def test_dimensions_of_the_named_models() -> None:
    """Parameters of the published models, and 0.5 MiB of KV per token (THEORY 6.2)."""
    assert SHAPES["llama-2-7b"].weights == 6_738_415_616
    assert SHAPES["llama-3-8b"].weights == 8_030_261_248
    assert 2 * SHAPES["llama-2-7b"].kv_values_per_token == 512 * 1024
    tiny = random_decoder(SHAPES["tiny-grouped"], CPU, torch.float32)
    assert sum(one.numel() for one in tiny.parameters()) == SHAPES["tiny-grouped"].weights
