"""The agent's page, status, metrics and health over a real socket, from a board with all on it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from integration.site_board import NS, StoppedClock, filled, mark, rack
from turns import SOON_S, turning

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.sample import SiteId, SpoolKind
from heatpool_agent.board import Board, LoopView, SensorView
from heatpool_agent.core.ledger import Hidden
from heatpool_agent.http import metrics, serve
from heatpool_agent.http.seen import look

GOLDEN = Path(__file__).parent.parent / "data" / "agent_metrics.txt"
PERIOD_S = 1.0
VOID = frozenset({"meta", "link", "br"})


class Site:
    """A served board, and a client beside it."""

    def __init__(self, board: Board, clock: StoppedClock, client: aiohttp.ClientSession) -> None:
        self.board = board
        self.clock = clock
        self._client = client

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of one request."""
        async with self._client.request(method, path) as answer:
            return answer.status, await answer.text(), dict(answer.headers)

    async def json(self, path: str) -> Any:
        """A body as JSON."""
        return json.loads((await self.get(path))[1])


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def site(clock: StoppedClock) -> AsyncIterator[Site]:
    board = filled(clock)
    async with (
        serve("127.0.0.1:0", board, clock, period_s=PERIOD_S) as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        yield Site(board, clock, client)


def empty(site: Site) -> None:
    """As if the agent had just started and no sensor had said anything."""
    fresh = Board(site_id=SiteId("new"))
    for name in Board.__slots__:
        setattr(site.board, name, getattr(fresh, name))
    site.board.ticks, site.board.last_tick_boot_ns = 1, site.clock.boot_ns()
    site.board.loops = (LoopView(loop_id="rack"),)


# Page


class Tree(HTMLParser):
    """Fails on an element that is not closed where it was opened; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(text: str) -> Tree:
    tree = Tree()
    tree.feed(text)
    tree.close()
    assert tree.open == []
    return tree


async def test_the_page_is_whole_and_light(site: Site) -> None:
    status, text, headers = await site.get("/")
    tree = parsed(text)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert {"title", "main", "h1", "h2", "table", "noscript"} <= tree.seen
    assert len(text.encode()) < 15_000


async def test_the_page_keeps_the_heats_apart_each_with_its_doubt(site: Site) -> None:
    words = " ".join(parsed((await site.get("/"))[1]).words).replace("\N{NO-BREAK SPACE}", " ")
    estimates = ("18.62 kW", "± 0.77 kW", "20.1 kW", "± 3.2 kW", "18.46 kW", "± 0.92 kW")
    devices = ("21.5 kW", "12.1 kW", "52.1 °C", "38.0 °C", "14.1 K", "1.15 m³/h", "60.0 kW")
    assert [figure for figure in (*estimates, *devices) if figure not in words] == []
    assert "reported vs computed: two heats have disagreed" in words


async def test_the_page_says_what_mends_a_sensor_and_what_waits(site: Site) -> None:
    words = " ".join(parsed((await site.get("/"))[1]).words).replace("\N{NO-BREAK SPACE}", " ")
    told = ("energy_uj: denied", "chgrp heatpool", "no free session", "61.4 kB", "87 s")
    assert [text for text in told if text not in words] == []
    assert "connected to the aggregator" in words


async def test_the_page_of_a_blind_site_shows_dashes_and_no_zero(site: Site) -> None:
    empty(site)
    main = parsed((await site.get("/"))[1].split("<main>")[1].split("</main>")[0]).words
    figures = [word for word in main if re.search(r"\d.*(W|°C|K|m³/h)$", word)]
    assert figures == []
    assert main.count("–") > 10


async def test_figures_of_a_dead_loop_are_not_shown_as_live(site: Site) -> None:
    site.clock.at_ns += 4 * NS
    text = (await site.get("/"))[1]
    assert "Figures are not live: the sampling loop last ticked 4.5 s ago" in text
    assert "18.62" not in text


async def test_device_texts_cannot_become_markup(site: Site) -> None:
    evil = '<script>alert("x")</script>'
    site.board.post_sensor(SensorView(id="e", kind="mqtt", state="gone", detail=evil, fix=evil))
    text = (await site.get("/"))[1]
    assert evil not in text
    assert "&lt;script&gt;" in text


async def test_a_leak_stands_first(site: Site) -> None:
    site.board.loops = (replace(rack(), leak=True, rejection_capacity_w=10_000.0),)
    text = (await site.get("/"))[1]
    assert re.findall(r"<p>(Leak in loop rack)</p><p>(Heat of loop rack is 8.62)", text)


async def test_the_script_is_served_and_allowed_and_nothing_else_is(site: Site) -> None:
    _, text, headers = await site.get("/")
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert re.findall(r"<script[^>]*>", text) == ['<script src="/live.js" defer>']
    status, _, script = await site.get("/live.js")
    assert (status, script["Content-Type"]) == (200, "text/javascript; charset=utf-8")


# Status


async def test_the_status_has_the_agreed_names(site: Site) -> None:
    told = await site.json("/v1/status")
    assert told["site_id"] == "altstadt-7"
    assert told["uplink"] == {
        "state": "connected",
        "detail": "",
        "fix": "",
        **dict.fromkeys(("next_try_s", "next_try_ns")),
        "batches_sent": 512,
        "batches_acked": 504,
        "backlog": {
            "frames_count": 300,
            "rows_count": 1_800,
            "size_bytes": 48_000,
            "start_frames_count": 1_200,
            "done_frac": 0.75,
            "frames_s": 12.5,
            "left_s": 24.0,
        },
        "link_bytes_s": 16_000.0,
    }
    assert told["identity"] == {
        "state": "valid",
        "detail": "",
        "fix": "",
        "site_id": "altstadt-7",
        "grpc": "heat.example:8443",
        "fingerprint": "ab" * 32,
        "start_ns": 1_750_000_000 * NS,
        "end_ns": 1_752_592_000 * NS,
    }
    assert told["spool"]["telemetry"] == {
        "boot_id": "7f3a91c2",
        "first_seq": 1,
        "next_seq": 418,
        "durable_seq": 409,
        "unacked": 8,
    }
    assert told["spool"]["billing"]["unacked"] == 1
    assert told["setpoint"]["state"] == "applied"
    assert {"id", "kind", "state", "detail", "fix"} <= told["sensors"][0].keys()


async def test_the_status_carries_each_estimate_whole(site: Site) -> None:
    told = await site.json("/v1/status")
    heat = told["heat"][0]
    assert (heat["loop_id"], heat["heat_rate_w"], heat["quality_class"]) == ("rack", 18_620.0, "C")
    assert heat["lo95_w"] == pytest.approx(18_620.0 - 1.96 * 393.0)
    assert heat["hi95_w"] == pytest.approx(18_620.0 + 1.96 * 393.0)
    assert heat["computed"]["provenance"] == "computed"
    assert heat["electric"]["value_w"] == 20_140.0
    assert told["electric"]["value_w_u"] == 760.0


async def test_what_gaps_hide_stands_beside_the_total(site: Site) -> None:
    key = next(iter(site.board.energies_j))
    site.board.hidden = {key: Hidden(gaps_count=2, energy_j=5e4, energy_j_u=1e4)}
    (told,) = [e for e in (await site.json("/v1/status"))["energies"] if e["gaps_count"]]
    assert (told["energy_j"], told["gaps_energy_j"], told["gaps_energy_j_u"]) == (
        site.board.energies_j[key],
        5e4,
        1e4,
    )
    page = (await site.get("/metrics"))[1]
    labels = f'{{channel="{key[1]}",sensor="{key[0]}"}}'
    assert f"heatpool_gap_energy_joules{labels} 50000.0" in page
    assert f"heatpool_gap_energy_uncertainty_joules{labels} 10000.0" in page


async def test_absent_is_null_in_the_status(site: Site) -> None:
    empty(site)
    told = await site.json("/v1/status")
    heat = told["heat"][0]
    assert heat.pop("loop_id") == "rack"
    assert heat.pop("flags") == heat.pop("faults") == []
    assert set(heat.values()) == {None}
    assert (told["electric"], told["setpoint"], told["spool_bytes"]) == (None, None, None)


# Metrics


def scraped(board: Board, clock: StoppedClock) -> str:
    collector = metrics.BoardCollector(
        lambda: look(board, clock, period_s=PERIOD_S), version="0.0.0", cpu_s=lambda: 12.5
    )
    return metrics.render(collector).decode()


def test_the_metrics_page_is_the_golden_one(clock: StoppedClock) -> None:
    assert scraped(filled(clock), clock) == GOLDEN.read_text(encoding="utf-8")


async def test_the_metrics_are_served_as_prometheus_reads_them(site: Site) -> None:
    status, text, headers = await site.get("/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'heatpool_heat_watts{basis="fused",loop="rack"} 18620.0' in text


async def test_absent_values_are_left_out_of_the_metrics(site: Site) -> None:
    empty(site)
    text = (await site.get("/metrics"))[1]
    names = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()} - {"#"}
    assert names == {
        "heatpool_agent_missed_ticks_total",
        "heatpool_agent_cpu_seconds_total",
        "heatpool_build_info",
    }


async def test_a_dead_sampling_loop_ends_its_series(site: Site) -> None:
    site.clock.at_ns += 4 * NS
    text = (await site.get("/metrics"))[1]
    assert "heatpool_heat_watts{" not in text
    assert "heatpool_sensor_up{" in text


def test_nothing_of_the_library_s_own_is_on_the_page(clock: StoppedClock) -> None:
    text = scraped(filled(clock), clock)
    assert not re.search(r"_created|process_|python_|site=", text)


# Health


async def test_a_ticking_site_with_figures_is_healthy_and_ready(site: Site) -> None:
    assert (await site.get("/healthz"))[0] == 200
    assert (await site.get("/readyz"))[0] == 200


@pytest.mark.parametrize(("late_s", "status"), [(2.4, 200), (2.6, 503)])
async def test_health_ends_after_three_periods_without_a_tick(
    site: Site, late_s: float, status: int
) -> None:
    site.clock.at_ns += round(late_s * NS)
    told, text, headers = await site.get("/healthz")
    assert told == status
    assert ("last ticked" in text) == (status == 503)
    assert headers["Content-Type"].startswith("application/")


async def test_a_site_that_never_ticked_is_not_healthy(site: Site) -> None:
    site.board.ticks = 0
    status, text, headers = await site.get("/healthz")
    assert (status, headers["Content-Type"]) == (503, "application/problem+json")
    assert "has not ticked yet" in json.loads(text)["detail"]


async def test_a_site_without_any_figure_is_not_ready_and_says_so(site: Site) -> None:
    empty(site)
    status, text, _ = await site.get("/readyz")
    detail = json.loads(text)["detail"]
    assert status == 503
    assert "no power and no heat figure yet" in detail
    assert "the spool is not open yet" in detail


async def test_a_spool_that_takes_no_rows_is_not_ready(site: Site) -> None:
    site.board.spool_error = "database or disk is full"
    status, text, _ = await site.get("/readyz")
    assert status == 503
    assert "the spool takes no rows: database or disk is full" in json.loads(text)["detail"]


async def test_one_heat_figure_is_enough_to_be_ready(site: Site) -> None:
    empty(site)
    site.board.loops = (LoopView(loop_id="rack", delivered_heat_w=0.0),)
    site.board.post_spool([mark(SpoolKind.TELEMETRY, 0, 0)], 0)
    assert (await site.get("/readyz"))[0] == 200


# Edge


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_only_get_is_taken(site: Site, method: str) -> None:
    status, _, headers = await site.get("/", method)
    assert (status, headers["Content-Type"]) == (405, "application/problem+json")


async def test_an_unknown_place_is_a_problem(site: Site) -> None:
    status, text, headers = await site.get("/v2/status")
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(text)["instance"] == "/v2/status"


async def test_a_fault_in_a_view_is_a_problem_and_stops_nothing(site: Site) -> None:
    site.board.loops = (None,)  # type: ignore[assignment]  # a bug elsewhere, in effect
    status, text, headers = await site.get("/v1/status")
    assert (status, headers["Content-Type"]) == (500, "application/problem+json")
    assert "Traceback" not in text
    assert (await site.get("/healthz"))[0] == 200


async def test_a_port_in_use_is_one_clear_line(clock: StoppedClock) -> None:
    board = filled(clock)
    async with serve("127.0.0.1:0", board, clock, period_s=1) as address:
        with pytest.raises(HeatpoolError, match=f"http.listen {address}: .*in use.*; stop what"):
            async with serve(address, board, clock, period_s=1):
                pytest.fail("two servers on one port")


@pytest.mark.parametrize("listen", ["9188", "127.0.0.1", "127.0.0.1:99999", "a:b", "127.0.0.1:1/x"])
async def test_what_is_no_address_is_a_mistake_in_the_settings(
    clock: StoppedClock, listen: str
) -> None:
    with pytest.raises(ConfigError, match="must be host:port"):
        async with serve(listen, filled(clock), clock, period_s=1):
            pytest.fail("no such address")


async def test_localhost_is_one_address(clock: StoppedClock) -> None:
    async with serve("localhost:0", filled(clock), clock, period_s=1) as address:
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d+", address)


async def test_open_lines_do_not_hold_the_stop(
    clock: StoppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heatpool_agent.http.app._STOP_S", 30.0)
    async with turning() as turns:
        async with serve("127.0.0.1:0", filled(clock), clock, period_s=1) as address:
            host, _, port = address.partition(":")
            _, idle = await asyncio.open_connection(host, int(port))
            reader, asking = await asyncio.open_connection(host, int(port))
            asking.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"</html>")
            began_s = turns.passed_s
        assert turns.passed_s - began_s < SOON_S
    for line in (idle, asking):
        line.close()
        await line.wait_closed()
