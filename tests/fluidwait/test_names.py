"""What a shell offers, and commands that are printed to be typed again."""

from __future__ import annotations

import shlex

import pytest
from typer.main import get_command

from fluidwait import names
from fluidwait.commands import capacity, export, replay, solve
from fluidwait.console import typed_again


@pytest.mark.parametrize(
    ("app", "option", "typed", "offered"),
    [
        (solve.app, "server", "a100", ["a100-80gb-llama-2-7b"]),
        (solve.app, "policy", "nested", ["nested-wait", "nested-cap"]),
        (replay.app, "policy", "vllm", ["vllm-v0", "vllm-v1"]),
        (export.app, "to", "s", ["sglang"]),
        (capacity.app, "query", "r", ["rate"]),
    ],
)
def test_names_are_offered(app: object, option: str, typed: str, offered: list[str]) -> None:
    command = get_command(app)  # type: ignore[arg-type]
    (parameter,) = (one for one in command.params if one.name == option)
    context = command.make_context("it", [], resilient_parsing=True)
    found = [one.value for one in parameter.shell_complete(context, typed)]
    assert set(offered) <= set(found)
    assert all(one.startswith(typed) for one in found)


def test_a_name_is_offered_for_every_beginning() -> None:
    lists = (names.servers, names.policies, names.solvers, names.engines, names.queries)
    for source in (*lists, names.routers):
        everything = source("")
        assert len(everything) >= 3
        assert source(everything[-1]) == [everything[-1]]
        assert source("no such name") == []


@pytest.mark.parametrize(
    "argv",
    [
        ["replay", "my table.json", "--requests", "500", "--seed", "3"],
        ["replay", "my table.json", "--requests=500", "--seed", "3"],
        ["replay", "my table.json", "--seed", "3"],
    ],
)
def test_a_command_is_typed_again_with_one_option_changed(argv: list[str]) -> None:
    again = shlex.split(typed_again(argv, "--requests", 9000))
    assert again == ["fluidwait", "replay", "my table.json", "--seed", "3", "--requests", "9000"]
