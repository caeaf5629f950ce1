"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# A shared core may stall any example for longer than hypothesis' default deadline.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

# Workers of pytest-xdist are told a terminal of 80 columns; tests of one say so themselves.
os.environ.pop("COLUMNS", None)

_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    """Pictures of a test are closed when it ends."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with development data that is not part of the repository; skips where it is absent."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("development data not present: no ../shared/data beside the repository")
    return _SHARED_DATA


BROWSER_REQUIRED = "FLUIDWAIT_REQUIRE_BROWSER"
"""Set where a missing browser is an error, as in continuous integration."""


def _executable(*names: str) -> str:
    """Path of the first of these programs; skips the test, or fails where it is required."""
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"{names[0]} is not installed (Debian packages chromium and chromium-driver)"
    if os.environ.get(BROWSER_REQUIRED):
        pytest.fail(f"{reason}, and {BROWSER_REQUIRED} is set")
    pytest.skip(reason)


@pytest.fixture
def browser() -> Iterator[Chrome]:
    """Headless Chromium with a window of laptop size; `get` takes http and file addresses."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _executable("chromium", "chromium-browser", "google-chrome")
    service = Service(_executable("chromedriver"))
    for argument in (
        "--headless=new",
        "--no-sandbox",  # the sandbox does not start in a container or as root
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(180)
    driver.set_script_timeout(180)
    yield driver
    driver.quit()
