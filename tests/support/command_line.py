"""The command line in this process: what the tests of all commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from fluidwait.main import COMMANDS, LazyGroup, app, run


class Outcome:
    """Exit code and what was printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in this process."""

    def calling(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fluidwait", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run()
        printed = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, printed.out, printed.err)

    return calling


def all_commands() -> list[tuple[str, ...]]:
    """Words of every command, those in groups included."""
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        inner = getattr(group.get_command(None, name), "commands", {})
        found += [(name,), *((name, one) for one in inner)]
    return found
