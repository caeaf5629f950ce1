"""Every command prints and writes what it did when its output was kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden.cases import CASES
from tests.golden.recording import KEPT, recorded

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def split(text: str) -> tuple[str, list[float]]:
    """The words of a record with a mark for each number, and the numbers."""
    numbers = [float(one.replace(",", "").replace("−", "-")) for one in _NUMBER.findall(text)]
    return re.sub(r"[ ─]+", " ", _NUMBER.sub("#", text)), numbers


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return dict(recorded(tmp_path_factory.mktemp("golden")))


@pytest.mark.parametrize("name", CASES)
def test_a_command_gives_what_it_gave(name: str, records: dict[str, str]) -> None:
    words, numbers = split(records[name])
    kept_words, kept_numbers = split((KEPT / f"{name}.txt").read_text(encoding="utf-8"))
    assert words == kept_words
    # Printed figures are rounded; those of documents differ in the last bits between processors.
    assert numbers == pytest.approx(kept_numbers, rel=1e-3, abs=1e-9)


def test_every_kept_record_is_of_a_case() -> None:
    assert {one.stem for one in Path(KEPT).glob("*.txt")} == set(CASES)


def test_a_changed_word_or_figure_is_seen() -> None:
    assert split("stable at 1,234.5 /s") == ("stable at # /s", [1234.5])
    assert split("a 1.0")[0] != split("b 1.0")[0]
    assert split("−0.5 %")[1] == [-0.5]
