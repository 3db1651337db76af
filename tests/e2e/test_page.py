"""The page in a real browser: first value, accessibility, loss of the line, no console error."""

import asyncio
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heatpool_aggregator.board import Board, HeatView
from heatpool_aggregator.ports import Store
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.web.app import serve

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

DATA = Path(__file__).parent.parent / "data"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no chromium at {CHROMIUM}"),
]
# Of the browser, for what comes at once; a message of the board is due after a minute only.
SOON_MS = 30_000
PHONE = {"width": 390, "height": 844}
WALL = {"width": 1920, "height": 1080}


def load(path: Path) -> Any:
    """A module of the test data, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filled = load(DATA / "filled_board.py")


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """Chromium without a window."""
    async with playwright.async_playwright() as engine:
        window = await engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield window
        await window.close()


@pytest.fixture
async def board() -> Board:
    """A board as of now, with everything on it."""
    board = Board()
    filled.fill(board, time.time_ns())
    return board


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store on disk."""
    async with open_store("sqlite:", tmp_path) as opened:
        yield opened


@pytest.fixture
async def url(board: Board, store: Store) -> AsyncIterator[str]:
    """Where the page is."""
    config = filled.settings(message_period_s=60)
    async with serve(config, board, store, filled.WallClock()) as address:
        yield f"http://{address}/"


async def visit(browser: Any, url: str, **context: Any) -> tuple[Any, list[str]]:
    """The page, and every complaint of the browser about it."""
    page = await browser.new_page(**context)
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    await page.goto(url)
    return page, complaints


async def test_the_first_live_value_stands_before_the_next_message(browser: Any, url: str) -> None:
    page, complaints = await visit(browser, url, viewport=WALL)
    await page.wait_for_selector("article.card .big .value", timeout=SOON_MS)
    assert await page.locator("article.card").count() == 3
    assert await page.locator("#sites tr:not(.sum)").count() == 13
    assert await page.locator("#statement tr:not(.sum)").count() == 11
    await page.wait_for_selector("html[data-line=live]", timeout=SOON_MS)
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 1400, 1600])
async def test_the_table_of_sites_fits_without_a_scroll(browser: Any, url: str, width: int) -> None:
    page, _ = await visit(browser, url, viewport={"width": width, "height": 900})
    await page.wait_for_selector("#sites tr:not(.sum)")
    over = "document.querySelector('.scroll:has(#sites)')"
    assert await page.evaluate(f"{over}.scrollWidth - {over}.clientWidth") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WALL, PHONE], ids=["wall", "phone"])
async def test_axe_finds_no_barrier(
    browser: Any, url: str, scheme: str, viewport: dict[str, int]
) -> None:
    context = await browser.new_context(
        viewport=viewport, color_scheme=scheme, reduced_motion="reduce", bypass_csp=True
    )
    page, _ = await visit(context, url)
    await page.wait_for_selector("article.card")
    for summary in await page.locator("summary").all():
        await summary.click()
    await page.add_script_tag(path=str(DATA / "axe.min.js"))
    found = await page.evaluate("async () => (await axe.run()).violations")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


async def test_axe_finds_no_barrier_while_the_line_is_lost(browser: Any, url: str) -> None:
    context = await browser.new_context(viewport=WALL, bypass_csp=True)
    page, _ = await visit(context, url)
    await page.wait_for_selector("article.card")
    await context.set_offline(True)
    await page.evaluate("document.documentElement.dataset.line = 'lost'")
    await page.add_script_tag(path=str(DATA / "axe.min.js"))
    found = await page.evaluate("async () => (await axe.run()).violations")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


async def test_a_dead_aggregator_is_said(browser: Any, board: Board, store: Store) -> None:
    async with serve(filled.settings(), board, store, filled.WallClock()) as address:
        page, _ = await visit(browser, f"http://{address}/")
        await page.wait_for_selector("article.card")
    await page.wait_for_selector("#banner:not([hidden])", timeout=SOON_MS)
    text = await page.locator("#banner").inner_text()
    assert "Not live" in text
    assert "All figures are from" in text


async def test_a_silent_line_is_said_and_its_return_too(browser: Any) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(DATA / "filled_board.py"), "0", stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(90):
            url = (await program.stdout.readline()).decode().strip()
        page, _ = await visit(browser, url)
        await page.wait_for_selector("[data-line=live]", timeout=SOON_MS)
        program.send_signal(signal.SIGSTOP)
        await page.wait_for_selector("[data-line=lost]", timeout=SOON_MS)
        await page.wait_for_selector("#banner", state="visible")
        program.send_signal(signal.SIGCONT)
        await page.wait_for_selector("[data-line=live]", timeout=SOON_MS)
        await page.wait_for_selector("#banner", state="hidden")
    finally:
        program.send_signal(signal.SIGCONT)
        program.kill()
        await program.wait()


async def test_an_aggregator_without_news_of_sites_is_not_called_live(
    browser: Any, board: Board, url: str
) -> None:
    filled.fill(board, time.time_ns() - 3_600 * 1_000_000_000)
    page, _ = await visit(browser, url)
    await page.wait_for_selector("[data-line=old]", timeout=SOON_MS)
    assert "no site has sent since" in await page.locator("#banner").inner_text()


async def test_a_clock_that_is_not_believed_is_said_and_its_return_too(
    browser: Any, board: Board, url: str
) -> None:
    board.post(clock_suspect="the aggregator's clock is 12.0 h ahead")
    page, _ = await visit(browser, url)
    await page.wait_for_selector("#banner", state="visible", timeout=SOON_MS)
    assert "12.0 h ahead" in await page.locator("#banner").inner_text()
    board.post(clock_suspect="")
    await page.wait_for_selector("#banner", state="hidden", timeout=SOON_MS)


async def test_an_absent_heat_rate_is_a_dash_and_a_gap(
    browser: Any, board: Board, url: str
) -> None:
    page, complaints = await visit(browser, url)
    await page.wait_for_selector("article.card")
    moved = [filled.replace(source, heat=HeatView(), fresh_count=0) for source in board.sources]
    board.post(sources=tuple(moved))
    value = page.locator("article.card .big .value").first
    await playwright.expect(value).to_have_text("–", timeout=SOON_MS)
    assert await page.locator("article.card .last").first.get_attribute("visibility") == "hidden"
    assert complaints == []


async def test_after_an_order_the_table_says_that_nothing_is_asked(browser: Any, url: str) -> None:
    page, complaints = await visit(browser, url, viewport=WALL)
    cells = page.locator("#sites .setpoint-cell", has_text="nothing asked")
    await playwright.expect(cells).to_have_count(1, timeout=SOON_MS)
    assert await cells.inner_text() == "○ nothing asked"
    assert await cells.get_attribute("title") == "ended by person/anna: warm enough"
    assert complaints == []


async def test_the_real_machine_is_marked_and_its_best_heat_bears_its_origin(
    browser: Any, url: str
) -> None:
    page, _ = await visit(browser, url, viewport=WALL)
    row = page.locator("#sites tr.is-here")
    await row.wait_for()
    assert await row.locator(".tag.here").inner_text() == "this machine"
    best = await row.locator(".fused-cell").inner_text()
    assert "±" in best and "electric" in best.lower()
    assert await page.locator("#sites .origin:not(:empty)").count() == 1
    assert await row.locator(".class-cell").inner_text() == "D"


async def test_estimates_and_counted_energy_are_drawn_apart(browser: Any, url: str) -> None:
    page, _ = await visit(browser, url)
    await page.wait_for_selector("article.card")
    lines = "node => getComputedStyle(node).textDecorationStyle"
    rate = await page.locator(".big .value").first.evaluate(lines)
    energy = await page.locator(".quad .metered").first.evaluate(lines)
    assert (rate, energy) == ("dashed", "solid")
    dashes = "node => getComputedStyle(node).strokeDasharray"
    assert await page.locator(".estimate-line").first.evaluate(dashes) != "none"


FIGURES = [
    # value W, u W, shown kW, band kW
    (18_321.0, 357.0, "18.3", "0.7"),
    (18_321.0, 1_200.0, "18.3", "2.4"),
    (18_321.0, 2_000.0, "18", "4"),
    (18_321.0, 25_000.0, "20", "50"),
    (61.0, 9.15, "0.061", "0.018"),
    (-120.0, 20.0, "−0.12", "0.04"),
    (-1.0, 900.0, "0.0", "1.8"),
]


@pytest.mark.parametrize(("value_w", "value_w_u", "shown", "band"), FIGURES)
async def test_no_digit_goes_beyond_the_uncertainty(
    browser: Any, url: str, value_w: float, value_w_u: float, shown: str, band: str
) -> None:
    page, _ = await visit(browser, url)
    script = """async ([value, u]) => {
      const link = document.querySelector('link[href*="/figures."]');
      return (await import(link.href)).kiloWithBand(value, u);
    }"""
    assert await page.evaluate(script, [value_w, value_w_u]) == {"value": shown, "band": band}


async def test_the_page_fits_a_phone(browser: Any, url: str) -> None:
    page, _ = await visit(browser, url, viewport=PHONE)
    await page.wait_for_selector("article.card")
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


async def test_every_detail_opens_by_keyboard(browser: Any, url: str) -> None:
    page, _ = await visit(browser, url)
    await page.wait_for_selector("article.card")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.tagName") == "SUMMARY"
    await page.keyboard.press("Enter")
    assert await page.locator("article.card table.values").first.is_visible()
