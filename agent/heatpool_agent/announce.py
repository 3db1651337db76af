"""Tells the local network where the status page is: mDNS `_heatpool._tcp`.

Being found is no trust: the record holds the version, a short hash of the site's name and a path.
"""

import asyncio
import hashlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from itertools import chain
from urllib.parse import urlsplit

import psutil
from zeroconf import Error, InterfaceChoice, IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from heatpool import __version__
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_agent import config

logger = logging.getLogger(__name__)

SERVICE = "_heatpool._tcp.local."
# Probing for our name takes under a second; a network that swallows it must not hold the start.
_REGISTER_S = 5.0
_LEAVE_S = 2.0
# How soon a site that joined is found under its new name.
LOOK_S = 5.0
_HASH_SIGNS = 8
_EVERY = ("0.0.0.0", "::")

Interfaces = Sequence[str] | InterfaceChoice


@asynccontextmanager
async def announced(
    http: config.Http,
    address: str | None,
    site_id: SiteId,
    *,
    interfaces: Interfaces = InterfaceChoice.All,
) -> AsyncIterator[str | None]:
    """The name under which the page at `address` is announced until left; None if it is not.

    A network without multicast costs the announcement and nothing else.
    """
    if address is None or not config.is_announced(http, address):
        yield None
        return
    try:
        zone = AsyncZeroconf(interfaces=interfaces, ip_version=_ip_version(address))
    except (OSError, Error) as error:
        _failed(error)
        yield None
        return
    try:
        yield await _registered(zone, service(address, site_id))
    finally:
        await _left(zone)


@asynccontextmanager
async def following(
    http: config.Http,
    address: str | None,
    site_id: Callable[[], SiteId],
    *,
    interfaces: Interfaces = InterfaceChoice.All,
    look_s: float = LOOK_S,
) -> AsyncIterator[None]:
    """Announces the page until left, under the name that the site has: joining may change it."""

    async def follow() -> None:
        while True:
            told = site_id()
            async with announced(http, address, told, interfaces=interfaces):
                while site_id() == told:  # noqa: ASYNC110  # a name that somebody else sets
                    await asyncio.sleep(look_s)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow(), name="announce")
        try:
            yield
        finally:
            task.cancel()


async def _registered(zone: AsyncZeroconf, record: ServiceInfo) -> str | None:
    try:
        async with asyncio.timeout(_REGISTER_S):
            await (await zone.async_register_service(record, allow_name_change=True))
    except (OSError, Error) as error:
        _failed(error)
        return None
    logger.info("announce.found_as", extra=facts(name=record.name))
    return record.name


def _failed(error: Exception) -> None:
    logger.warning("announce.failed", extra=facts(reason=str(error) or type(error).__name__))


async def _left(zone: AsyncZeroconf) -> None:
    """Says goodbye, so that nobody looks for us until the record ages."""
    try:
        async with asyncio.timeout(_LEAVE_S):
            await zone.async_unregister_all_services()
    except (OSError, Error) as error:
        logger.info("announce.no_goodbye", extra=facts(reason=str(error)))
    finally:
        await zone.async_close()


def service(address: str, site_id: SiteId) -> ServiceInfo:
    """What is announced for the page at `host:port`."""
    parts = urlsplit(f"//{address}")
    short = short_hash(site_id)
    return ServiceInfo(
        SERVICE,
        f"heatpool {short}.{SERVICE}",
        port=parts.port,
        parsed_addresses=_addresses(parts.hostname or ""),
        properties={"version": __version__, "site": short, "path": "/"},
        # Of the machine, too: two agents of one site name must not share one host record.
        server=f"heatpool-{short_hash(f'{site_id}/{socket.gethostname()}')}.local.",
    )


def short_hash(text: str) -> str:
    """Eight signs that tell sites apart without naming them."""
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_SIGNS]


def _addresses(host: str) -> list[str]:
    """Where the page can be reached: the bound address, or all IPv4 ones that others can reach."""
    if host not in _EVERY:
        return [host]
    places = chain.from_iterable(psutil.net_if_addrs().values())
    found = [place.address for place in places if place.family is socket.AF_INET]
    return [text for text in found if not ip_address(text).is_loopback]


def _ip_version(address: str) -> IPVersion:
    return IPVersion.All if address.startswith("[") else IPVersion.V4Only
