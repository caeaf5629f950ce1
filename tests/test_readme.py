"""README and policies page against the code."""

from __future__ import annotations

from pathlib import Path

from fluid.server import builtin_servers
from validation.policies import POLICIES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
POLICIES_PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def test_every_policy_is_listed_with_its_parameters() -> None:
    for policy in POLICIES.values():
        names = ", ".join(one.name for one in policy.parameters) or "–"
        assert f"| `{policy.name}` | {policy.summary} | {names} |" in POLICIES_PAGE


def test_servers_that_the_readme_names_exist() -> None:
    named = {word for word in README.replace("`", " ").split() if word.startswith("a100-80gb")}
    assert named
    assert named <= set(builtin_servers())
