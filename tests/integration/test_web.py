"""The web room on a real server: every endpoint, the event stream, errors, headers, the page."""

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from turns import SOON_S, turning

from heatpool.errors import ConfigError, StoreError
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config, Listen
from heatpool_aggregator.core.settlement import LedgerEntry
from heatpool_aggregator.exports import prometheus
from heatpool_aggregator.ports import Ledger, Store
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.web import models
from heatpool_aggregator.web.app import serve
from heatpool_aggregator.web.events import CLIENTS_MAX_COUNT
from heatpool_aggregator.web.problem import Problem


def load(path: Path) -> Any:
    """A module of the test data, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filled = load(Path(__file__).parent.parent / "data" / "filled_board.py")

ENDPOINTS = {
    "/v1/sites": models.Sites,
    "/v1/sites/lido-hall-1": models.Site,
    "/v1/sources": models.VirtualSources,
    "/v1/sources/lido-hall": models.VirtualSource,
    "/v1/statements": models.Statements,
    "/v1/statements/last": models.Statement,
    "/v1/status": models.Status,
    "/v1/balance": models.Balance,
    "/v1/state": models.State,
    "/healthz": models.Health,
    "/readyz": models.Health,
}
REFUSED = [
    ("GET", "/v1/nothing", 404),
    ("GET", "/v1/sites/nobody", 404),
    ("GET", "/v1/sources/nothing", 404),
    ("POST", "/v1/sites", 405),
    ("GET", "/v1/statements?limit=0", 400),
    ("GET", "/v1/statements?limit=many", 400),
    ("GET", "/v1/sites?colour=red", 400),
    ("GET", "/static/app.000000000000.js", 404),
]


@dataclass(frozen=True, slots=True)
class Web:
    """A running server with what stands behind it."""

    address: str
    session: aiohttp.ClientSession
    board: Board
    ledger: Ledger
    clock: Any

    async def answer(self, path: str, kind: type[Any]) -> Any:
        """The strict reading of a good answer."""
        async with self.session.get(path) as response:
            body = await response.read()
            assert response.status == 200, body
            return msgspec.json.decode(body, type=kind)

    async def refusal(self, method: str, path: str) -> tuple[aiohttp.ClientResponse, Problem]:
        """The strict reading of a bad answer."""
        async with self.session.request(method, path) as response:
            body = await response.read()
            assert response.content_type == "application/problem+json", body
            return response, msgspec.json.decode(body, type=Problem)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Web]:
    board, clock = Board(), filled.StoppedClock()
    filled.fill(board, clock.now_ns())
    async with (
        serve(filled.settings(), board, store, clock, render_metrics=prometheus.render) as address,
        aiohttp.ClientSession(f"http://{address}") as session,
    ):
        yield Web(address, session, board, store.ledger, clock)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store on disk."""
    async with open_store("sqlite:", tmp_path) as opened:
        yield opened


@pytest.fixture
async def web(store: Store) -> AsyncIterator[Web]:
    """A server over a filled board."""
    async with running(store) as server:
        yield server


@pytest.mark.parametrize(("path", "kind"), ENDPOINTS.items())
async def test_each_answer_fits_its_schema(web: Web, path: str, kind: type[Any]) -> None:
    assert await web.answer(path, kind)


@pytest.mark.parametrize(("method", "path", "status"), REFUSED)
async def test_what_cannot_be_answered_is_a_problem(
    web: Web, method: str, path: str, status: int
) -> None:
    response, problem = await web.refusal(method, path)
    assert response.status == problem.status == status
    assert problem.instance == path.partition("?")[0]
    assert problem.detail


async def test_a_wrong_method_says_which_are_right(web: Web) -> None:
    response, _ = await web.refusal("POST", "/v1/sites")
    assert "GET" in response.headers["Allow"]


async def test_absent_figures_are_null_and_never_zero(web: Web) -> None:
    site = await web.answer("/v1/sites/lido-hall-4", models.Site)
    assert site.is_stale
    figures = (site.heat_rate_w, site.hot_c, site.volume_flow_m3_h, site.computed_heat_w)
    assert figures == (None, None, None, None)
    assert (site.quality_class, site.provenance) == (None, None)


async def test_the_machine_itself_is_told_apart(web: Web) -> None:
    answer = await web.answer("/v1/sites", models.Sites)
    here = [site.site_id for site in answer.sites if site.is_this_machine]
    assert here == ["this-machine"]


async def test_a_statement_keeps_money_as_text_and_names_who_is_missing(web: Web) -> None:
    statement = await web.answer("/v1/statements/last", models.Statement)
    assert not statement.is_complete
    assert [one.site_id for one in statement.missing] == ["lido-hall-4"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", statement.period_start)
    assert sum(total.energy_wh for total in statement.totals) == sum(
        line.energy_wh for line in statement.lines
    )


async def test_older_statements_come_from_the_ledger_newest_first(web: Web) -> None:
    last_ns = web.board.statement.end_ns if web.board.statement else 0
    ends_ns = [last_ns - number * filled.PERIOD_NS for number in (1, 2, 700)]
    await web.ledger.post([filled.entry(0, 0, end_ns) for end_ns in ends_ns])
    found = (await web.answer("/v1/statements", models.Statements)).statements
    assert [one.end_ns for one in found] == [last_ns, *ends_ns]
    assert [one.is_complete for one in found] == [False, None, None, None]
    first = (await web.answer("/v1/statements?limit=2", models.Statements)).statements
    assert first == found[:2]


async def test_a_reversed_line_is_no_longer_in_its_statement(web: Web) -> None:
    end_ns = web.clock.now_ns() // filled.PERIOD_NS * filled.PERIOD_NS - 5 * filled.PERIOD_NS
    await web.ledger.post(
        [
            filled.entry(0, 0, end_ns),
            filled.entry(0, 1, end_ns),
            filled.entry(0, 0, end_ns, sign=-1),
        ]
    )
    statement = (await web.answer("/v1/statements", models.Statements)).statements[1]
    assert [line.site_id for line in statement.lines] == ["glasshouse-nord-2"]


async def test_before_the_first_period_closes_there_is_no_statement(web: Web) -> None:
    web.board.post(statement=None)
    response, problem = await web.refusal("GET", "/v1/statements/last")
    assert response.status == 404
    assert "60 s" in problem.detail


async def test_an_aggregator_that_replays_is_not_ready(web: Web) -> None:
    web.board.post(log_position=9_000, applied_position=2_000)
    response, problem = await web.refusal("GET", "/readyz")
    assert response.status == 503
    assert "7000" in problem.detail and "Retry-After" in response.headers
    web.board.note_disk("log", "disk is full")
    assert (await web.refusal("GET", "/readyz"))[1].detail == "log: disk is full"


@pytest.mark.parametrize(
    ("error", "status"), [(StoreError("disk is full"), 503), (RuntimeError("secret"), 500)]
)
async def test_a_failing_store_is_a_problem_without_its_inside(
    web: Web, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        raise error

    monkeypatch.setattr(store.ledger, "read", fail)
    response, problem = await web.refusal("GET", "/v1/statements")
    assert response.status == status
    assert "secret" not in problem.detail


@pytest.mark.parametrize("path", ["/", "/v1/sites", "/nothing", "/v1/events", "/metrics"])
async def test_every_answer_has_the_security_headers(web: Web, path: str) -> None:
    async with web.session.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


async def event(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The next event of a stream; comments and the retry line are skipped."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(60):
        while line := (await response.content.readline()).decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "" and "data" in fields:
                return fields
            fields[name] = value
    raise AssertionError("the stream ended")


async def test_the_first_event_is_the_whole_state(web: Web) -> None:
    async with web.session.get("/v1/events") as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        first = await event(response)
    state = msgspec.json.decode(first["data"], type=models.State)
    assert (len(state.sites), len(state.virtual_sources)) == (13, 3)
    assert state.version == web.board.version


async def test_a_change_is_sent_and_rest_is_a_sign_of_life(web: Web) -> None:
    async with web.session.get("/v1/events") as response:
        first = await event(response)
        web.board.post(log_position=1_000_000)
        second = await event(response)
        third = await event(response)
    assert json.loads(second["data"])["log_position"] == 1_000_000
    assert first["id"] != second["id"]
    assert third["event"] == "alive"
    assert json.loads(third["data"]) == {"at_ns": web.clock.now_ns()}


async def test_who_comes_back_with_the_last_id_gets_nothing_twice(web: Web) -> None:
    async with web.session.get("/v1/events") as response:
        seen = (await event(response))["id"]
    async with web.session.get("/v1/events", headers={"Last-Event-ID": seen}) as response:
        assert (await event(response))["event"] == "alive"
    async with web.session.get("/v1/events", headers={"Last-Event-ID": "older"}) as response:
        assert "event" not in await event(response)


async def test_clients_are_capped_and_leaving_makes_room(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        connector = await stack.enter_async_context(aiohttp.TCPConnector(limit=0))
        many = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{web.address}", connector=connector)
        )
        for _ in range(CLIENTS_MAX_COUNT):
            response = await stack.enter_async_context(many.get("/v1/events"))
            await event(response)
        refused, _ = await web.refusal("GET", "/v1/events")
        assert refused.status == 503
        assert "Retry-After" in refused.headers
    async with asyncio.timeout(60):
        while (response := await web.session.get("/v1/events")).status != 200:
            response.close()
            await asyncio.sleep(0.1)
    response.close()
    assert not caplog.records


async def test_a_stop_waits_for_no_stream(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heatpool_aggregator.web.app._STOP_S", 30.0)
    board, clock = Board(), filled.StoppedClock()
    filled.fill(board, clock.now_ns())
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack, turning() as turns:
        async with serve(filled.settings(), board, store, clock) as address:
            for _ in range(8):
                get = session.get(f"http://{address}/v1/events")
                await event(await stack.enter_async_context(get))
            begun_s = turns.passed_s
        assert turns.passed_s - begun_s < SOON_S


async def test_metrics_are_what_the_exporter_renders(web: Web) -> None:
    async with web.session.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await response.read() == prometheus.render(web.board)


async def test_the_api_description_names_every_endpoint_and_schema(web: Web) -> None:
    async with web.session.get("/openapi.json") as response:
        text = await response.text()
    document = json.loads(text)
    assert document["openapi"].startswith("3.1")
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"\$ref":"([^"]+)"', text)) <= known
    paths = {path.replace("lido-hall-1", "{site_id}") for path in ENDPOINTS}
    paths = {path.replace("lido-hall", "{virtual_source_id}") for path in paths}
    assert paths | {"/v1/events"} == set(document["paths"])


async def test_statements_describe_their_limit(web: Web) -> None:
    async with web.session.get("/openapi.json") as response:
        document = await response.json()
    (limit,) = document["paths"]["/v1/statements"]["get"]["parameters"]
    assert limit["in"] == "query"
    assert limit["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}


async def files_of_page(web: Web) -> dict[str, str]:
    """The page and all it links to, by URL."""
    found: dict[str, str] = {}
    wanted = ["/"]
    while wanted:
        url = wanted.pop()
        async with web.session.get(url) as response:
            assert response.status == 200, url
            found[url] = await response.text()
        links = re.findall(r"/static/[a-z.0-9]+", found[url])
        wanted += [link for link in links if link not in found]
    return found


async def test_the_whole_page_is_small_and_its_files_never_age(web: Web) -> None:
    files = await files_of_page(web)
    assert len(files) > 8
    assert sum(len(text.encode()) for text in files.values()) < 150_000
    assert all(re.search(r"\.[0-9a-f]{12}\.[a-z]+$", url) for url in files if url != "/")
    script = next(url for url in files if "/app." in url)
    async with web.session.get(script) as response:
        assert "immutable" in response.headers["Cache-Control"]
        assert response.content_type == "text/javascript"


async def test_nothing_on_the_page_is_inline_or_from_elsewhere(web: Web) -> None:
    files = await files_of_page(web)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", files["/"])
    elsewhere = [re.findall(r"https?://[^\"' )]+", text) for text in files.values()]
    assert {url for found in elsewhere for url in found} <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    "banned",
    [
        r"\b(trees?|cars?|flights?|football|homes?)\b",
        r"\bMW (per|a) (day|year)|MW/(day|year)",
        r"carbon[- ](free|neutral)|zero[- ]carbon|CO2 saved",
        r"\b(green|clean|free) heat\b",
        r"\b(average|accuracy|heat power|thermal power|heat load|curtailment)\b",
        r"\b(real-time|smart|seamless)\b",
    ],
)
async def test_the_page_keeps_to_the_ban_list(web: Web, banned: str) -> None:
    files = await files_of_page(web)
    found = {url: re.findall(banned, text, re.IGNORECASE) for url, text in files.items()}
    assert {url: words for url, words in found.items() if words} == {}


@pytest.mark.parametrize("address", ["0.0.0.0:0", "heat.example:80", "127.0.0.1", "[::]:0"])
async def test_other_addresses_than_loopback_are_refused(store: Store, address: str) -> None:
    config = Config(listen=Listen(http=address))
    with pytest.raises(ConfigError, match=r"listen\.http"):
        async with serve(config, Board(), store, filled.StoppedClock()):
            pass


async def test_a_caller_that_speaks_no_http_is_one_line_without_traceback(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = web.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    async with asyncio.timeout(60):
        await reader.read()
    writer.close()
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "http.not_understood")
    assert record.exc_info is None
