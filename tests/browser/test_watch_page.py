"""The page of `watch` in a browser: three pictures of the last hour."""

from __future__ import annotations

from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from fluid.server import Server
from tests.support.live_pages import Engine
from validation.live.serve import Shown, serve
from validation.live.watcher import Watcher


def test_the_page_draws_the_last_hour(browser: webdriver.Chrome, tmp_path: Path) -> None:
    shown, engine = Shown(), Engine()
    watcher = Watcher(Server.named("engine-long-decode"), tmp_path / "table.json", dry_run=True)
    for k in range(8):
        engine.finish(30)
        shown.show(watcher.step(engine.scrape(15.0 * k)))
    server = serve(shown, "127.0.0.1:0")
    try:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        wait = WebDriverWait(browser, 60)
        wait.until(lambda page: page.find_element(By.ID, "now").text.startswith("margin 0.8"))
        for name, lines in (("margin", 1), ("load", 1), ("tpot", 2)):
            drawn = browser.find_elements(By.CSS_SELECTOR, f"#{name} polyline")
            assert len(drawn) == lines
            for one in drawn:
                points = (one.get_attribute("points") or "").split()
                assert len(points) >= 5
                assert all("NaN" not in point for point in points)
        assert not [one for one in browser.get_log("browser") if "/favicon" not in one["message"]]
    finally:
        server.shutdown()
        server.server_close()
