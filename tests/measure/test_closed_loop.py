"""The engine on the tiny model: it serves everyone, computes the model's own tokens, and admits as
the simulator does."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fluid.errors import InputError  # noqa: E402
from fluid.iteration import IterationTime  # noqa: E402
from fluid.server import Server  # noqa: E402
from fluid.traces.tape_csv import Tape  # noqa: E402
from fluid.workload import RequestClass, Workload  # noqa: E402
from tests.support.builders import server  # noqa: E402
from thresholds.limits import Limits  # noqa: E402
from thresholds.solvers.paced.solver import Paced  # noqa: E402
from validation.measure.batch import Chunk  # noqa: E402
from validation.measure.batching import (  # noqa: E402
    Engine,
    Request,
    paced_limits,
    simulated_policy,
)
from validation.measure.closed_loop import ClosedLoop, ServedModel, closed_loop, poisson_tape  # noqa: E402
from validation.measure.kv_cache import KVCache  # noqa: E402
from validation.measure.model import random_decoder  # noqa: E402
from validation.measure.runner import EagerRunner  # noqa: E402
from validation.measure.shapes import SHAPES  # noqa: E402

CPU = torch.device("cpu")
DECODER = random_decoder(SHAPES["tiny-grouped"], CPU, torch.float32)


TAU = IterationTime.affine(5e-4, per_token_s=1e-5, per_kv_token_s=1e-8)


def served(machine: Server, tape: Tape, limits: Limits) -> ClosedLoop:
    return closed_loop(ServedModel.ready_for(DECODER, machine, tape), machine, tape, limits)


def own_greedy_tokens(prompt: list[int], outputs: int) -> list[int]:
    """The model alone, one request, one token at a time."""
    cache = KVCache(DECODER.shape, 1, len(prompt) + outputs, CPU, torch.float32)
    runner = EagerRunner(DECODER, cache)
    tokens = runner.run([], [Chunk(0, 0, prompt)])
    while len(tokens) < outputs:
        start = len(prompt) + len(tokens) - 1
        tokens += runner.run([Chunk(0, start, tokens[-1:])], [])
    return tokens


def mixed_tape(requests: int, seed: int) -> Tape:
    rng = np.random.default_rng(seed)
    return Tape(
        np.sort(rng.uniform(0, 0.05, requests)),
        rng.integers(2, 30, requests),
        rng.integers(1, 25, requests),
    )


@pytest.mark.parametrize("limits", [Limits(), Limits(0.5, 5, 0.05)])
def test_everyone_is_served_with_the_models_own_tokens(limits: Limits) -> None:
    """Memory for a few requests only, so that some are evicted and recomputed."""
    found = served(server(TAU, kv_capacity_tokens=130), mixed_tape(25, seed=1), limits)
    for one in found.requests:
        assert one.completed_at_s is not None
        assert one.first_token_at_s is not None
        assert one.arrived_at_s < one.first_token_at_s <= one.completed_at_s
        assert one.generated == own_greedy_tokens(one.prompt, one.outputs)
    if limits == Limits():
        assert sum(one.evictions for one in found.requests) > 0


def offline(limits: Limits, capacity: int, block: int, seed: int) -> tuple[list[int], list[int]]:
    """Residents per iteration of the engine, and of the simulator, with all requests at time 0."""
    from validation.policies import parse_policy
    from validation.simulator.cpu import Job, run_traced
    from validation.simulator.model import tape_model

    tape = mixed_tape(20, seed)
    # The tape needs a rate: the last request comes when all others are done.
    times = np.zeros(20)
    times[-1] = 1e3
    tape = Tape(times, tape.num_prefill_tokens, tape.num_decode_tokens)
    one = server(TAU, kv_capacity_tokens=capacity, block_tokens=block)
    job = Job(parse_policy(simulated_policy(limits)), 0, 0, 1.0)
    trace = run_traced(tape_model(tape, one), job, len(tape))
    cache = KVCache(DECODER.shape, 20, 64, CPU, torch.float32)
    engine = Engine(EagerRunner(DECODER, cache), cache, capacity, block, limits)
    rng = np.random.default_rng(seed)
    engine.waiting.extend(
        Request(0.0, rng.integers(0, 256, prompt).tolist(), outputs)
        for prompt, outputs in zip(
            tape.num_prefill_tokens[:-1].tolist(), tape.num_decode_tokens[:-1].tolist(), strict=True
        )
    )
    residents = []
    while engine.waiting or engine.residents:
        engine.form_batch()
        residents.append(len(engine.residents))
        engine.run()
        slots = sorted(request.slot for request in engine.residents)
        assert slots == list(range(len(slots)))
    return residents, trace.series[:, 2].astype(int).tolist()


@pytest.mark.parametrize("capacity", [60, 130, 400])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(0.4),
        Limits(cap_requests=3),
        Limits(watermark_fraction=0.3),
        Limits(1.5, 6, 0.1),
    ],
)
@pytest.mark.parametrize("block", [1, 4])
def test_admission_is_the_simulators(limits: Limits, capacity: int, block: int) -> None:
    residents, simulated = offline(limits, capacity, block, seed=capacity)
    # The simulator stops when the requests of its measured window are done.
    assert 20 <= len(simulated) <= len(residents)
    assert residents[: len(simulated)] == simulated


def test_limits_of_a_table() -> None:
    one = RequestClass(name="a", rate_per_s=10.0, prefill_tokens=16, decode_tokens=8)
    table = Paced().solve(Workload(name="w", classes=(one,)), server(TAU, kv_capacity_tokens=2000))
    given = {"pace_per_iteration": 0.4, "cap_requests": 7, "watermark_fraction": 0.02}
    limits = paced_limits(table.model_copy(update={"params": given}))
    assert (limits.pace, limits.cap, limits.watermark_fraction) == (0.4, 7, 0.02)
    free = paced_limits(table.model_copy(update={"params": {}}))
    assert (free.pace, free.cap, free.watermark_fraction) == (math.inf, math.inf, 0.0)
    with pytest.raises(InputError, match="paced"):
        paced_limits(table.model_copy(update={"policy": "wait"}))


def test_a_request_that_never_fits_is_refused() -> None:
    with pytest.raises(InputError, match="KV tokens at its end"):
        served(server(TAU, kv_capacity_tokens=20), poisson_tape(100.0, 3, 30, 5, seed=0), Limits())


def test_the_poisson_tape_has_its_rate() -> None:
    tape = poisson_tape(50.0, 4000, 16, 4, seed=3)
    assert tape.rate_per_s == pytest.approx(50.0, rel=4 / math.sqrt(4000))
