"""Help, completion and doctor: what somebody meets first."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from fluid.result import Table, print_table
from fluidwait import installation
from fluidwait.installation import EXTRAS
from tests.support.command_line import Call, all_commands

PYPROJECT = tomllib.loads(
    (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
)
COMMANDS = all_commands()


def test_there_are_commands() -> None:
    assert {("solve",), ("doctor",), ("workload", "from-trace")} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_is_explained(call: Call, command: tuple[str, ...]) -> None:
    """A sentence for the command, words after every option, nothing swallowed by markup."""
    done = call(*command, "--help")
    assert done.code == 0
    paragraphs = done.out.split("\n\n")
    assert paragraphs[1].rstrip().endswith(".")
    entries: list[str] = []
    for line in done.out[done.out.index("Options:") :].splitlines()[1:]:
        if line.lstrip().startswith("-"):
            entries.append(line)
        elif line.strip() and entries:
            entries[-1] += " " + line.strip()
    for entry in entries:
        assert len(entry.split()) >= 5, entry
        assert entry.split("[default")[0].rstrip().endswith((".", "]")), entry
    assert "🅱" not in done.out


def test_no_summary_is_cut_short(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    assert "..." not in done.out.split("Commands:")[1]


@pytest.mark.parametrize("group", [(), ("workload",), ("server",)])
def test_help_where_no_command_is_given(call: Call, group: tuple[str, ...]) -> None:
    alone = call(*group)
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == call(*group, "--help").out


def test_forms_survive_in_help(call: Call) -> None:
    told = call("compare", "--help").out
    assert "a:b:step" in told
    assert "fluidwait[cuda]" in told


def test_shells_complete_commands() -> None:
    """What a shell runs on TAB once --install-completion has set it up."""
    program = "import sys; sys.argv = ['fluidwait']; from fluidwait.main import run; run()"
    environment = {"_FLUIDWAIT_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    words = {"COMP_WORDS": "fluidwait re"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **environment, **words},
    )
    assert done.stdout.split() == ["region", "replay", "report"]


def test_doctor(call: Call) -> None:
    found = call("doctor", "--json")
    assert found.code == 0
    document = found.document
    assert document["sound"] is True
    assert {"numpy", "cvxpy", "typer"} <= {one["name"] for one in document["packages"]}
    assert document["devices"][0]["name"] == "cpu"
    for one in document["extras"]:
        assert one["adds"] == EXTRAS[one["name"]]
        assert one["install"] == f"pip install 'fluidwait[{one['name']}]'"
    told = call("doctor")
    assert told.code == 0
    assert "All required packages are there." in told.out


def test_doctor_names_what_is_missing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["numpy>=99", "no-such-package>=1", "absent>=2; extra == 'cuda'"]
    monkeypatch.setattr(installation, "requires", lambda name: requirements)
    genuine = installation.version

    def version(name: str) -> str:
        if name in ("no-such-package", "absent"):
            raise PackageNotFoundError(name)
        return genuine(name)

    monkeypatch.setattr(installation, "version", version)
    monkeypatch.setattr(installation, "metadata", lambda name: _Metadata())
    done = call("doctor")
    assert done.code == 1
    assert "BROKEN: numpy, no-such-package missing or too old" in done.out
    assert "pip install 'fluidwait[cuda]'   # absent" in done.out
    found = call("doctor", "--json").document
    assert [one["installed"] is None for one in found["packages"]] == [False, True]
    assert found["extras"][0]["missing"] == ["absent"]


class _Metadata:
    def get_all(self, name: str) -> list[str]:
        assert name == "Provides-Extra"
        return ["cuda"]


def test_brackets_survive_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (("fluidwait[cuda]", ":red_circle:"),)
    print_table(Table("names [a]", ("package", "state"), rows), sys.stdout, width=80)
    printed = capsys.readouterr().out
    for text in ("names [a]", "fluidwait[cuda]", ":red_circle:"):
        assert text in printed


def test_every_extra_says_what_it_adds() -> None:
    assert set(EXTRAS) == set(PYPROJECT["project"]["optional-dependencies"])
