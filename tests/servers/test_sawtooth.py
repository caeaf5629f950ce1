"""Batches that an engine can run, and a fit that may fall again after a jump."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.iteration import IterationTime
from validation.servers.batches import (
    Reach,
    compositions_of,
    decode_rows,
    training_rows,
    unseen_rows,
)
from validation.servers.gpus import EngineLimits, engine_defaults
from validation.servers.sawtooth import fit_sawtooth

REACH = Reach(tokens=2048, decodes=256, kv_tokens=200_000, longest_tokens=32_768)
SAW = IterationTime(
    tokens_knots=(0, 128, 512, 512, 1000, 2048),
    seconds_knots=(0.008, 0.009, 0.014, 0.020, 0.017, 0.034),
    per_kv_token_s=3e-8,
    per_decode_request_s=2e-6,
    per_prefill_token_sq_s=2e-10,
    per_prefill_context_token_s=1e-9,
)


def times(rows):
    return compositions_of(rows).seconds(SAW)


def test_a_sawtooth_is_found_again():
    rows = training_rows(REACH, times)
    fitted = fit_sawtooth(compositions_of(rows), times(rows))
    unseen = compositions_of(unseen_rows(REACH))
    error = np.abs(unseen.seconds(fitted) / unseen.seconds(SAW) - 1)
    assert (error.mean(), error.max()) < (0.01, 0.05)
    assert float(fitted.token_seconds(514)) > float(fitted.token_seconds(1000)) * 1.1
    assert fitted.rising is not fitted


def test_a_spike_of_a_table_is_left_beside():
    """One number of decodes that is slow by chance moves the fit of its neighbours by little."""

    def spiked(rows):
        return times(rows) * np.where((rows[:, 1] == 0) & (rows[:, 3] == 4), 1.5, 1.0)

    rows = training_rows(REACH, spiked)
    fitted = fit_sawtooth(compositions_of(rows), spiked(rows))
    near = np.array([[0, 0, 0, count, 512.0 * count] for count in (2, 3, 5, 6, 8)])
    error = compositions_of(near).seconds(fitted) / times(near) - 1
    assert np.abs(error).max() < 0.02


def test_both_sides_of_a_jump_are_rows():
    rows = training_rows(REACH, times)
    prompts = rows[(rows[:, 1] > 0) & (rows[:, 3] == 0)][:, 1]
    assert {512.0, 513.0} <= set(prompts.tolist())


def test_batches_stay_within_what_the_engine_runs():
    for rows in (training_rows(REACH, times), unseen_rows(REACH), decode_rows(REACH)):
        prompts, tokens, cached, decodes, kv_tokens = rows.T
        assert (tokens + decodes).max() <= REACH.tokens + 1  # the other side of a jump
        assert decodes.max() <= REACH.decodes + 1
        assert kv_tokens.max() <= REACH.kv_tokens
        assert cached.max() < REACH.longest_tokens
        assert ((tokens >= 64) | (prompts == 0)).all()
    assert len(training_rows(REACH, times)) == pytest.approx(500, abs=100)
    seen = {tuple(one) for one in training_rows(REACH, times).tolist()}
    shared = sum(tuple(one) in seen for one in unseen_rows(REACH).tolist())
    assert shared < 30  # single decodes at round contexts, at most


def test_single_decodes_are_rows_each():
    decodes = training_rows(REACH, times)
    alone = decodes[decodes[:, 1] == 0][:, 3]
    assert set(range(1, 9)) <= set(alone.astype(int).tolist())


@pytest.mark.parametrize(
    ("engine", "gpu", "gib", "tokens", "seats"),
    [
        ("vllm", "l40s", 48, 2048, 256),
        ("vllm", "a100_sxm", 80, 2048, 256),
        ("vllm", "h100_sxm", 80, 8192, 1024),
        ("vllm", "b200_sxm", 180, 16384, 1024),
        ("sglang", "l4", 24, 2048, 2048),
        ("sglang", "h100_sxm", 80, 8192, 2048),
        ("trtllm", "h100_sxm", 80, 8192, 2048),
    ],
)
def test_defaults_of_engines(engine, gpu, gib, tokens, seats):
    found = engine_defaults(engine, gpu, gib)
    assert (found.max_num_batched_tokens, found.max_num_seqs) == (tokens, seats)


def test_seats_beyond_the_tokens_are_never_taken():
    reach = Reach.of(EngineLimits(512, 1024, ""), kv_tokens=10_000, longest_tokens=None)
    assert (reach.decodes, reach.longest_tokens) == (512, 10_000)
