"""Policies with their parameters in a word: ``greedy:watermark=0.01``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def policy_label(name: str, params: Mapping[str, Any]) -> str:
    """``NAME:key=value,…`` with numbers to six digits.

    >>> policy_label("nested-cap", {"thresholds": (9, 4), "watermark": 0.01})
    'nested-cap:thresholds=9/4,watermark=0.01'
    """
    shown = [f"{key}={_short(value)}" for key, value in params.items()]
    return name + (":" + ",".join(shown) if shown else "")


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
