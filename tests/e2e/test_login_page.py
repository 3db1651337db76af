"""Logging in with a real browser over real HTTPS: cookie, page, no error, and out again."""

import os
import shutil
from pathlib import Path

import https_bench
import pytest

from heatpool_aggregator.core.principal import Role
from heatpool_aggregator.web.access import COOKIE

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no chromium at {CHROMIUM}"),
]


async def test_a_person_logs_in_sees_the_board_and_logs_out(tmp_path: Path) -> None:
    async with https_bench.opened(tmp_path) as bench, playwright.async_playwright() as engine:
        url = f"https://localhost:{bench.address.rpartition(':')[2]}"
        token = await bench.api_token("person/anna", Role.OPERATOR)
        window = await engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = await window.new_context(ignore_https_errors=True)  # our CA is not in its store
        page = await context.new_page()
        wrong: list[str] = []
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        await page.goto(url)
        assert page.url.endswith("/login")
        assert not await page.query_selector("text=Log out")
        await page.fill("#token", token)
        await page.press("#token", "Enter")
        await page.wait_for_selector("text=lido-hall")
        (cookie,) = await context.cookies()
        assert cookie["name"] == COOKIE and cookie["httpOnly"] and cookie["secure"]
        assert cookie["sameSite"] == "Strict" and token not in cookie["value"]
        assert not await page.evaluate("document.cookie")
        await page.click("text=Log out")
        await page.click("text=Log out of this browser")
        await page.wait_for_url("**/login")
        assert not await context.cookies()
        assert not wrong
        await window.close()
