"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A shared core may stall any example for longer than hypothesis' default deadline.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with development data that is not part of the repository; skips where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("development data not present: no ../shared/data beside the repository")
    return _SHARED_DATA
