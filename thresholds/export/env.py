"""Tables as shell variables, for an engine or gateway of one's own."""

from __future__ import annotations

from thresholds.export.config import Engine, Flag, Words, shell_variables
from thresholds.export.view import TableView


def translate(view: TableView) -> Words:
    """Every parameter and threshold of the table."""
    table = view.table
    flags = [Flag("FLUIDWAIT_POLICY", table.policy, "the rule that the numbers belong to")]
    if view.file is not None:
        flags.append(Flag("FLUIDWAIT_TABLE", view.file, "the table itself"))
    for name, value in table.params.items():
        flags.append(Flag(f"FLUIDWAIT_{name.upper()}", value, f"params.{name} of the table"))
    for index, one in enumerate(table.thresholds):
        end = "" if one.up_to_tokens is None else f", up to {one.up_to_tokens} output tokens"
        flags.append(Flag(f"FLUIDWAIT_THRESHOLD_{index}", one.threshold, f"{one.name}{end}"))
    return tuple(flags), ()


ENV = Engine("env", translate, shell_variables, every_policy=True)
