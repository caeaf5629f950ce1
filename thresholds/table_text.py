"""A threshold table in words: what to set, why, and when not to trust it."""

from __future__ import annotations

from collections.abc import Iterator

from fluid.result import Block, Table, notes, number, percent, rare
from fluid.transient.saturated import HOW_SURE, unrestrained_words
from thresholds.fields import Loss, Memory, PredictedLatency, QueueLaw, TableFields
from thresholds.limits import PARAMETER_MEANINGS
from thresholds.rules import rule_of


def table_blocks(table: TableFields) -> Iterator[Block]:
    """Settings, memory behind segments, certificate, predictions, validity and notes."""
    rule = rule_of(table.policy)
    yield _settings(table)
    if rule.segmented:
        yield from _memory(table.memory)
    yield Table(
        "Certificate",
        ("condition", "slack", "holds"),
        tuple(
            (one.condition, percent(one.slack), "yes" if one.holds else "NO")
            for one in table.certificate
        ),
        spare=("slack",),
    )
    yield from _predicted(table)
    yield from _sentences(table)
    yield from notes(table.notes)


def _settings(table: TableFields) -> Table:
    rule = rule_of(table.policy)
    rows = [
        (name, number(float(value)), PARAMETER_MEANINGS.get(name, ""))
        for name, value in table.params.items()
    ]
    if rule.meaning:
        rows += [
            (rule.shown_name(one), str(one.threshold), rule.meaning) for one in table.thresholds
        ]
    title = f"{table.policy} table for {table.workload.name} on {table.server.name}"
    return Table(title, ("set", "to", "meaning"), tuple(rows), left=(0, 2), spare=("meaning",))


def _memory(memory: Memory) -> Iterator[Block]:
    """The memory behind a table with segments, part by part, and its promise."""
    rows = [("full batches", number(memory.required_tokens))]
    if memory.stochastic_buffer_tokens is not None:
        by_chance = memory.stochastic_buffer_tokens
        rows.append(("full boundary queues", number(memory.buffer_tokens - by_chance)))
        rows.append(("queues that grow beyond them by chance", number(by_chance)))
    rows.append(("the server has", number(memory.capacity_tokens)))
    yield Table("Memory", ("for", "KV tokens"), tuple(rows))
    if memory.overflow_probability is not None and memory.horizon_s is not None:
        yield (
            f"An overflow within {number(memory.horizon_s)} s has probability "
            f"{number(memory.overflow_probability)} at most."
        )
    law = memory.queue_law
    if law is not None and memory.horizon_s is not None:
        chance = law.overflow_probability
        shown = "less than 1e-9" if chance < 1e-9 else f"{chance:.1e}"
        first = "That is Theorem 2; the law" if memory.stochastic_buffer_tokens else "The law"
        yield (
            f"{first} of the boundary queues ({_kind(law)}) asks for {number(law.tokens)} tokens, "
            f"and gives {shown} with what the server has."
        )


def _kind(law: QueueLaw) -> str:
    return "exact" if law.is_exact else "a bound"


def _predicted(table: TableFields) -> Iterator[Block]:
    """How long requests will take, for which policy, and how far to trust it."""
    found, law = table.predicted, table.predicted.law
    if found.policy_latency_s is not None and not (law and law.follows_table):
        yield f"Predicted under this table: mean latency {number(found.policy_latency_s)} s."
    if law is None:
        yield (
            "Predicted for work-conserving service, to first order and often low: mean latency "
            f"{number(found.latency_s)} s, KV {number(found.kv_tokens)} of "
            f"{number(table.memory.capacity_tokens)} tokens."
        )
    elif law.refusal is not None:
        yield (
            f"No latencies predicted for {law.scheduler}: {law.refusal}; replay measures those "
            "under this table."
        )
    else:
        yield from _law(law, table.memory.capacity_tokens)


def _law(law: PredictedLatency, capacity_tokens: float) -> Iterator[Block]:
    whom = "under this table" if law.follows_table else "for work-conserving service"
    times = {"TTFT": law.ttft_s, "TPOT": law.tpot_s, "latency": law.latency_s}
    yield Table(
        f"Predicted {whom} ({law.scheduler}), seconds",
        ("over all requests", "mean", "p50", "p90", "p99"),
        tuple(
            (name, *map(number, (one.mean, one.p50, one.p90, one.p99)))
            for name, one in times.items()
            if one is not None
        ),
    )
    if not law.follows_table:
        yield "What this table holds back is left out there: replay measures what that costs."
    yield (
        f"KV {number(law.kv_mean_tokens)} ± {number(law.kv_sd_tokens)} of "
        f"{number(capacity_tokens)} tokens; memory is full in "
        f"{rare(law.overflow_probability or 0.0)} of iterations."
    )
    if law.accuracy is not None:
        yield law.accuracy
    yield from notes(law.caveats)


def _sentences(table: TableFields) -> Iterator[str]:
    predicted = table.predicted
    if table.loss is not None:
        yield _loss_sentence(table.loss)
    for price in table.prices:
        yield f"Price: {price.words}."
    gap = table.solver.optimality_gap
    yield (
        f"Solver: {table.solver.name}, {table.solver.status}"
        + (f", within {percent(gap, 2)} of the optimum." if gap is not None else ".")
    )
    least = table.valid_for.min_rate_per_s
    yield (
        f"Valid for total rates {f'from {number(least)} ' if least else ''}"
        f"up to {number(table.valid_for.max_rate_per_s)} /s; "
        f"{predicted.binding} binds there."
    )


def _loss_sentence(loss: Loss) -> str:
    own = "" if loss.table_share is None else f", {percent(loss.table_share, 0)} with this table"
    return (
        "Predicted once memory has filled: greedy admission without a table loses about "
        f"{unrestrained_words(loss.unrestrained_share)} of the limit, "
        f"{percent(loss.watermark_share, 0)} with a {percent(loss.watermark_fraction, 0)} "
        f"watermark{own} {HOW_SURE}."
    )


def settings_words(table: TableFields) -> str:
    """What is set, in a line: ``pace_per_iteration 0.14, watermark_fraction 0.01``."""
    return ", ".join(f"{name} {number(float(value))}" for name, value in table.settings.items())
