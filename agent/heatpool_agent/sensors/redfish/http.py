"""One HTTP connection to a BMC: bounded answers, a pinned certificate, no other host.

The only file that imports aiohttp to read a sensor.
"""

import asyncio
import email.utils
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp

from heatpool.errors import SensorGone, WireError
from heatpool_agent.ports import Clock
from heatpool_agent.sensors.redfish.answer import MAX_BODY_BYTES, own_path
from heatpool_agent.sensors.redfish.settings import Config

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
# Longer than a period, so that a BMC does the arithmetic of TLS once.
KEEP_ALIVE_S = 75.0
# "Busy" without a time, and the longest that a service is believed.
BUSY_WAIT_S = 120.0
BUSY_MOST_S = 3600.0
_IMPLIED_PORTS = {"https": ":443", "http": ":80"}
_HEADERS = {"Accept": "application/json", "OData-Version": "4.0", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the service answered, and how long it took, s."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float


class Line:
    """The connection, opened with the first question."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Reply:
        """The answer; a GET follows redirects on the same host alone.

        Raises:
            SensorGone: no connection, a certificate that is not trusted, or no HTTP.
            WireError: an answer that is too large or leads to another host.
        """
        url = f"{self._config.base}{path}"
        try:
            for _ in range(MAX_REDIRECTS + 1):
                reply = await self._once(method, url, headers=headers, body=body)
                if method != "GET" or reply.status not in REDIRECTS:
                    return reply
                url = self._redirected(url, reply)
        except aiohttp.ClientError as error:
            raise self._broken(error) from error
        raise WireError(f"redfish: {path} leads round in a circle")

    async def close(self) -> None:
        """Hangs up; may be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _once(
        self, method: str, url: str, *, headers: Mapping[str, str] | None, body: object
    ) -> Reply:
        session = await self._opened()
        begun_ns = self._clock.boot_ns()
        async with session.request(
            method, url, headers=headers, json=body, allow_redirects=False
        ) as response:
            data = await _bounded(response)
        return Reply(
            status=response.status,
            headers=response.headers,
            body=data,
            took_s=(self._clock.boot_ns() - begun_ns) / 1e9,
        )

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=1, keepalive_timeout=KEEP_ALIVE_S, ssl=await self._trust()
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Limits are the sensor's: it knows how slow this BMC is.
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def _trust(self) -> bool | aiohttp.Fingerprint | ssl.SSLContext:
        """The pinned certificate, else what the named or the system's authorities sign."""
        if self._config.pin:
            return aiohttp.Fingerprint(self._config.pin)
        if not self._config.ca_file:
            return True
        try:
            return await asyncio.to_thread(ssl.create_default_context, cafile=self._config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SensorGone(
                f"{self._config.base}: ca_file {self._config.ca_file}: {error.strerror or error}",
                fix="name a readable PEM file of certificates",
            ) from error

    def _redirected(self, url: str, reply: Reply) -> str:
        """Where a redirect leads, if on the same host; a login must never reach another one."""
        told = reply.headers.get("Location", "")
        try:
            target = urljoin(url, told)
            is_ours = is_same_host(self._config.base, target)
            path = own_path(urlsplit(target)._replace(scheme="", netloc="").geturl())
        except ValueError:
            is_ours, path = False, None
        if path is None or not is_ours:
            raise WireError(f"redfish: {url} leads to {told!r}, another host: not followed")
        return f"{self._config.base}{path}"

    def _broken(self, error: aiohttp.ClientError) -> SensorGone:
        where = self._config.base
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return SensorGone(
                f"{where}: its certificate is another one, SHA-256 {error.got.hex()}",
                fix="if you changed it, set fingerprint to this one; else somebody listens between",
            )
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return SensorGone(
                f"{where}: its certificate is not trusted: {error.certificate_error}",
                fix="pin it with fingerprint, or name its authority in ca_file",
            )
        return SensorGone(
            f"{where}: {_words(error)}",
            fix="check power and network of the BMC, and that url names its HTTPS port",
        )


def is_same_host(one: str, other: str) -> bool:
    """Whether two URLs name the same scheme, host and port; raises ValueError if one is none."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def _origin(parts: SplitResult) -> str:
    """Scheme and host in one spelling: the port that a scheme implies may be told or not."""
    netloc = parts.netloc.lower().removesuffix(_IMPLIED_PORTS.get(parts.scheme, ""))
    return f"{parts.scheme}://{netloc}"


def _words(error: aiohttp.ClientError) -> str:
    """The system's own words for a connection that failed; aiohttp's name it twice."""
    if isinstance(error, aiohttp.ClientConnectorError) and (error.os_error.errno or 0) > 0:
        return f"cannot connect: {os.strerror(error.os_error.errno or 0)}"
    return str(error) or type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, up to its bound; a longer one ends the connection."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            response.close()
            raise WireError(f"redfish: {response.url.path} is larger than {MAX_BODY_BYTES} bytes")
    return bytes(data)


def retry_after_s(reply: Reply) -> float:
    """How long a busy service asks to be left alone, s; a date counts from its own clock."""
    told = reply.headers.get("Retry-After", "").strip()
    if told.isascii() and told.isdecimal():
        wait_s = float(told[:9])
    else:
        try:
            until = email.utils.parsedate_to_datetime(told)
            since = email.utils.parsedate_to_datetime(reply.headers.get("Date", ""))
            wait_s = (until - since).total_seconds()
        except (ValueError, TypeError):
            wait_s = BUSY_WAIT_S
    return min(max(wait_s, 1.0), BUSY_MOST_S)
