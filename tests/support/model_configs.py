"""Configs of published models, as far as the toolkit reads them."""

from __future__ import annotations

from pathlib import Path

from validation.servers.shape import ModelShape, read_shape

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
MODELS = sorted(one.name for one in CONFIGS.iterdir())


def shape_named(name: str) -> ModelShape:
    """The shape of one of `MODELS`."""
    return read_shape(CONFIGS / name / "config.json", name)
