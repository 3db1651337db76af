"""The publishing half of MQTT 3.1.1, as small as in a controller's firmware.

Written from the standard's clause 3 and not with a library: so it can say a message twice with the
dup flag, or vanish without a goodbye, and the agent's library hears another maker's bytes.
"""

import asyncio
import struct
from dataclasses import dataclass

from heatpool.errors import HeatpoolError

KEEP_ALIVE_S = 30
ANSWER_MOST_S = 5.0
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _DISCONNECT = 0x10, 0x20, 0x30, 0x40, 0xE0
_DUP, _QOS_1, _RETAIN = 0x08, 0x02, 0x01
_CLEAN, _WILL, _WILL_QOS_1, _WILL_RETAIN = 0x02, 0x04, 0x08, 0x20


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for the device once it has vanished."""

    topic: str
    payload: bytes


class Publisher:
    """One connection to a broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    @classmethod
    async def connected(cls, host: str, port: int, *, client_id: str, will: Will) -> "Publisher":
        """A publisher that the broker let in.

        Raises:
            HeatpoolError: it did not.
            OSError: there is no broker.
        """
        async with asyncio.timeout(ANSWER_MOST_S):
            own = cls(*await asyncio.open_connection(host, port))
            is_in = False
            try:
                own._writer.write(_connect(client_id, will))
                kind, body = await own._packet()
                is_in = kind == _CONNACK and body[1:2] == b"\0"
            finally:
                if not is_in:
                    await own.vanish()
        if not is_in:
            raise HeatpoolError(f"the broker at {host}:{port} refused {client_id}: {body.hex()}")
        return own

    async def publish(self, topic: str, payload: bytes, *, times: int = 1) -> None:
        """Sends with QoS 1, retained, and waits for the broker's word; again with the dup flag."""
        self._number = self._number % 0xFFFF + 1
        body = _text(topic) + struct.pack(">H", self._number) + payload
        for turn in range(times):
            flags = _QOS_1 | _RETAIN | (_DUP if turn else 0)
            self._writer.write(_framed(_PUBLISH | flags, body))
            async with asyncio.timeout(ANSWER_MOST_S):
                while (await self._packet())[0] != _PUBACK:
                    pass

    async def leave(self) -> None:
        """Says goodbye: no last will."""
        self._writer.write(_framed(_DISCONNECT, b""))
        await self._end()

    async def vanish(self) -> None:
        """Goes without a word, so that the broker says the last will."""
        await self._end()

    async def _end(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return

    async def _packet(self) -> tuple[int, bytes]:
        """Kind and body of the next packet."""
        try:
            kind = (await self._reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80 or shift > 21:
                    return kind & 0xF0, await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the broker hung up") from error


def _connect(client_id: str, will: Will) -> bytes:
    flags = _CLEAN | _WILL | _WILL_QOS_1 | _WILL_RETAIN
    head = _text("MQTT") + struct.pack(">BBH", 4, flags, KEEP_ALIVE_S)
    body = head + _text(client_id) + _text(will.topic)
    return _framed(_CONNECT, body + struct.pack(">H", len(will.payload)) + will.payload)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _framed(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 0x80)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((kind,)) + bytes(digits) + body
