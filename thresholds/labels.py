"""Policies with their parameters in a word: ``greedy:watermark=0.01``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def policy_label(name: str, params: Mapping[str, Any], exact: bool = False) -> str:
    """``NAME:key=value,…``, numbers to six digits, or to all of theirs.

    >>> policy_label("nested-cap", {"thresholds": (9, 4), "watermark": 0.01})
    'nested-cap:thresholds=9/4,watermark=0.01'
    """
    shown = [f"{key}={_shown(value, exact)}" for key, value in params.items()]
    return name + (":" + ",".join(shown) if shown else "")


def _shown(value: Any, exact: bool) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) and not exact else str(value)
