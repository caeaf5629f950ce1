"""What is measured: a model of a shape and type on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fluid.errors import FluidwaitError, InputError
from validation.measure.shapes import ModelShape, shape_named

if TYPE_CHECKING:
    import torch

    from validation.measure.model import Decoder


@dataclass(frozen=True)
class Target:
    """What is measured.

    Attributes:
        dtype: Of weights, KV and activations.
        checkpoint: Folder with weights; None for random ones, which cost the same time.
    """

    shape: ModelShape
    device: torch.device
    dtype: torch.dtype
    checkpoint: Path | None = None

    @classmethod
    def named(
        cls,
        model: str = "llama-2-7b",
        dtype: str = "float16",
        device: str = "auto",
        checkpoint: str | Path | None = None,
    ) -> Self:
        """A target by names, checked before anything is allocated.

        Args:
            device: "cpu", "cuda", or "auto" for CUDA where there is one.

        Raises:
            InputError: An unknown name, no such device, a model that does not fit, or a checkpoint
                that lacks files or weights of this shape.
            FluidwaitError: torch is not installed.
        """
        shape = shape_named(model)
        try:
            from validation.measure.device import device_named, dtype_named, require_room
        except ImportError:
            raise FluidwaitError("measuring needs torch: pip install 'fluidwait[torch]'") from None
        weights = None if checkpoint is None else Path(checkpoint)
        found = cls(shape, device_named(device), dtype_named(dtype), weights)
        require_room(shape, found.device, found.dtype)
        if weights is not None:
            from validation.measure.checkpoint import require_checkpoint

            require_checkpoint(shape, weights)
        return found

    @property
    def title(self) -> str:
        """Model and device in words."""
        return f"{self.shape.name} on {self.device}"

    @property
    def weights(self) -> str:
        """Where the weights come from, in words."""
        return f"weights of {self.checkpoint.name}" if self.checkpoint else "random weights"

    def require_cuda_graphs(self) -> None:
        """Refuse graphs on a device without them.

        Raises:
            InputError: The device is not CUDA.
        """
        if self.device.type != "cuda":
            raise InputError("cuda_graphs", True, "only with device cuda")

    def decoder(self) -> Decoder:
        """The model on its device."""
        from validation.measure.model import random_decoder

        decoder = random_decoder(self.shape, self.device, self.dtype)
        if self.checkpoint:
            from validation.measure.checkpoint import load_checkpoint

            load_checkpoint(decoder, self.checkpoint)
        return decoder
