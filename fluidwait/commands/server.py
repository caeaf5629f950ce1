"""``fluidwait server``."""

from __future__ import annotations

from fluid.server import builtin_servers, load_server
from fluidwait.console import new_table, number, print_json, show


def run_list(as_json: bool) -> None:
    """The built-in servers, by name."""
    servers = [load_server(name) for name in builtin_servers()]
    if as_json:
        print_json({"servers": [one.document() for one in servers]})
        return
    table = new_table("Built-in servers", "name", "KV tokens", "block", "first token", "overhead s")
    for one in servers:
        table.add_row(
            one.name,
            number(float(one.kv_capacity_tokens)),
            str(one.block_tokens),
            one.first_token,
            number(one.iteration_time.overhead_s),
        )
    show(table)


def run_show(name: str) -> None:
    """The whole description as JSON, with its source."""
    print_json(load_server(name).document())
