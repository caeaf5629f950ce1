"""vLLM's own scheduler on a virtual clock: no model, no GPU.

`run` does what vLLM's engine core does around a scheduler, with fabricated model outputs: schedule,
"execute" the batch by adding the server's iteration time of it to the clock, hand back one token
for every request whose known tokens are all computed. With `in_flight=2` the next batch is
scheduled before the output of the previous one is known, as with asynchronous scheduling.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, SpeculativeConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    SlidingWindowSpec,
)
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from fluid.iteration import IterationTime

MAX_MODEL_LEN = 8192
SEATS = 1024
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 128,
    "max_position_embeddings": MAX_MODEL_LEN,
    "torch_dtype": "float32",
}


@dataclass(frozen=True)
class Tape:
    """Requests in order of arrival.

    Attributes:
        arrived_at_s: Shape (n,); prompt_tokens, output_tokens and priorities alike.
        tokens: Of each request, prompt and outputs; all alike where None.
    """

    arrived_at_s: Any
    prompt_tokens: Any
    output_tokens: Any
    priorities: Any = None
    tokens: Sequence[list[int]] | None = None

    def token(self, number: int, index: int) -> int:
        """A token of a request, its outputs included."""
        return 0 if self.tokens is None else self.tokens[number][index]


@dataclass
class Step:
    """What one call of `schedule` decided; requests by number.

    Attributes:
        tables, free_queue: Blocks of those that run, and free ones in order, where a scheduler
            caches prefixes.
    """

    at_s: float
    scheduled: dict[int, int]
    running: list[int]
    waiting: list[int]
    free_blocks: int
    finished: set[int] = field(default_factory=set)
    tables: dict[int, list[int]] = field(default_factory=dict)
    free_queue: list[int] = field(default_factory=list)


def model_folder(folder: Path) -> Path:
    """A model that consists of its description."""
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA), encoding="utf-8")
    return folder


def make_scheduler(
    scheduler_cls: type[Scheduler],
    model: Path,
    blocks: int,
    block_tokens: int = 16,
    additional_config: dict[str, Any] | None = None,
    cache: bool = False,
    window_tokens: tuple[int, ...] = (),
    speculative_tokens: int = 0,
    **settings: Any,
) -> Scheduler:
    """A scheduler with so many blocks; `settings` are those of vLLM's SchedulerConfig.

    Args:
        window_tokens: Of each further group of layers, which see only so many tokens back.
    """
    settings = {
        "max_num_seqs": SEATS,
        "max_num_batched_tokens": 2048,
        "max_model_len": MAX_MODEL_LEN,
        "is_encoder_decoder": False,
        "watermark": 0.0,
        "async_scheduling": False,
    } | settings
    cache_config = CacheConfig(block_size=block_tokens, enable_prefix_caching=cache)
    cache_config.num_gpu_blocks = blocks
    vllm_config = VllmConfig(
        model_config=ModelConfig(model=str(model), skip_tokenizer_init=True, dtype="float32"),
        scheduler_config=SchedulerConfig(**settings),
        cache_config=cache_config,
        additional_config=additional_config or {},
        speculative_config=SpeculativeConfig(
            model="ngram", num_speculative_tokens=speculative_tokens
        )
        if speculative_tokens
        else None,
    )
    # vLLM takes it back on a CPU, whose engine has none; its scheduler has.
    vllm_config.scheduler_config.async_scheduling = settings["async_scheduling"]
    shape = {"num_kv_heads": 1, "head_size": 64, "dtype": torch.float32}
    layers = [
        FullAttentionSpec(block_size=block_tokens, **shape),
        *(
            SlidingWindowSpec(block_size=block_tokens, sliding_window=tokens, **shape)
            for tokens in window_tokens
        ),
    ]
    kv_cache_config = KVCacheConfig(
        num_blocks=blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[
            KVCacheGroupSpec([f"layer {number}"], spec) for number, spec in enumerate(layers)
        ],
    )
    return scheduler_cls(
        vllm_config=vllm_config,
        kv_cache_config=kv_cache_config,
        structured_output_manager=StructuredOutputManager(vllm_config),
        block_size=block_tokens,
        log_stats=False,
    )


def block_hasher(scheduler: Scheduler) -> Callable[[Request], Any] | None:
    """How requests of a scheduler that caches prefixes name their blocks."""
    if not scheduler.cache_config.enable_prefix_caching:
        return None
    init_none_hash(sha256)
    return get_request_block_hasher(scheduler.block_size, sha256)


def new_request(number: int, tape: Tape, hasher: Callable[[Request], Any] | None = None) -> Request:
    """The tape's request of this number, which generates exactly its output tokens.

    Names sort as numbers do: by them vLLM orders requests of equal priority and arrival.
    """
    padded = f"{number:06d}" if tape.priorities is not None else str(number)
    return Request(
        request_id=padded,
        prompt_token_ids=[tape.token(number, one) for one in range(tape.prompt_tokens[number])],
        sampling_params=SamplingParams(max_tokens=int(tape.output_tokens[number]), ignore_eos=True),
        pooling_params=None,
        arrival_time=float(tape.arrived_at_s[number]),
        priority=0 if tape.priorities is None else tape.priorities[number],
        block_hasher=hasher,
    )


@dataclass
class Run:
    """A tape in a scheduler; completed_at_s and preemptions have shape (n,)."""

    tape: Tape
    completed_at_s: Any
    preemptions: Any
    clock_s: float = 0.0

    @property
    def latency_s(self) -> Any:
        return self.completed_at_s - self.tape.arrived_at_s


def run(
    scheduler: Scheduler,
    tape: Tape,
    iteration_time: IterationTime,
    in_flight: int = 1,
    on_step: Callable[[Step], None] | None = None,
    idle_s: float = 0.001,
) -> Run:
    """Play a whole tape.

    Args:
        on_step: Called after every step.
        idle_s: How long the engine sleeps when a scheduler with requests schedules none.
    """
    count = len(tape.arrived_at_s)
    state = Run(tape, np.full(count, np.nan), np.zeros(count, dtype=int))
    scheduler.clock = lambda: state.clock_s  # of the plug-in; vLLM's own scheduler has none
    seconds = _Seconds(iteration_time)
    hasher = block_hasher(scheduler)
    pending: deque[_Pending] = deque()
    arriving = 0
    while arriving < count or scheduler.has_requests() or pending:
        while arriving < count and tape.arrived_at_s[arriving] <= state.clock_s:
            scheduler.add_request(new_request(arriving, tape, hasher))
            arriving += 1
        if not scheduler.has_requests() and not pending:
            state.clock_s = float(tape.arrived_at_s[arriving])
            continue
        step = None
        if scheduler.has_requests():
            decided_at_s = state.clock_s
            output = scheduler.schedule()
            emits = list(_emits(output, scheduler))
            pending.append(_Pending(output, seconds.of(output, scheduler), emits))
            if on_step is not None:
                step = _step(decided_at_s, output, scheduler)
            if len(pending) < in_flight and output.total_num_scheduled_tokens:
                if step is not None and on_step is not None:
                    on_step(step)
                continue
        done = pending.popleft()
        if done.output.total_num_scheduled_tokens:
            state.clock_s += done.seconds
        elif scheduler.has_unfinished_requests():
            state.clock_s += idle_s
        finished = _finish(done, scheduler, state)
        if step is not None and on_step is not None:
            step.finished = finished
            on_step(step)
    return state


def play_step(scheduler: Scheduler) -> dict[str, int]:
    """One step and its output; the tokens that it computed, by request."""
    output = scheduler.schedule()
    done = _Pending(output, 0.0, list(_emits(output, scheduler)))
    nobody = np.full(64, np.nan)
    _finish(done, scheduler, Run(Tape(nobody, nobody, nobody), nobody, np.zeros(64, dtype=int)))
    return dict(output.num_scheduled_tokens)


@dataclass(frozen=True)
class _Pending:
    """A batch that is executed, and whether each of its requests has a new token at its end."""

    output: SchedulerOutput
    seconds: float
    emits: list[bool]


class _Seconds:
    """The iteration time of batches; affine servers without NumPy, which would dominate."""

    def __init__(self, iteration_time: IterationTime) -> None:
        self._time = iteration_time
        self._plain = iteration_time.is_affine and not (
            iteration_time.per_prefill_token_sq_s or iteration_time.per_prefill_context_token_s
        )

    def of(self, output: SchedulerOutput, scheduler: Scheduler) -> float:
        """τ of what was scheduled; computed tokens are already advanced by `schedule`."""
        total, decodes, kv, prefill = 0, 0, 0, []
        requests = scheduler.requests
        for number, tokens in output.num_scheduled_tokens.items():
            request = requests[number]
            computed = request.num_computed_tokens
            if tokens == 1 and computed > request.num_prompt_tokens:
                decodes += 1
                kv += computed
            else:
                prefill.append((tokens, computed - tokens))
            total += tokens
        time = self._time
        if self._plain:
            return (
                time.overhead_s
                + time.last_slope_s * total
                + time.per_kv_token_s * kv
                + time.per_prefill_token_s * (total - decodes)
                + time.per_decode_request_s * decodes
            )
        return float(
            time(
                total,
                kv_tokens=kv,
                prefill_tokens=total - decodes,
                decode_requests=decodes,
                prefill_tokens_sq=sum(tokens**2 for tokens, _ in prefill),
                prefill_context_tokens=sum(tokens * cached for tokens, cached in prefill),
            )
        )


def _finish(done: _Pending, scheduler: Scheduler, state: Run) -> set[int]:
    """Give every request whose known tokens are computed its next one; returns the finished."""
    output = done.output
    ids = list(output.num_scheduled_tokens)
    requests = scheduler.requests
    tokens = [
        [state.tape.token(int(one), requests[one].num_tokens)] if emits else []
        for one, emits in zip(ids, done.emits, strict=True)
    ]
    model_output = ModelRunnerOutput(
        req_ids=ids,
        req_id_to_index={one: index for index, one in enumerate(ids)},
        sampled_token_ids=tokens,
    )
    kept = {one: requests[one] for one in ids if one in requests}
    finished = set()
    for client_output in scheduler.update_from_output(output, model_output).values():
        for one in client_output.outputs:
            if one.finish_reason is not None:
                number = int(one.request_id)
                state.completed_at_s[number] = state.clock_s
                state.preemptions[number] = kept[one.request_id].num_preemptions
                finished.add(number)
    return finished


def _emits(output: SchedulerOutput, scheduler: Scheduler) -> Iterator[bool]:
    """Whether each scheduled request has all its known tokens computed by this step."""
    for one in output.num_scheduled_tokens:
        request = scheduler.requests.get(one)
        yield request is not None and not request.is_prefill_chunk


def _step(at_s: float, output: SchedulerOutput, scheduler: Scheduler) -> Step:
    manager = scheduler.kv_cache_manager
    step = Step(
        at_s=at_s,
        scheduled={int(one): tokens for one, tokens in output.num_scheduled_tokens.items()},
        running=[int(one.request_id) for one in scheduler.running],
        waiting=[int(one.request_id) for one in scheduler.waiting],
        free_blocks=manager.block_pool.get_num_free_blocks(),
    )
    if manager.enable_caching:
        for one in scheduler.running:
            step.tables[int(one.request_id)] = list(manager.get_block_ids(one.request_id)[0])
        free = manager.block_pool.free_block_queue.get_all_free_blocks()
        step.free_queue = [block.block_id for block in free]
    return step
