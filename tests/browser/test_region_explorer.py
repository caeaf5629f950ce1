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


def move(browser: webdriver.Chrome, name: str, keys: str) -> None:
    """Send keys to the slider of this name."""

    def moved(driver: webdriver.Chrome) -> bool:
        driver.find_element(By.CSS_SELECTOR, f"input[name={name}]").send_keys(keys)
        return True

    wait_for(browser, moved)


def said(browser: webdriver.Chrome, beginning: str) -> str:
    """The sentence of the explorer once it begins so, and the latencies are those of now."""

    def settled(driver: webdriver.Chrome) -> str | None:
        # JupyterLab asks for a kernel where it is not connected yet.
        for button in driver.find_elements(By.CSS_SELECTOR, ".jp-Dialog .jp-mod-accept"):
            button.click()
        sentence = driver.find_element(By.CSS_SELECTOR, ".fluidwait-explorer .verdict").text
        pending = driver.find_element(By.CSS_SELECTOR, ".fluidwait-explorer .progress").text
        return sentence if sentence.startswith(beginning) and not pending else None

    found: str = wait_for(browser, settled)
    return found


def test_moving_a_slider_changes_the_answer(browser: webdriver.Chrome, lab: str) -> None:
    browser.get(lab)
    kernel_is_idle = "//*[@id='jp-main-statusbar']//*[contains(text(), '| Idle')]"
    wait_for(browser, lambda driver: driver.find_element(By.XPATH, kernel_is_idle))
    click(browser, "//li[contains(@class, 'lm-MenuBar-item')][.='Run']")
    click(browser, "//li[@data-command='runmenu:run-all']")
    said(browser, "STABLE")
    move(browser, "rate_0", Keys.END)
    said(browser, "UNSTABLE")
    move(browser, "output_factor", Keys.HOME)
    move(browser, "rate_0", Keys.HOME)
    said(browser, "STABLE")
