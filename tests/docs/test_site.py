"""The site builds strictly, opens and searches from a folder, fits a phone, and requests nothing from other hosts."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
pytestmark = [pytest.mark.extra("docs"), pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


def test_the_site_opens_and_searches_from_a_folder_without_requests_to_other_hosts(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    main = runpy.run_path(str(ROOT / "docs" / "make_site.py"))["main"]
    assert main(["--out", str(tmp_path / "site")]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        for file in sorted((tmp_path / "site").glob("*.html")):
            page.goto(file.as_uri())
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390, f"{file.name} is wider than a phone"
        page.goto((tmp_path / "site" / "findings.html").as_uri())
        breaks = page.locator("td code").first.evaluate("code => getComputedStyle(code).wordBreak")
        assert breaks == "normal", "names in tables are broken within words"
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto((tmp_path / "site" / "index.html").as_uri())
        page.keyboard.press("Control+k")
        box = page.get_by_placeholder("Search")
        expect(box).to_be_visible(timeout=20_000)
        box.press_sequentially("holm", delay=100)
        expect(page.get_by_text("p, Holm and looks").first).to_be_visible(timeout=20_000)
        expect(box).to_have_value("holm")
        browser.close()
    assert [address for address in requests if not address.startswith(("file:", "data:", "blob:"))] == []
