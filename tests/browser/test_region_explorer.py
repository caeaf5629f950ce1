"""The interactive notebook as a user meets it: JupyterLab, a browser, a slider that is moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "02-stability-regions.ipynb"

PATIENCE_S = 240
"""For each step; a loaded machine with two cores needs tens of seconds to open JupyterLab."""

PIXELS = """
const image = document.querySelector("img.widget-image");
const canvas = document.createElement("canvas");
canvas.width = image.naturalWidth;
canvas.height = image.naturalHeight;
canvas.getContext("2d").drawImage(image, 0, 0);
return image.complete && image.naturalWidth > 0 ? canvas.toDataURL() : null;
"""


@pytest.fixture
def lab(tmp_path: Path, browser: webdriver.Chrome) -> Iterator[str]:
    """Address of a JupyterLab on loopback with a copy of the notebook and settings of its own."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(NOTEBOOK, work)
    own = {
        name: str(tmp_path / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"),
        *("--allow-root", f"--ServerApp.root_dir={work}", "--LabApp.news_url=''"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = tmp_path / "lab.log"
    with log.open("wb") as written:
        server = subprocess.Popen(
            command,
            cwd=work,
            env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        information = Path(own["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{server.pid}.json"

        def address(_: object) -> str | None:
            assert server.poll() is None, log.read_text()
            return _server_address(information)

        yield WebDriverWait(browser, PATIENCE_S).until(address)
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ask it to end, kernels included; a kernel that is just starting may keep it from doing so."""
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _server_address(information: Path) -> str | None:
    """Where the server says that it listens; None while it has not said so."""
    try:
        known = json.loads(information.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return f"{known['url']}lab/tree/{NOTEBOOK.name}?token={known['token']}"


def wait_for(browser: webdriver.Chrome, condition: Callable[[webdriver.Chrome], Any]) -> Any:
    """The first true value of a condition; what it looks for may not be there yet."""
    wait = WebDriverWait(browser, PATIENCE_S, ignored_exceptions=(WebDriverException,))
    return wait.until(condition)


def click(browser: webdriver.Chrome, xpath: str) -> None:
    def clicked(driver: webdriver.Chrome) -> bool:
        driver.find_element(By.XPATH, xpath).click()
        return True

    wait_for(browser, clicked)


def move(browser: webdriver.Chrome, label: str, keys: str) -> None:
    """Send keys to the handle of the slider with this label."""
    handle = (
        f"//label[contains(text(), '{label}')]/..//*[@role='slider' and contains(@class, 'handle')]"
    )

    def moved(driver: webdriver.Chrome) -> bool:
        driver.find_element(By.XPATH, handle).send_keys(keys)
        return True

    wait_for(browser, moved)


def shown(driver: webdriver.Chrome) -> tuple[str, str] | None:
    """Pixels of the picture and the sentence above it; None until both are there."""
    pixels = driver.execute_script(PIXELS)
    sentence = driver.find_element(By.CSS_SELECTOR, ".widget-html-content").text
    return (pixels, sentence) if pixels and sentence else None


def first_shown(driver: webdriver.Chrome) -> tuple[str, str] | None:
    """`shown`, once JupyterLab has its kernel: it asks which one where it is not connected yet."""
    for button in driver.find_elements(By.CSS_SELECTOR, ".jp-Dialog .jp-mod-accept"):
        button.click()
    return shown(driver)


def changed(browser: webdriver.Chrome, before: tuple[str, str], side: str) -> tuple[str, str]:
    """Picture and sentence once the picture is another one and the sentence names this side."""

    def differs(driver: webdriver.Chrome) -> tuple[str, str] | None:
        now = shown(driver)
        return now if now and now[0] != before[0] and now[1].startswith(side) else None

    found: tuple[str, str] = wait_for(browser, differs)
    return found


def test_moving_a_slider_changes_picture_and_sentence(browser: webdriver.Chrome, lab: str) -> None:
    browser.get(lab)
    kernel_is_idle = "//*[@id='jp-main-statusbar']//*[contains(text(), '| Idle')]"
    wait_for(browser, lambda driver: driver.find_element(By.XPATH, kernel_is_idle))
    click(browser, "//li[contains(@class, 'lm-MenuBar-item')][.='Run']")
    click(browser, "//li[@data-command='runmenu:run-all']")
    start = wait_for(browser, first_shown)
    assert start[1].startswith("INSIDE")
    move(browser, "total rate", Keys.END)
    overloaded = changed(browser, start, "OUTSIDE")
    move(browser, "output lengths", Keys.HOME)
    changed(browser, overloaded, "INSIDE")
