"""Several hundred bad inputs to all commands, and as many broken files to all readers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.cases import ANSWERED, cases, commands
from tests.fuzz.readers import broken, read_all
from tests.fuzz.running import answer
from tests.support.command_line import all_commands

COUNT, SEED = 500, 20_240
CASES = [one for one in cases(SEED, COUNT) if one.allowed != ANSWERED]
"""Those that are refused before any work; the full size runs the others too."""


def test_every_command_is_tried() -> None:
    tried = {one.name.partition(":")[0] for one in CASES}
    assert tried == {" ".join(words) for words in commands()}
    assert {words for words in all_commands() if words not in commands()} <= {("doctor",)} | {
        words for words in all_commands() if words[0] in ("server", "workload")
    }


@pytest.mark.parametrize("part", range(8))
def test_bad_input_is_one_line_and_exit_2(part: int, tmp_path: Path) -> None:
    wrong = []
    for index, case in enumerate(CASES[part::8]):
        folder = tmp_path / str(index)
        folder.mkdir()
        found = answer(case, folder).wrong(case)
        if found:
            wrong.append(f"{case.name}\n  {case.line}\n  {found}")
    assert not wrong, "\n".join(wrong)


def test_broken_files_are_input_errors_to_every_reader(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for _ in range(200):
        read_all(broken(rng), tmp_path)
