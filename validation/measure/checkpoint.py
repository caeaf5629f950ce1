"""Weights of a local checkpoint folder in place of random ones."""

from __future__ import annotations

from pathlib import Path

import torch

from fluid.errors import InputError
from fluid.files import unreadable
from validation.measure.model import Decoder


def load_checkpoint(decoder: Decoder, folder: Path) -> None:
    """Copy all weights from the folder's ``*.safetensors`` into the decoder.

    Raises:
        InputError: No such files, a weight is missing, or one has another shape.
    """
    from safetensors import safe_open

    try:
        files = sorted(folder.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        raise unreadable(error, folder) from None
    if not files:
        raise InputError("checkpoint", str(folder), "a folder with *.safetensors files")
    missing = dict(decoder.named_parameters())
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (the file is no mapping)
                own = missing.pop(name.removeprefix("model."), None)
                if own is None:
                    continue
                found = weights.get_tensor(name)
                if found.shape != own.shape:
                    allowed = f"shape {tuple(own.shape)} of model {decoder.shape.name}"
                    raise InputError(name, tuple(found.shape), allowed, str(file))
                with torch.no_grad():
                    own.copy_(found)
    if missing:
        raise InputError(next(iter(missing)), "missing", "every weight of the model", str(folder))
