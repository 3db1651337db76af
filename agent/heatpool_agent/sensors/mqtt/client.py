"""The connection to a broker: aiomqtt's client, and what it leaves to its user.

It hands messages over with their dup flag, and it can be let go at any moment, half connected too.
The only file that imports aiomqtt to read a sensor.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import aiomqtt

from heatpool_agent.core.mqtt_payload import MAX_PAYLOAD_BYTES
from heatpool_agent.sensors.mqtt.settings import Broker

# A broker that says nothing for one and a half of these is gone (MQTT 3.1.1, 3.1.2.10).
KEEP_ALIVE_S = 10
# Name, connection and handshake happen in a thread that nothing ends before this.
CONNECT_MOST_S = 3.0
# A message may have 256 MB, and the library keeps all of it. What lies behind the longest topic and
# a payload that is refused for its length is read and dropped.
_PIECE_BYTES = 65_536
_KEPT_BYTES = MAX_PAYLOAD_BYTES + 65_536 + 64
# Turns of the loop until the library's own task has seen that the socket is closed.
_LAST_TURNS = 50
# What it would say of lost connections is told by us, once.
_quiet = logging.getLogger(f"{__name__}.library")
_quiet.setLevel(logging.CRITICAL + 1)

Refused = aiomqtt.exceptions.MqttConnectError
MqttError = aiomqtt.MqttError
Take = Callable[[str, bytes, bool, bool], None]


class _Socket(ssl.SSLSocket):
    """Closed when the handshake fails, which the library leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # as inherited
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def trust(ca_file: str | None) -> ssl.SSLContext:
    """What certificates are checked against: the authorities of a file, else the system's.

    Raises:
        OSError: the file cannot be read, or holds no certificate. It blocks: for a thread.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.sslsocket_class = _Socket
    return context


class Client(aiomqtt.Client):
    """One connection, used once; `take` gets topic, payload, retain and dup of each message."""

    def __init__(
        self,
        broker: Broker,
        *,
        identifier: str,
        login: tuple[str, str] | None,
        trust: ssl.SSLContext | None,
        take: Take,
    ) -> None:
        super().__init__(
            broker.host,
            broker.port,
            username=login[0] if login else None,
            password=login[1] if login else None,
            identifier=identifier,
            clean_session=True,
            keepalive=KEEP_ALIVE_S,
            tls_context=trust,
            logger=_quiet,
        )
        self._take = take
        self._is_over = False
        self._client.connect_timeout = CONNECT_MOST_S
        # Should a later library not call this, a test sees the memory grow.
        self._client._sock_recv = _bounded(self._client)  # type: ignore

    @property
    def is_up(self) -> bool:
        """Whether the broker let us in and is there."""
        has_begun = self._connected.done() and not self._connected.cancelled()
        return has_begun and self._connected.exception() is None and not self._disconnected.done()

    def on_lost(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once the connection has ended."""
        self._disconnected.add_done_callback(lambda _: tell())

    async def let_go(self) -> None:
        """Says goodbye and closes; harmless at any moment, and when repeated."""
        self._is_over = True
        if self._client.socket() is not None:
            self._client.disconnect()
        for _ in range(_LAST_TURNS):
            if self._client.socket() is None and (
                self._misc_task is None or self._misc_task.done()
            ):
                break
            await asyncio.sleep(0)
        for end in (self._connected, self._disconnected):
            if end.done() and not end.cancelled():
                end.exception()

    def _client_connect(self) -> None:
        super()._client_connect()
        # Let go while the thread was still at it: nobody else will close this socket.
        if self._is_over:
            self._client.disconnect()

    def _on_disconnect(self, *told: Any, **more: Any) -> None:
        # The library asks how its waiting ended, and that may have been by our own time limit;
        # the error would keep it from closing the socket.
        if not self._connected.cancelled():
            super()._on_disconnect(*told, **more)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        # The library's own message has no dup flag, and its queue no sense of what is newest.
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._take(topic, message.payload, bool(message.retain), bool(message.dup))


def _bounded(client: Any) -> Callable[[int], bytes]:
    """The client's way to read its socket, with the end of too long a packet forgotten."""
    read = client._sock_recv

    def some(most: int) -> bytes:
        del client._in_packet["packet"][_KEPT_BYTES:]
        return bytes(read(min(most, _PIECE_BYTES)))

    return some
