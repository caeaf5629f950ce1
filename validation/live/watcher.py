"""The loop from a running engine's metrics to its table: scrape, learn, compare, write."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fluid.errors import InfeasibleError, InputError
from fluid.result import percent, seconds
from fluid.server import Server
from fluid.steady.stability import stability
from fluid.traces.scrapes import CountersFellError
from fluid.workload import Workload
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.live.load import Load, LoadLearner
from validation.live.scrape import Scrape
from validation.live.seen import Seen, require_page, seen_between
from validation.live.speed import Speed, SpeedLearner
from validation.live.step import Answer, Step

SIGNIFICANT = 4.0
"""Standard deviations that a change of the answer must have: one chance in sixteen thousand."""

_SURE = 0.15
"""Relative standard deviation of the answer below which a first table is written."""

_FEWEST_REQUESTS = 50
_RUNS = {"replications": 8, "requests": 800, "seed": 0}
"""The simulation in which a new table must not be worse than the old one."""


@dataclass
class Watcher:
    """Keeps a table right.

    Attributes:
        server: As its file has it.
        out: Where the table lies.
        change: Relative change of α* or n^C from which on a new table is written.
        model: Which one, on a page of several.
        dry_run: Write nothing.
        half_life_s: Of what is learned of the load.
    """

    server: Server
    out: Path
    change: float = 0.1
    model: str | None = None
    dry_run: bool = False
    half_life_s: float = 900.0
    table: ThresholdTable | None = None
    _answer: Answer | None = None
    _refused: Answer | None = None
    _last: Scrape | None = None
    _mix: Workload | None = None
    _load: LoadLearner = field(init=False)
    _speed: SpeedLearner = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.change < math.inf:
            raise InputError("change", self.change, "a share above 0")
        self._load = LoadLearner(self.half_life_s)
        self._speed = SpeedLearner(self.server)
        if self.out.exists():
            self._take_over(ThresholdTable.read(self.out))

    def step(self, scrape: Scrape) -> Step:
        """Learn from a scrape and decide.

        Raises:
            InputError: It is no page of an engine.
        """
        require_page(scrape, self.model)
        last, self._last = self._last, scrape
        if last is not None and scrape.at_s <= last.at_s:
            self._last = last
            return self._without(scrape, "waiting", "no newer scrape yet")
        if last is None:
            return self._without(scrape, "waiting", "one scrape so far, the next one is subtracted")
        try:
            seen = seen_between(last, scrape, self.model)
        except CountersFellError as error:
            told = f"the engine started again ({error.field}): what was learned is kept"
            return self._without(scrape, "trouble", told)
        except InputError as error:
            return self._without(scrape, "trouble", str(error))
        return self._decide(scrape, seen)

    def _without(self, scrape: Scrape, status: str, told: str) -> Step:
        return Step(scrape.at_s, status, told, table=self.table)

    def _decide(self, scrape: Scrape, seen: Seen) -> Step:
        moved = self._load.add(seen)
        load = self._load.load()
        if load is None:
            return Step(scrape.at_s, "learning", "no request has finished", seen, table=self.table)
        figures = (load.prompt_tokens.value, load.kv_per_decode_token)
        predicted_tpot_s = self._speed.predicted_tpot_s(seen, *figures)
        self._speed.add(seen, *figures)
        speed = self._speed.speed()
        server = speed.applied(self.server)
        seldom = load.requests < _FEWEST_REQUESTS or load.rate_per_s.value == 0
        workload = None if seldom else self._workload(load)

        def step(status: str, told: str, answer: Answer | None = None) -> Step:
            return Step(
                at_s=scrape.at_s,
                status=status,
                told=told,
                seen=seen,
                load=load,
                workload=workload,
                speed=speed,
                server=server,
                answer=answer,
                table=self.table,
                predicted_tpot_s=predicted_tpot_s,
            )

        if workload is None:
            return step("learning", f"{load.requests:.0f} requests have finished")
        try:
            answer = Answer(stability(workload, server), _relative_sd(load, speed))
        except InputError as error:  # a request that does not fit into the memory
            return step("kept", f"no table: {error}")
        why = self._why(answer, moved)
        if why is None:
            told = "the answer is that of the table"
            if self._answer is None:
                told = f"the answer is known to {percent(answer.relative_sd)} only"
            return step("unchanged" if self._answer else "learning", told, answer)
        if self._refused is not None and answer.change(self._refused) <= self.change / 2:
            return step("kept", "the answer is about that of the table that was refused", answer)
        try:
            status, told = self._follow(answer, load, why, scrape)
        except InfeasibleError as error:
            status, told = "kept", f"{why}, but no table can be certified: {error}"
        self._refused = answer if status == "kept" else None
        return step(status, told, answer)

    def _why(self, answer: Answer, moved: str | None) -> str | None:
        """Why a new table is wanted; None where the one in force will do."""
        if self._answer is None:
            return "there is no table yet" if answer.relative_sd <= _SURE else None
        change = answer.change(self._answer)
        noise = math.hypot(answer.relative_sd, self._answer.relative_sd)
        if change <= self.change or math.log1p(change) <= SIGNIFICANT * noise:
            return None
        (now, pace), (before, its) = answer.figures, self._answer.figures
        told = (
            f"α* went from {before:.4g} to {now:.4g} and n^C from {its:.4g} to {pace:.4g}"
            f", {percent(change)} and more than noise"
        )
        return f"{told}; {moved}" if moved else told

    def _workload(self, load: Load) -> Workload:
        """The load at its rate, as the mix found last where that still has its lengths."""
        if self._mix is None or not load.like(self._mix):
            self._mix = load.workload
        return self._mix.at_rate(load.rate_per_s.value)

    def _follow(self, answer: Answer, load: Load, why: str, scrape: Scrape) -> tuple[str, str]:
        """Solve, check against the table in force, and write."""
        table = Paced().solve(answer.stability.workload, answer.stability.server)
        broken = [one.condition for one in table.certificate if not one.holds]
        if broken:
            return "kept", f"{why}, but the certificate of a new table fails: {broken[0]}"
        worse = self._worse(table)
        if worse:
            return "kept", f"{why}, but {worse}"
        time = datetime.fromtimestamp(scrape.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        rate = load.rate_per_s
        saw = (
            f"watched {time}: {rate.value:.4g} /s ({rate.low:.4g} to {rate.high:.4g}), prompts of"
            f" {load.prompt_tokens.value:,.0f} tokens, outputs of {load.output_tokens.value:,.0f}"
        )
        notes = (*table.notes, saw, f"written because {why}")
        table = table.model_copy(update={"notes": notes})
        if not self.dry_run:
            try:
                table.write(self.out)
            except InputError as error:
                return "trouble", f"{why}, but it cannot be written: {error}"
        self.table, self._answer = table, answer
        return ("would write" if self.dry_run else "written"), why

    def _worse(self, table: ThresholdTable) -> str | None:
        """What speaks against a table in a simulation beside the one in force, same arrivals."""
        if self.table is None or self.table.limits == table.limits:
            return None
        from validation.experiments.evaluate import simulate_settings  # numba is slow to import

        limits = [table.limits, self.table.limits]
        new, old = (
            one.row
            for one in simulate_settings(
                table.workload, table.server, table.scheduler, limits, **_RUNS
            )
        )
        if new.verdict == "unstable" and old.verdict != "unstable":
            return "in simulation it is unstable and the one in force is not"
        longer = old.latency_difference_s
        if longer is not None and longer.mean - longer.half_width > 0:
            return (
                f"in simulation requests take {seconds(longer.mean)} longer than with the old one"
            )
        return None

    def _take_over(self, table: ThresholdTable) -> None:
        """Start from a table that is in force.

        Raises:
            InputError: It is of another policy, or of another KV cache than the server's.
        """
        if table.policy != "paced":
            allowed = "paced: that is what is written, and compared with"
            raise InputError("policy", table.policy, allowed, str(self.out))
        if table.server.usable_kv_tokens != self.server.usable_kv_tokens:
            allowed = f"{self.server.usable_kv_tokens} tokens, as {self.server.name} has"
            capacity = table.server.usable_kv_tokens
            raise InputError("server.kv_capacity_tokens", capacity, allowed, str(self.out))
        self.table = table
        self._answer = Answer(stability(table.workload, table.server), 0.0)


def _relative_sd(load: Load, speed: Speed) -> float:
    """Of α* and n^C: each is about proportional to one over rate, lengths and factors."""
    lengths = math.hypot(load.prompt_tokens.relative_sd, load.output_tokens.relative_sd)
    return math.hypot(load.rate_per_s.relative_sd, lengths, speed.relative_sd)
