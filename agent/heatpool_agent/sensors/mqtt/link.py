"""One broker kept connected between reads: what came on each topic, and why nothing comes.

Connected inside a read or a probe, never in between: whoever looks again is who tries again. A
login that was refused is not tried again for a while, unless the password file holds another one.
"""

import asyncio
import logging
import re
import ssl
from dataclasses import replace
from pathlib import Path

from heatpool.errors import SensorGone
from heatpool.process.journal import facts
from heatpool_agent.core.mqtt_newest import Message
from heatpool_agent.core.mqtt_payload import MAX_PAYLOAD_BYTES
from heatpool_agent.ports import Clock
from heatpool_agent.sensors.mqtt.client import KEEP_ALIVE_S, Client, MqttError, Refused, trust
from heatpool_agent.sensors.mqtt.settings import Broker, Config, broker, client_id
from heatpool_agent.sensors.password_file import password_of

logger = logging.getLogger(__name__)

QOS = 1
# So long after all that it said is old, a connection is begun anew. Out of step, a stream may go on
# for ever as packets of nobody's, which keep it alive.
DEAF_S = 1.5 * KEEP_ALIVE_S
_ERRNO = re.compile(r"^\[Errno -?[0-9]+\] ")
# Brokers lock out or alarm on repeated wrong passwords.
REFUSED_WAIT_NS = 600 * 1_000_000_000
_LOGIN_CODES = (134, 135)  # bad user name or password, not authorized


class Link:
    """The newest message of each topic since the last look, and the connection behind it."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._broker: Broker = broker(config)
        self._name = client_id(config)
        self._client: Client | None = None
        # One per topic at most, in the order of their coming: bounded by the configuration.
        self._came: dict[str, tuple[Message, int]] = {}
        self._news = asyncio.Event()
        self._refused: tuple[str, int] | None = None
        self._heard_s = 0.0
        self._longest_s = max(point.max_age_s for point in config.point)
        # Topics on which something was said while we listened; what is retained was said before.
        self.heard: set[str] = set()
        self.overwritten_count = 0

    @property
    def is_up(self) -> bool:
        """Whether the connection stands."""
        return self._client is not None and self._client.is_up

    @property
    def has_some(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._came)

    @property
    def silent_s(self) -> float:
        """How long no message came, or since the connection began, s."""
        return asyncio.get_running_loop().time() - self._heard_s

    async def connect(self) -> None:
        """Connected and subscribed when this returns, if it was not yet, or is deaf.

        Raises:
            SensorGone: no broker, no trust, no login, or no right to any topic.
        """
        if self.is_up and self.silent_s <= self._longest_s + DEAF_S:
            return
        await self.close()
        login = await self._login()
        client = Client(
            self._broker,
            identifier=self._name,
            login=login,
            trust=await self._trust() if self._broker.is_tls else None,
            take=self._take,
        )
        try:
            await self._enter(client, password=login[1] if login else "")
        except BaseException:
            await client.let_go()
            raise
        self._client = client

    async def wait_news(self) -> None:
        """Until one more message came or the connection ended."""
        self._news.clear()
        if self.is_up:
            await self._news.wait()

    def taken(self) -> list[Message]:
        """What came since the last look."""
        came, self._came = self._came, {}
        now_ns = self._clock.boot_ns()
        return [
            replace(message, age_ns=max(now_ns - came_ns, 0)) for message, came_ns in came.values()
        ]

    async def close(self) -> None:
        """Hangs up; may be called twice."""
        client, self._client = self._client, None
        # What came before is no present state: a broker tells the last will again, if it lasts.
        self._came.clear()
        self.heard.clear()
        if client is not None:
            await client.let_go()

    def _take(self, topic: str, payload: bytes, is_retained: bool, is_dup: bool) -> None:  # noqa: FBT001  # as the library calls it
        # Some brokers send what they kept after what was said since, which is newer.
        if topic not in self._config.topics or (is_retained and topic in self.heard):
            return
        self._heard_s = asyncio.get_running_loop().time()
        if not is_retained:
            self.heard.add(topic)
        self.overwritten_count += self._came.pop(topic, None) is not None
        # A longer one is refused for its length; its end need not be kept for that.
        message = Message(
            topic=topic,
            payload=payload[: MAX_PAYLOAD_BYTES + 1],
            is_retained=is_retained,
            is_dup=is_dup,
        )
        self._came[topic] = message, self._clock.boot_ns()
        self._news.set()

    async def _enter(self, client: Client, *, password: str) -> None:
        url = self._config.url
        try:
            await client.__aenter__()
            client.on_lost(self._news.set)
            self._refused = None
            self._heard_s = asyncio.get_running_loop().time()
            codes = await client.subscribe([(topic, QOS) for topic in self._config.topics])
        except Refused as error:
            raise self._no_entry(error, password) from error
        except MqttError as error:
            words = _ERRNO.sub("", str(error))
            raise SensorGone(f"{url}: {words}", fix=_fix(words)) from error
        self._check_rights([str(code) for code in codes], [_is_denied(code) for code in codes])

    def _no_entry(self, error: Refused, password: str) -> SensorGone:
        code = getattr(error.rc, "value", error.rc)
        words = str(error.rc)
        if code not in _LOGIN_CODES:
            return SensorGone(
                f"{self._config.url}: refused the connection: {words}",
                fix="check client_id, and that the broker speaks MQTT 3.1.1",
            )
        self._refused = password, self._clock.boot_ns()
        return self._refusal(words)

    def _refusal(self, words: str) -> SensorGone:
        who = f"user {self._config.user!r}" if self._config.user else "a client without a user"
        return SensorGone(
            f"{self._config.url}: refused {who}: {words}",
            fix="check user and password_file; it is tried again with another password, "
            f"or after {REFUSED_WAIT_NS // 60_000_000_000} min",
        )

    def _check_rights(self, words: list[str], denied: list[bool]) -> None:
        topics = [topic for topic, no in zip(self._config.topics, denied, strict=False) if no]
        if not topics:
            return
        named = ", ".join(topics)
        if all(denied):
            raise SensorGone(
                f"{self._config.url}: may not subscribe to {named}: {words[0]}",
                fix="allow reading these topics in the broker's access list",
            )
        logger.warning(
            "mqtt.topics_denied",
            extra=facts(sensor=self._config.id, topics=named, fix="check the broker's access list"),
        )

    async def _login(self) -> tuple[str, str] | None:
        if not self._config.user:
            password = ""
        else:
            path = Path(self._config.password_file)
            password = await asyncio.to_thread(password_of, path)
        if self._refused is not None and self._refused[0] == password:
            if self._clock.boot_ns() - self._refused[1] < REFUSED_WAIT_NS:
                raise self._refusal("not tried again so soon")
        return (self._config.user, password) if self._config.user else None

    async def _trust(self) -> ssl.SSLContext:
        file = self._config.ca_file or None
        try:
            return await asyncio.to_thread(trust, file)
        except OSError as error:
            raise SensorGone(
                f"{self._config.url}: ca_file {file}: {error.strerror or error}",
                fix="name a readable PEM file of certificates",
            ) from error


def _is_denied(code: object) -> bool:
    """Whether an answer to a subscription is a refusal (MQTT 3.1.1, 3.9.3: 0x80)."""
    value = getattr(code, "value", code)
    return isinstance(value, int) and value >= 0x80


def _fix(words: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "name the authority of the broker's certificate in ca_file, and its name in url"
    if "SSL" in words or "handshake" in words:
        return "check that url names the broker's TLS port"
    return "check that the broker runs, and url and network"
