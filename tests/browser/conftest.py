"""A real browser for tests that look at what a user sees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

REQUIRED = "FLUIDWAIT_REQUIRE_BROWSER"
"""Set where a missing browser is an error, as in continuous integration."""


def executable(*names: str) -> str:
    """Path of the first of these programs; skips the test, or fails where it is required."""
    for name in names:
        if found := shutil.which(name):
            return found
    reason = f"{names[0]} is not installed (Debian packages chromium and chromium-driver)"
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium with a window of laptop size; `get` takes http and file addresses."""
    options = webdriver.ChromeOptions()
    options.binary_location = executable("chromium", "chromium-browser", "google-chrome")
    service = Service(executable("chromedriver"))
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
