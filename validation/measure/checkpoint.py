"""Weights of a local checkpoint folder in place of random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fluid.errors import InputError
from fluid.files import unreadable
from validation.measure.model import Decoder
from validation.measure.shapes import ModelShape


def require_checkpoint(shape: ModelShape, folder: Path) -> None:
    """Look at the headers of the folder's ``*.safetensors``, before a model is made for them.

    Raises:
        InputError: No such files, a weight is missing, or one has another shape.
    """
    with torch.device("meta"):
        decoder = Decoder(shape)
    for _ in _weights(decoder, folder):
        pass


def load_checkpoint(decoder: Decoder, folder: Path) -> None:
    """Copy all weights from the folder's ``*.safetensors`` into the decoder.

    Raises:
        InputError: As `require_checkpoint`.
    """
    for own, found in _weights(decoder, folder):
        with torch.no_grad():
            own.copy_(found[:])


def _weights(decoder: Decoder, folder: Path) -> Iterator[tuple[torch.Tensor, Any]]:
    """Each weight of a decoder with its slice of a file, which is read when it is indexed."""
    from safetensors import SafetensorError, safe_open

    try:
        files = sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        raise unreadable(error, folder) from None
    if not files:
        raise InputError("checkpoint", str(folder), "a folder with *.safetensors files")
    missing = decoder.checkpoint_weights()
    for file in files:
        try:
            opened = safe_open(file, framework="pt")
        except (OSError, SafetensorError) as error:
            raise InputError("checkpoint", str(file), f"a safetensors file ({error})") from None
        with opened as weights:
            for name in weights.keys():  # noqa: SIM118 (the file is no mapping)
                own = missing.pop(name.removeprefix("model."), None)
                if own is None:
                    continue
                found = weights.get_slice(name)
                shape = tuple(found.get_shape())
                if shape != own.shape:
                    allowed = f"shape {tuple(own.shape)} of model {decoder.shape.name}"
                    raise InputError(name, shape, allowed, str(file))
                yield own, found
    if missing:
        raise InputError(next(iter(missing)), "missing", "every weight of the model", str(folder))
