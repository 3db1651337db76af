"""HTTP/2 frame by frame over mTLS, as no library would write it: for callers that mean harm."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from integration.door import pki

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 6
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CANCEL = (8).to_bytes(4, "big")
_HEAD_SIZE = 9
ANSWER_S = 60.0


def frame(kind: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0) -> bytes:
    """A frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def field(name: bytes, value: bytes, *, is_kept: bool = False) -> bytes:
    """A field of a head, both shorter than 127 bytes or the value of 127 to 16,000."""
    return (b"\x40" if is_kept else b"\x00") + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    most = 0x7F
    if len(text) < most:
        return bytes((len(text),)) + text
    rest = len(text) - most
    return bytes((most, rest % 128 + 128, rest // 128)) + text


def head(stream: int, path: str, more: bytes = b"", *, flags: int = END_HEADERS) -> bytes:
    """A call's head; the first field of `more` that is kept is 62 for the heads after it."""
    fields = {
        b":method": b"POST",
        b":scheme": b"https",
        b":path": path.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(field(name, value) for name, value in fields.items())
    return frame(HEADERS, stream, block + more, flags=flags)


def message(stream: int, data: bytes, *, flags: int = 0) -> bytes:
    """A gRPC message."""
    return frame(DATA, stream, b"\0" + len(data).to_bytes(4, "big") + data, flags=flags)


def reset(stream: int) -> bytes:
    """The end of a call."""
    return frame(RST_STREAM, stream, _CANCEL)


def setting(name: int, value: int) -> bytes:
    """One entry of a SETTINGS frame."""
    return name.to_bytes(2, "big") + value.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Raw:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Sends it, unless the other end has hung up."""
        with suppress(ConnectionError, ssl.SSLError):
            self.writer.write(data)
            await self.writer.drain()

    async def next(self) -> tuple[int, int, bytes]:
        """Kind, stream and payload of the next frame.

        Raises:
            EOFError: the other end hung up.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                first = await self.reader.readexactly(_HEAD_SIZE)
                payload = await self.reader.readexactly(int.from_bytes(first[:3], "big"))
        except (ConnectionError, ssl.SSLError) as error:
            raise EOFError from error
        return first[3], int.from_bytes(first[5:9], "big"), payload

    async def hung_up(self) -> bool:
        """Reads on; whether the other end hung up."""
        try:
            while True:
                await self.next()
        except EOFError:
            return True
        except TimeoutError:
            return False

    async def next_of(self, kind: int) -> tuple[int, bytes]:
        """Stream and payload of the next frame of this kind."""
        while True:
            found, stream, payload = await self.next()
            if found == kind:
                return stream, payload


@asynccontextmanager
async def opened(
    address: str, ca_pem: bytes, who: pki.Identity, folder: Path, *, settings: bytes = b""
) -> AsyncIterator[Raw]:
    """A connection of this caller, its own settings sent."""
    file = folder / "raw.pem"
    file.write_bytes(who.key + who.chain)
    context = ssl.create_default_context(cadata=ca_pem.decode())
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, server_hostname="localhost"
    )
    writer.write(_PREFACE + frame(SETTINGS, payload=settings))
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
