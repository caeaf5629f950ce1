"""Dashboard and alert rules: they are what they should be, of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from validation.live.serve import STATUSES, Shown

LIVE = Path(__file__).parents[2] / "docs" / "live"


def metrics() -> set[str]:
    """Names of all samples that `watch` may serve."""
    text = generate_latest(Shown().registry).decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def named(text: str) -> set[str]:
    return set(re.findall(r"fluidwait_\w+", text))


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    board = json.loads((LIVE / "grafana.json").read_text(encoding="utf-8"))
    found = [named(target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    assert all(found)
    assert set().union(*found) <= metrics()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_alerts_are_of_metrics_that_there_are() -> None:
    rules = yaml.safe_load((LIVE / "alerts.yml").read_text(encoding="utf-8"))
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert all(named(one) and named(one) <= metrics() for one in expressions)
    for status in re.findall(r'status="([^"]+)"', " ".join(expressions)):
        assert status in STATUSES


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)")
def test_promtool_takes_the_alerts() -> None:
    command = ["promtool", "check", "rules", str(LIVE / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS: 5 rules found" in done.stdout + done.stderr
