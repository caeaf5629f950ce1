"""A threshold table in words: what to set, why, and when not to trust it."""

from __future__ import annotations

from collections.abc import Iterator

from fluid.result import Block, Table, notes, number, percent
from fluid.transient.saturated import HOW_SURE, unrestrained_words
from thresholds.fields import Loss, Memory, TableFields
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


def _sentences(table: TableFields) -> Iterator[str]:
    predicted = table.predicted
    if predicted.policy_latency_s is not None:
        yield f"Predicted under this table: mean latency {number(predicted.policy_latency_s)} s."
    yield (
        f"Predicted for work-conserving service: mean latency {number(predicted.latency_s)} s, "
        f"KV {number(predicted.kv_tokens)} of {number(table.memory.capacity_tokens)} tokens."
    )
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
