"""Tables for rates that vary over time (THEORY 5.1): one per window of the rate profile.

The table in force depends on the clock alone, never on the load seen so far, so that there is no
hysteresis and two servers with the same clock agree. At a hand-over nothing is evicted or moved:
the next table governs admissions from the next iteration on.

Under literal WAIT it governs batches too, with the residents it finds. A stage then never holds
more than the largest threshold that has been in force (while more are there than pass on, no more
come in than go out), but a surplus stays while the class is busy. KV is therefore bounded by
Σ m_j max n_j over all windows.

Under literal Nested WAIT the hand-over travels with the requests: segment k takes over its new
threshold when the first batch that the new threshold of segment k − 1 has formed is about to reach
it. All windows have the same cuts and allow for the largest p_k of any if that is possible; then KV
is bounded, but for the overflow probability, by M(max n) with the buffers of the least θ_k. Both
bounds are the condition `hand_over`.

THEORY 5.1 asks for A(t, ΔT) < n at all times, those of a hand-over among them: the condition
`arrivals`. Where it fails queues outside grow for as long as such iterations last, no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from fluid.files import FileModel, read_document, write_document
from fluid.ranges import Name, PositiveFloat
from fluid.result import Block, Note, Result, Table, number
from fluid.server import Server
from fluid.workload import Workload
from thresholds.fields import Condition, Sha256
from thresholds.integrity import require_hashes, require_known_version, require_whole
from thresholds.table import ThresholdTable
from thresholds.table_text import settings_words

SCHEDULE_VERSION = "1.1"
SCHEDULE_MAJOR = SCHEDULE_VERSION.split(".")[0]


class Window(FileModel):
    """From `start_s` until `end_s` (None: for ever) `table` is in force.

    Attributes:
        multiplier: Of all rates of the workload in this window.
        class_multipliers: Of the rate of a class besides, by its name.
    """

    start_s: Annotated[float, Field(ge=0)]
    end_s: Annotated[float, Field(gt=0)] | None
    multiplier: Annotated[float, Field(ge=0)]
    class_multipliers: dict[Name, PositiveFloat] | None = None
    table: ThresholdTable
    notes: tuple[str, ...]

    @property
    def rates(self) -> str:
        """What the rates are multiplied by, in words."""
        classes = (self.class_multipliers or {}).items()
        return ", ".join(
            [number(self.multiplier), *(f"{name} {number(by)}" for name, by in classes)]
        )


class Schedule(Result, FileModel):
    """Tables over the rate profile of a workload.

    Attributes:
        period_s: After so many seconds the first window follows the last; None: never.
        hand_over: That KV fits with the residents of all windows; None where nobody is held back
            (every policy but literal WAIT and Nested WAIT), or where segments are cut differently.
        arrivals: That arrivals stay below the thresholds at hand-overs too; None as above, and in
            schedules of an earlier version.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> pieces = ({"start_s": 0.0, "multiplier": 0.5}, {"start_s": 60.0, "multiplier": 1.0})
    >>> load = fw.Workload.from_document(load.document() | {"rate_profile": pieces})
    >>> schedule = fw.solve(load, fw.Server.named("engine-long-decode"))
    >>> schedule.table_at(30.0).workload.rate_per_s
    1.0
    """

    schedule_version: Annotated[str, Field(pattern=rf"^{SCHEDULE_MAJOR}\.\d+$")]
    created_by: str
    workload: Workload
    server: Server
    workload_sha256: Sha256
    server_sha256: Sha256
    policy: Name
    period_s: float | None
    windows: Annotated[tuple[Window, ...], Field(min_length=1)]
    hand_over: Condition | None
    arrivals: Condition | None = None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a schedule and check it, with all of its tables.

        Raises:
            InputError: As `ThresholdTable.read`.
        """
        file, document = str(path), read_document(path)
        require_known_version("schedule_version", document, SCHEDULE_VERSION, file)
        schedule = cls.from_document(document, file)
        require_hashes(schedule, file)
        for window, said in zip(schedule.windows, document["windows"], strict=True):
            require_whole(window.table, said["table"], file)
        return schedule

    def write(self, path: str | Path) -> None:
        """Write the schedule as JSON, whole or not at all.

        Raises:
            InputError: The folder is missing or not writable.
        """
        write_document(self.document(), path)

    def table_at(self, clock_s: float) -> ThresholdTable:
        """The table in force at a time since the start of the profile, ≥ 0 s."""
        within_s = clock_s % self.period_s if self.period_s else clock_s
        return next(one for one in reversed(self.windows) if one.start_s <= within_s).table

    def blocks(self) -> Iterator[Block]:
        """Each window with its settings, then what must be known about them."""
        yield Table(
            f"{self.policy} schedule for {self.workload.name} on {self.server.name}",
            ("from s", "to s", "rates ×", "set", "stable up to /s"),
            tuple(
                (
                    number(one.start_s),
                    number(one.end_s),
                    one.rates,
                    settings_words(one.table),
                    number(one.table.valid_for.max_rate_per_s),
                )
                for one in self.windows
            ),
            left=(0, 3),
            spare=("rates ×", "to s"),
        )
        if self.hand_over is not None:
            holds = "holds" if self.hand_over.holds else "FAILS: evictions are possible"
            yield f"{self.hand_over.condition}: {holds}."
        if self.arrivals is not None:
            fails = "FAILS: queues outside grow while such iterations last"
            yield f"{self.arrivals.condition}: {'holds' if self.arrivals.holds else fails}."
        for one in self.windows:
            for remark in (*one.notes, *one.table.notes):
                yield Note(f"from {number(one.start_s)} s: {remark}")

    def document(self) -> dict[str, Any]:
        """Plain data with every field, null where absent; workload and server as in a table."""
        windows = [
            one.model_dump(mode="json", exclude={"table"}) | {"table": one.table.document()}
            for one in self.windows
        ]
        parts = {"workload": self.workload.document(), "server": self.server.document()}
        return self.model_dump(mode="json") | parts | {"windows": windows}

    def frame(self) -> dict[str, list[Any]]:
        """One row per window."""
        return {
            "start_s": [one.start_s for one in self.windows],
            "end_s": [one.end_s for one in self.windows],
            "multiplier": [one.multiplier for one in self.windows],
            "max_rate_per_s": [one.table.valid_for.max_rate_per_s for one in self.windows],
            "settings": [one.table.settings for one in self.windows],
        }
