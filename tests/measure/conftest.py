"""One thread for torch: the tests' models are tiny, and threads only get in each other's way."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)
