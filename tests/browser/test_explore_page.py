"""The explorer's page in a browser: served, and as a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from fluid.explorer.grid import Grid
from fluid.explorer.page import page
from fluid.explorer.serve import explorer_server
from fluid.explorer.state import FACTORS, Explorer
from fluid.server import Server
from fluid.steady.stability import stability
from fluid.workload import Requests, Workload

EXPLORER = Explorer(
    Workload.of("pair", chat=Requests(2.0, 512, 200), report=Requests(0.5, 512, 1000)),
    (Server.named("engine-long-decode"),),
)


@pytest.fixture
def address() -> Iterator[str]:
    with explorer_server(EXPLORER) as server:
        threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def settled(browser: webdriver.Chrome, before: str = "") -> str:
    """The margin once it is another one and the latencies are those of now."""

    def found(page: webdriver.Chrome) -> str | None:
        margin = page.find_element(By.CSS_SELECTOR, "[data-figure=margin]").text
        pending = page.find_element(By.CSS_SELECTOR, ".progress").text
        return margin if margin not in ("–", before) and not pending else None

    text: str = WebDriverWait(browser, 60).until(found)
    return text


def figure(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f"[data-figure={name}]").text


def slide(browser: webdriver.Chrome, name: str, *keys: str) -> None:
    browser.find_element(By.NAME, name).send_keys(*keys)


def coded(browser: webdriver.Chrome) -> Any:
    """What the margin is where the page's Python is run."""
    buttons = browser.find_elements(By.CSS_SELECTOR, ".buttons button")
    next(one for one in buttons if one.text == "copy as code").click()
    names: dict[str, Any] = {}
    exec(browser.find_element(By.TAG_NAME, "pre").text, names)
    return stability(names["load"], names["server"])


def shown_margin(text: str) -> float:
    return float(text.replace("−", "-").removesuffix(" %")) / 100


def no_complaints(browser: webdriver.Chrome) -> None:
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_the_served_page_follows_its_sliders_and_its_point(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(address)
    first = settled(browser)
    exact = EXPLORER.region(EXPLORER.start)
    assert shown_margin(first) == pytest.approx(exact["margin"], abs=1e-3)
    p99 = figure(browser, "p99")
    slide(browser, "rate_0", *[Keys.ARROW_RIGHT] * 8)
    second = settled(browser, first)
    assert shown_margin(second) < shown_margin(first)
    assert figure(browser, "p99") != p99
    assert len(browser.find_elements(By.CSS_SELECTOR, "polyline.p99")) == 1
    assert coded(browser).margin == pytest.approx(shown_margin(second), abs=1e-3)
    handle = browser.find_element(By.CSS_SELECTOR, "circle.handle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    ActionChains(browser).drag_and_drop_by_offset(handle, 250, -80).perform()
    beyond = settled(browser, second)
    assert shown_margin(beyond) < 0
    assert browser.find_element(By.CSS_SELECTOR, ".verdict").text.startswith("UNSTABLE")
    assert figure(browser, "p99") == "–"
    assert coded(browser).margin == pytest.approx(shown_margin(beyond), abs=1e-2)
    no_complaints(browser)


def test_a_file_answers_from_its_grid(browser: webdriver.Chrome, tmp_path: Path) -> None:
    small = Grid(
        EXPLORER,
        ratio=1.5,
        rate_levels=((1.0, 2.0 / 1.5, 2.0, 3.0), (0.5, 0.75)),
        factor_levels=dict.fromkeys(FACTORS, (1.0,)) | {"memory_factor": (0.5, 1.0)},
    )
    (tmp_path / "page.html").write_text(page(EXPLORER, small.document()), encoding="utf-8")
    browser.set_window_size(390, 900)
    browser.get((tmp_path / "page.html").as_uri())
    first = settled(browser)
    slide(browser, "memory_factor", Keys.HOME)
    second = settled(browser, first)
    slide(browser, "rate_0", Keys.END)
    third = settled(browser, second)
    changes = {"rates_per_s": (3.0, 0.5), "memory_factor": 0.5}
    asked = EXPLORER.start.model_copy(update=changes)
    assert shown_margin(third) == pytest.approx(EXPLORER.region(asked)["margin"], abs=1e-3)
    p99_s = EXPLORER.latency(asked)["ttft_p99_s"]
    assert float(figure(browser, "p99").removesuffix(" ms")) == pytest.approx(
        1000 * p99_s, rel=1e-2
    )
    assert coded(browser).margin == pytest.approx(shown_margin(third), abs=1e-3)
    assert "on a grid" in browser.find_element(By.CSS_SELECTOR, ".controls").text
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    assert browser.execute_script(wide) <= 0
    no_complaints(browser)
