"""mDNS over the loopback interface: found by another zeroconf, renamed when doubled, gone after."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from heatpool.sample import SiteId
from heatpool_agent.announce import SERVICE, announced, following, service, short_hash
from heatpool_agent.config import Http, is_announced

LOOPBACK = ["127.0.0.1"]
# Answers to a probe go to one address: two agents need two, as on two machines.
OTHER = ["127.0.0.2"]
SITE = SiteId("altstadt-7")
LAN = "192.0.2.7:9188"
OPEN = Http(listen="0.0.0.0:9188", insecure_lan=True)


class Found:
    """What a browser on the network sees come and go."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._changed = asyncio.Event()

    def seen(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        """Called by zeroconf, which fixes the argument names."""
        is_gone = state_change is ServiceStateChange.Removed
        self.names = self.names - {name} if is_gone else self.names | {name}
        self._changed.set()

    async def until(self, count: int) -> set[str]:
        """The names, once there are so many."""
        async with asyncio.timeout(60):
            while len(self.names) != count:
                self._changed.clear()
                await self._changed.wait()
        return self.names


@pytest.fixture
async def zone() -> AsyncIterator[AsyncZeroconf]:
    async with AsyncZeroconf(interfaces=LOOPBACK) as zone:
        yield zone


@pytest.fixture
async def found(zone: AsyncZeroconf) -> AsyncIterator[Found]:
    found = Found()
    browser = AsyncServiceBrowser(zone.zeroconf, [SERVICE], handlers=[found.seen])
    yield found
    await browser.async_cancel()


async def test_a_page_on_the_network_is_found_and_gone_after(
    zone: AsyncZeroconf, found: Found
) -> None:
    async with announced(OPEN, LAN, SITE, interfaces=LOOPBACK) as name:
        assert name is not None
        assert await found.until(1) == {name}
        record = AsyncServiceInfo(SERVICE, name)
        assert await record.async_request(zone.zeroconf, 3_000)
        assert (record.parsed_addresses(), record.port) == (["192.0.2.7"], 9188)
        assert record.properties == {
            b"version": service(LAN, SITE).properties[b"version"],
            b"site": short_hash(SITE).encode(),
            b"path": b"/",
        }
    assert await found.until(0) == set()


async def test_a_site_that_joins_is_found_under_its_new_name(found: Found) -> None:
    names = [SITE]
    follow = following(OPEN, LAN, lambda: names[-1], interfaces=LOOPBACK, look_s=0.05)
    async with follow:
        (before,) = await found.until(1)
        names.append(SiteId("hafen-3"))
        async with asyncio.timeout(60):
            while found.names in ({before}, set()):  # noqa: ASYNC110  # zeroconf sets it
                await asyncio.sleep(0.05)
        assert found.names == {f"heatpool {short_hash(names[-1])}.{SERVICE}"}
    assert await found.until(0) == set()


async def test_a_second_agent_of_one_name_is_renamed(found: Found) -> None:
    async with announced(OPEN, LAN, SITE, interfaces=LOOPBACK) as first:
        await found.until(1)
        async with announced(OPEN, "192.0.2.8:9188", SITE, interfaces=OTHER) as second:
            assert await found.until(2) == {first, second}
            assert second == f"heatpool {short_hash(SITE)}-2.{SERVICE}"


@pytest.mark.parametrize(
    ("http", "address"),
    [
        (OPEN, None),
        (OPEN, "127.0.0.1:9188"),
        (OPEN, "[::1]:9188"),
        (Http(listen="0.0.0.0:9188", insecure_lan=True, announce=False), LAN),
    ],
)
async def test_a_page_that_none_may_find_is_not_announced(http: Http, address: str | None) -> None:
    assert not is_announced(http, address)
    async with announced(http, address, SITE, interfaces=LOOPBACK) as name:
        assert name is None


# zeroconf drops a socket unclosed when it finds no interface; ours to live with, once per start.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_machine_without_that_network_runs_on_unannounced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with announced(OPEN, LAN, SITE, interfaces=["192.0.2.200"]) as name:
        assert name is None
    gc.collect()
    assert "announce.failed" in [record.getMessage() for record in caplog.records]


def test_the_record_does_not_name_the_site() -> None:
    record = service(LAN, SITE)
    told = [record.name, record.server or "", *map(str, record.properties.values())]
    assert [text for text in told if SITE in text] == []


def test_a_page_on_every_address_is_announced_without_loopback() -> None:
    assert "127.0.0.1" not in service("0.0.0.0:9188", SITE).parsed_addresses()
