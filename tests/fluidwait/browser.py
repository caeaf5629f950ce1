"""Headless Chromium for tests that look at a page as a reader would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """A driven Chromium; skips where it is absent, but never in continuous integration."""
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        reason = "no Chromium: install the Debian packages chromium and chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    # The sandbox does not start for root, and /dev/shm is small in containers.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
