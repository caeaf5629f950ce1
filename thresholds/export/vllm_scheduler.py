"""A vLLM scheduler that follows a threshold table: pace, cap, watermark and segment holds.

    vllm serve MODEL --scheduler-cls thresholds.export.vllm_scheduler.AsyncTableScheduler \\
        --additional-config '{"fluidwait": {"table": "/path/table.json"}}'

The scheduling itself stays vLLM's. During each of its steps the scheduler sees the waiting requests
through a gate that shows those that the table lets in (`gate`), and running ones that it holds are
deferred. Requests that vLLM preempted pass the gate, by priority also those that stand behind a
new one. A step costs O(admitted) beyond vLLM's own, and O(running) with segments.

A table file that is replaced is followed from the next step on (`reload`): checked as at the start,
refused if it would have been refused there, with credit and holds carried over.

`TableScheduler` is the same for an engine without asynchronous scheduling. Both refuse to start,
with an `InputError` of one line, on a table that was not made for this engine.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from vllm.logger import init_logger
from vllm.v1.core.kv_cache_utils import get_max_concurrency_for_kv_cache_config
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue, SchedulingPolicy
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from fluid.errors import FluidwaitError, InputError
from fluid.files import FileModel
from thresholds.export.admission import (
    EngineMemory,
    Restraints,
    doubts,
    require_same_server,
    restraints_of,
)
from thresholds.export.gate import GatedQueue, is_new
from thresholds.export.holds import SegmentHolds
from thresholds.export.priority_queue import IndexedPriorityQueue
from thresholds.export.reload import TableFile
from thresholds.export.view import TableView
from thresholds.limits import Limits
from thresholds.table import ThresholdTable

# vLLM's classes carry no types here.
# mypy: disable-error-code="misc, no-any-return"

logger = init_logger(f"vllm.{__name__}")

SETTINGS = "fluidwait"
"""Key of this scheduler's settings in vLLM's additional config."""


# The mixin stands before a scheduler of vLLM, whose attributes it uses.
if TYPE_CHECKING:
    from vllm.v1.core.sched.scheduler import Scheduler as _Scheduler
else:
    _Scheduler = object


class Settings(FileModel):
    """What ``--additional-config`` says under "fluidwait".

    Attributes:
        table: Path of the threshold table.
        max_wait_s: A request that has waited so long is released, one per step, and opens the
            gate that it waits at; overrides the table's.
        kv_tolerance: Largest relative difference between the engine's KV capacity and the table's.
        log_every_s: Least time between two log lines with the counters; 0 for none.
        allow_speculation: Follow the table in an engine with speculative decoding, where pace, cap
            and watermark mean the same and predicted times do not.
    """

    table: str
    max_wait_s: Annotated[float, Field(gt=0)] | None = None
    kv_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    log_every_s: Annotated[float, Field(ge=0)] = 60.0
    allow_speculation: bool = False


@dataclass
class Counters:
    """What the table has done so far.

    Attributes:
        iterations: Steps that computed something.
        admitted: Requests admitted for the first time.
        held_steps: Running requests held back, summed over steps.
        overdue: Releases of a request that had waited for max_wait_s, against the table.
        drained: Steps in which all holds were lifted because the memory was full.
        beyond: Requests that may generate more tokens than the table's last segment covers; they
            count as its members.
        reloaded: New tables that were followed.
        refused: New tables that were not.
    """

    iterations: int = 0
    admitted: int = 0
    held_steps: int = 0
    overdue: int = 0
    drained: int = 0
    beyond: int = 0
    reloaded: int = 0
    refused: int = 0


@dataclass
class _StepState:
    """What one step has done so far.

    Attributes:
        room: New requests that the segments have room for.
        admitted: New requests admitted.
        taken: Requests that vLLM took out of a queue, to run them or to pass them over.
        unsettled: The new one among them of which that is not known yet.
        against_table: The request shown to vLLM because it had waited too long.
    """

    room: float = math.inf
    admitted: int = 0
    taken: set[Request] = field(default_factory=set)
    unsettled: Request | None = None
    against_table: Request | None = None


class _FollowsTable(_Scheduler):
    """Mixed into one of vLLM's schedulers."""

    waiting: RequestQueue

    clock = staticmethod(time.time)
    """The clock of `Request.arrival_time`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        vllm_config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
        self.settings = settings = _settings(vllm_config.additional_config)
        self._file = TableFile(settings.table)
        table = ThresholdTable.read(settings.table)
        self.restraints = _restraints(table, settings)
        self.limits = self.restraints.limits
        _require_scheduling(vllm_config.scheduler_config, self)
        _require_seats(vllm_config.scheduler_config, self.restraints, settings.table)
        self._own_watermark = getattr(vllm_config.scheduler_config, "watermark", None)
        _raise_watermark(vllm_config.scheduler_config, self.limits)
        super().__init__(*args, **kwargs)
        _require_no_speculation(self.num_spec_tokens, settings)
        self._memory = _memory_of(self)
        self._require_same_server(table)
        self.counters = Counters()
        segmented = bool(self.restraints.segment_thresholds)
        self._segments = SegmentHolds(self.restraints) if segmented else None
        self._pace = _pace_of(table)
        self._credit = 1.0 + self._pace
        self._drain = False
        self._step = _StepState()
        self._arrivals: OrderedDict[str, Request] = OrderedDict()
        self._preempted: set[Request] = set()
        # vLLM 0.29 keeps the requests that it passes over in a queue of their own.
        names = ("waiting", "skipped_waiting")
        self._queue_names = [name for name in names if hasattr(self, name)]
        if self.policy == SchedulingPolicy.PRIORITY:
            for name in self._queue_names:
                setattr(self, name, IndexedPriorityQueue())
        self._logged_at_s = self.clock()
        logger.info("fluidwait follows %s: %s", settings.table, self.restraints)
        for reason in self._doubts(table):
            logger.warning("fluidwait: %s: %s", settings.table, reason)

    def add_request(self, request: Request) -> None:
        """vLLM's own, and a place in the order of arrival for a new request."""
        is_update = request.request_id in self.requests
        super().add_request(request)
        if is_update:
            return
        self._arrivals[request.request_id] = request
        ends = self.restraints.segment_ends
        if ends and request.max_tokens > ends[-1]:
            if not self.counters.beyond:
                logger.warning(
                    "fluidwait: request %s may generate %d tokens, the table's last segment ends "
                    "at %d; it is treated as a member of that segment, as are others like it",
                    request.request_id,
                    request.max_tokens,
                    ends[-1],
                )
            self.counters.beyond += 1

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """vLLM's own step, on the requests that the table lets it see."""
        if self._file.is_new(self.clock()):
            self._reload()
        room = self._hold_running()
        self._step = _StepState(room)
        queues = {name: getattr(self, name) for name in self._queue_names}
        for name, queue in queues.items():
            setattr(self, name, GatedQueue(queue, self._choose, self._take))
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            for name, queue in queues.items():
                setattr(self, name, queue)
        self._count(output, stuck=bool(room and self.running))
        return output

    def _update_after_schedule(self, *args: Any, **kwargs: Any) -> None:
        self._settle()  # As long as `num_computed_tokens` says what was found.
        super()._update_after_schedule(*args, **kwargs)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        self._preempted.add(request)

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self._arrivals.pop(request.request_id, None)
        self._preempted.discard(request)
        if self._segments is not None:
            self._segments.forget(request.request_id)
        return super()._free_request(request, *args, **kwargs)

    def _require_same_server(self, table: ThresholdTable) -> None:
        require_same_server(table, self._memory, self.settings.kv_tolerance, self.settings.table)

    def _doubts(self, table: ThresholdTable) -> Iterator[str]:
        """What speaks against the table, in itself or in this engine."""
        yield from doubts(table, date.today())
        held = table.server.usable_kv_tokens
        if not self._memory.promises(held, self.settings.kv_tolerance):
            yield (
                f"it counts on {held} KV tokens, more than short requests find in "
                f"{self._memory.shown}: they may be preempted"
            )
        if self.num_spec_tokens:
            yield (
                f"this engine guesses {self.num_spec_tokens} tokens ahead: pace, cap and watermark "
                "hold, predicted times, rates and memory do not"
            )

    def _reload(self) -> None:
        """Follow the table that is in the file now, or say why not and stay with the old one."""
        settings, config = self.settings, self.vllm_config.scheduler_config
        try:
            table = ThresholdTable.read(settings.table)
            restraints = _restraints(table, settings)
            _require_seats(config, restraints, settings.table)
            self._require_same_server(table)
            _require_watermark(self._own_watermark, restraints.limits)
        except FluidwaitError as error:
            self.counters.refused += 1
            logger.warning("fluidwait: a new table is refused, the old one stays: %s", error)
            return
        self.restraints, self.limits = restraints, restraints.limits
        if self._own_watermark is not None:
            config.watermark = self._own_watermark
            _raise_watermark(config, self.limits)
            blocks = int(config.watermark * self.kv_cache_config.num_blocks)
            self.kv_cache_manager.watermark_blocks = blocks
        self._pace = _pace_of(table)
        self._credit = min(self._credit, 1.0 + self._pace)
        if not restraints.segment_thresholds:
            self._segments = None
            self._drain = False
        elif self._segments is None:
            self._segments = SegmentHolds(restraints)
        else:  # who waits at a boundary has waited as long as before
            self._segments.restraints = restraints
        self.counters.reloaded += 1
        told = "; ".join(self._doubts(table))
        doubtful = f" (doubtful: {told})" if told else ""
        logger.info("fluidwait follows a new %s: %s%s", settings.table, restraints, doubtful)

    def _hold_running(self) -> float:
        """Hold what the segments hold; returns how many new requests they have room for."""
        if self._segments is None or self._drain:
            return math.inf
        running = [
            (one.request_id, one.num_output_tokens + one.num_output_placeholders)
            for one in self.running
        ]
        holds = self._segments.decide(
            running, len(self.waiting), self._longest_wait_s(), self.clock()
        )
        for index in holds.held:
            request = self.running[index]
            # `schedule` counts its step up first: not in the coming step, in the one after it.
            request.next_decode_eligible_step = max(
                request.next_decode_eligible_step, self.current_step + 2
            )
        self.counters.held_steps += len(holds.held)
        return holds.room

    def _choose(self, queue: RequestQueue) -> Request | None:
        """Whom the scheduler finds at the front of a queue, unless that one waits in another queue;
        None where the table lets nobody in.

        What vLLM preempted, or blocks until something else is ready, it decides itself. Where the
        gate is closed to the new request at the head, one that has waited too long goes first, then
        whoever was preempted, wherever they stand.
        """
        self._settle()
        head = queue.peek_request()
        if not is_new(head) or self._admits():
            return head
        first = self._overdue()
        self._step.against_table = first
        return first or self._first_preempted(queue)

    def _admits(self) -> bool:
        """Cap, segments and pace (THEORY 3.5) for one more new request."""
        # vLLM 0.29 has no queue of waiting requests that hold KV.
        residents = len(self.running) + len(getattr(self, "kv_holding_waiting", ()))
        admitted = self._step.admitted
        if residents >= self.limits.cap or admitted >= self._step.room:
            return False
        return residents == 0 or self._credit >= 1

    def _overdue(self) -> Request | None:
        """The request that has waited longest, if too long and nobody was admitted instead."""
        if self._step.admitted or self._longest_wait_s() < self.restraints.max_wait_s:
            return None
        return self._longest_waiter()

    def _first_preempted(self, queue: RequestQueue) -> Request | None:
        """Who of those that vLLM preempted comes first in the queue."""
        if not self._preempted:
            return None
        if self.policy == SchedulingPolicy.PRIORITY:
            waiting = (one for one in self._preempted if one not in self._step.taken)
            return min(waiting, default=None)
        return next((one for one in queue if one in self._preempted), None)

    def _take(self, request: Request, new: bool) -> None:
        """The scheduler has taken a request out of the queue, to run it or to pass it over."""
        self._step.taken.add(request)
        self._step.unsettled = request if new else None
        self._preempted.discard(request)

    def _settle(self) -> None:
        """Count the new request taken last, once it is known whether it was admitted.

        It spends of the pace the share of its tokens that it computes: what the engine found in its
        cache of prefixes costs nothing.
        """
        step = self._step
        request, step.unsettled = step.unsettled, None
        if request is None or request.status == RequestStatus.WAITING:
            return
        step.admitted += 1
        computes = request.num_tokens - request.num_computed_tokens
        self._credit = max(self._credit - computes / request.num_tokens, 0.0)
        self.counters.overdue += request is step.against_table
        del self._arrivals[request.request_id]

    def _longest_waiter(self) -> Request | None:
        """The first in order of arrival that waits for its first admission and could run."""
        taken = self._step.taken
        return next((o for o in self._arrivals.values() if is_new(o) and o not in taken), None)

    def _longest_wait_s(self) -> float:
        """How long that one has waited."""
        if math.isinf(self.restraints.max_wait_s):
            return 0.0
        first = self._longest_waiter()
        return 0.0 if first is None else self.clock() - first.arrival_time

    def _count(self, output: SchedulerOutput, stuck: bool) -> None:
        """Earn credit; lift the holds of the next step if this one could do nothing.

        Where segments have room for new requests, hold the others, and yet nothing runs, the memory
        is full of requests that wait for each other.
        """
        counters, pace = self.counters, self._pace
        counters.admitted += self._step.admitted
        computes = output.total_num_scheduled_tokens > 0
        self._drain = self._segments is not None and stuck and not computes
        counters.drained += self._drain
        if computes:
            counters.iterations += 1
            self._credit = min(self._credit + pace, 1.0 + pace)
        now_s = self.clock()
        if 0 < self.settings.log_every_s <= now_s - self._logged_at_s:
            self._logged_at_s = now_s
            logger.info("fluidwait: %s, %d running, %d waiting", counters, *self._in_engine())

    def _in_engine(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)


class TableScheduler(_FollowsTable, Scheduler):
    """Follows a table in an engine without asynchronous scheduling."""


class AsyncTableScheduler(_FollowsTable, AsyncScheduler):
    """Follows a table in an engine with asynchronous scheduling, vLLM's default."""


def _settings(additional_config: Any) -> Settings:
    """This scheduler's part of the engine's additional config."""
    found = additional_config.get(SETTINGS) if isinstance(additional_config, dict) else None
    if found is None:
        allowed = f'{{"{SETTINGS}": {{"table": PATH}}}}'
        raise InputError("--additional-config", additional_config, allowed)
    return Settings.from_document(found, "--additional-config")


def _restraints(table: ThresholdTable, settings: Settings) -> Restraints:
    restraints = restraints_of(table, settings.table)
    if settings.max_wait_s is None:
        return restraints
    return replace(restraints, max_wait_s=settings.max_wait_s)


def _pace_of(table: ThresholdTable) -> float:
    """In whole prompts per iteration: what is found in a cache costs nothing (`_settle`)."""
    return table.limits.pace * TableView(table).computed_share


def _raise_watermark(config: Any, limits: Limits) -> None:
    """Let vLLM keep the table's watermark free, or its own if that is larger."""
    own = getattr(config, "watermark", None)
    _require_watermark(own, limits)
    if own is not None:
        config.watermark = max(own, limits.watermark_fraction)


def _require_watermark(own: float | None, limits: Limits) -> None:
    """Refuse a table with a watermark in an engine that has none."""
    if own is None and limits.watermark_fraction:
        allowed = "0: this vLLM has no watermark"
        raise InputError("params.watermark_fraction", limits.watermark_fraction, allowed)


def _require_scheduling(config: Any, scheduler: Any) -> None:
    """Refuse an asynchronous engine whose scheduler counts no tokens in flight.

    Every decode would wait for the result of the one before: half the speed.
    """
    if config.async_scheduling and not isinstance(scheduler, AsyncScheduler):
        allowed = f"off with {type(scheduler).__name__}, or scheduler class AsyncTableScheduler"
        raise InputError("async scheduling of this engine", "on", allowed)


def _require_seats(config: Any, restraints: Restraints, file: str) -> None:
    """Refuse gates that an engine with so few seats could only open by draining.

    Raises:
        InputError: Requests of all stages, and those that wait at the gates between the segments,
            are more than ``max_num_seqs``.
    """
    if restraints.gated and config.max_num_seqs < restraints.seats:
        allowed = f"at least {restraints.seats}, for the thresholds of {file}"
        raise InputError("max_num_seqs", config.max_num_seqs, allowed)


def _require_no_speculation(tokens: int, settings: Settings) -> None:
    """Refuse an engine whose requests get several tokens in an iteration, unless it is allowed."""
    if tokens and not settings.allow_speculation:
        allowed = "0, or allow_speculation: true: a table counts one token per iteration"
        raise InputError("speculative tokens of this engine", tokens, allowed)


def _memory_of(scheduler: Any) -> EngineMemory:
    """What the blocks of an engine hold; all its groups of layers draw from one pool."""
    config = scheduler.kv_cache_config
    specs = [group.kv_cache_spec for group in config.kv_cache_groups]
    if len(specs) == 1:
        tokens = config.num_blocks * scheduler.block_size
        return EngineMemory(tokens, tokens, scheduler.block_size)
    # A group with a state in place of tokens has one long block: of a request one at least, as
    # each group has.
    block_tokens = min(spec.block_size for spec in specs)
    least = config.num_blocks // len(specs) * block_tokens
    requests = get_max_concurrency_for_kv_cache_config(scheduler.vllm_config, config)
    most = int(requests * scheduler.vllm_config.model_config.max_model_len)
    return EngineMemory(least, max(least, most), block_tokens)
