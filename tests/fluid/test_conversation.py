"""Prefixes in workload files: what prompts they make, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluid.conversation import Conversation
from fluid.errors import InputError
from fluid.server import load_server, require_fits
from fluid.workload import RequestClass, Requests, Workload

TALK: dict[str, Any] = {"turns": 5.0, "think_time_s": 20, "new_tokens": 200}


def load(**fields: Any) -> Workload:
    first = {"name": "chat", "rate_per_s": 4.0, "decode_tokens": 100} | fields
    return Workload.from_document({"name": "w", "classes": [first]})


def test_turns_repeat_what_was_said() -> None:
    weights = {1: 3.0, 2: 1.0, 4: 4.0}
    talk = Conversation(turns=weights, think_time_s=0.0, new_tokens=30)
    one = Requests(1.0, 0, 7, conversation=talk, shared_prefix=64).named("chat")
    rng, prompts = random.Random(1), []
    for _ in range(40_000):
        said = 64
        for _ in range(rng.choices(list(weights), list(weights.values()))[0]):
            prompts.append(said + 30)
            said += 30 + 7
    turns = one.turns
    drawn = [np.mean(np.array(prompts) == length) for length in turns.prefill_tokens]
    assert turns.shares == pytest.approx(drawn, abs=0.01)
    assert one.prefill_tokens == pytest.approx(np.mean(prompts), abs=1)
    assert one.longest_prompt_tokens == 64 + 4 * 30 + 3 * 7
    assert turns.go_on == pytest.approx([5 / 8, 4 / 5, 1, 0])


def test_a_mean_number_of_turns_is_geometric() -> None:
    talk = Conversation(turns=5.0, think_time_s=20.0, new_tokens=200)
    assert talk.mean_turns == pytest.approx(5, rel=1e-5)
    assert talk.reached[:3] == pytest.approx([1, 0.8, 0.64])
    assert Conversation(turns=1.0, think_time_s=0.0, new_tokens=1).reached.tolist() == [1]
    assert load(conversation=TALK).classes[0].prefill_tokens == 200 + 4 * 300


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_keeps_conversations(tmp_path: Path, suffix: str) -> None:
    for turns in (5.0, {1: 1.0, 3: 2.0}):
        workload = load(conversation=TALK | {"turns": turns}, shared_prefix_tokens=32)
        workload.write(tmp_path / f"w.{suffix}")
        assert "prefill_tokens" not in (tmp_path / f"w.{suffix}").read_text()
        again = Workload.read(tmp_path / f"w.{suffix}")
        assert again == workload
        assert again == Workload.from_document(workload.document())
        assert again.has_prefixes
        assert hash(again) == hash(workload)
    assert "shared_prefix_tokens" not in load(prefill_tokens=9).document()["classes"][0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prefill_tokens": 99, "shared_prefix_tokens": 100}, "must not be above prefill_tokens"),
        ({"prefill_tokens": 99, "conversation": TALK}, "left out beside conversation"),
        ({"context_tokens": 99, "conversation": TALK}, "context_tokens is not for conversations"),
        ({"context_tokens": 9, "prefill_tokens": 0, "shared_prefix_tokens": 1}, "not be above"),
        ({"conversation": TALK | {"turns": 0.5}}, "a mean from 1 to"),
        ({"conversation": TALK | {"turns": {}}}, "a mean from 1 to"),
        ({"conversation": TALK | {"turns": {"0": 1.0}}}, "a mean from 1 to"),
        ({"conversation": TALK | {"turns": {"2": -1.0}}}, "a mean from 1 to"),
        ({"conversation": TALK | {"think_time_s": -1}}, "think_time_s"),
        ({"conversation": TALK | {"new_tokens": 0}}, "new_tokens"),
        ({"conversation": TALK | {"think_time_law": "gamma"}}, "think_time_law"),
        ({"conversation": TALK | {"turns": {"9999": 1.0}, "new_tokens": 10**6}}, "grow beyond"),
        ({"prefill_tokens": 99, "shared_prefix_tokens": -1}, "shared_prefix_tokens"),
        ({}, "prefill_tokens"),
    ],
)
def test_bad_prefixes_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_conversation_that_outgrows_the_server_is_refused() -> None:
    server = load_server("a100-80gb-llama-2-7b")
    talk = TALK | {"turns": {1: 0.99, 400: 0.01}}
    require_fits(load(conversation=talk | {"turns": {1: 0.99, 390: 0.01}}), server)
    with pytest.raises(InputError, match=r"\(chat, turn 400\): got '1\d{5} KV tokens at its end"):
        require_fits(load(conversation=talk), server)


def test_a_class_made_by_hand_is_checked_alike() -> None:
    talk = Conversation(turns=2.0, think_time_s=0.0, new_tokens=5)
    with pytest.raises(InputError, match="left out beside conversation"):
        RequestClass(name="x", rate_per_s=1.0, prefill_tokens=3, decode_tokens=1, conversation=talk)
