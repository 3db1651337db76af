"""The line to the aggregator, and our own page's port."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from heatpool_agent.config import aggregator_address, is_secure
from heatpool_agent.doctor import beside, identity
from heatpool_agent.doctor.place import Place, is_agent_running
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.enrol.files import Enrolled

_MOST_S = 3.0
# What an HTTP/2 client says first, with empty settings; a server answers with a frame of type 4.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
_HEAD_BYTES, _TYPE_AT, _SETTINGS = 9, 3, 4
# A call, so that the other end does not count a handshake without one as somebody turned away:
# HEADERS (RFC 9113 6.2, RFC 7541 6.2.2) and DATA with an empty message, both on stream 1.
_HEADERS, _END_HEADERS, _DATA, _END_STREAM = 1, 4, 0, 1
_POST, _SCHEMES = b"\x83", {False: b"\x86", True: b"\x87"}
_AUTHORITY, _PATH, _TYPE, _NEW = b"\x01", b"\x04", b"\x0f\x10", b"\x00"
_CALL_S = 1.0
_TEXT_MOST = 126  # longer needs another coding of its length


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How an address answered: not at all, as something else, or as a gRPC server."""

    address: str
    refusal: str = ""
    distrust: str = ""
    is_secure: bool = False
    speaks_http2: bool = False
    took_s: float = 0.0


async def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room."""
    own = (await asyncio.to_thread(identity.look, place)).enrolled
    url = place.config.aggregator.url or (f"https://{own.place.grpc}" if own else "")
    answered = await _ask(url, own)
    listen = place.config.http.listen
    taken = await asyncio.to_thread(_bind_error, listen) if listen else 0
    runs = await asyncio.to_thread(is_agent_running, place.folder)
    line = await asyncio.to_thread(beside.uplink, listen) if runs and taken else None
    return (
        aggregator(answered, line),
        page_port(listen, taken, is_agent=runs),
    )


def aggregator(seen: Answered | None, line: Mapping[str, Any] | None = None) -> Verdict:
    """Whether an aggregator listens where the settings say, and takes `line` of a running agent."""
    if seen is None:
        return skip("aggregator", "this site has not joined and aggregator.url is empty")
    if seen.distrust:
        return fail(
            "aggregator",
            f"{seen.address}: {seen.distrust}",
            why="the two ends do not trust each other, so nothing is sent; rows wait on this disk",
            fix="look at both clocks (timedatectl), and at aggregator.url: it must be a name that "
            "the aggregator's certificate has; then heatpool-agent join --force with a new token",
        )
    if seen.refusal:
        return fail(
            "aggregator",
            f"{seen.address}: {seen.refusal}",
            why="rows wait on this disk until it is back; none is lost before spool.max_bytes",
            fix="start it there: heatpool-aggregator run --config aggregator.toml; if a tunnel "
            "leads to it, start that first, or mend aggregator.url",
        )
    if not seen.speaks_http2:
        return fail(
            "aggregator",
            f"{seen.address} answers, and not as an aggregator",
            why="something else listens there, or it wants TLS and aggregator.url says http://",
            fix="set aggregator.url to the address that heatpool-aggregator run logs as grpc; "
            "where it has certificates: leave it empty, and run heatpool-agent join",
        )
    if line is not None and line.get("state") == "refused":
        return fail(
            "aggregator",
            f"{seen.address} answers, and refuses this site: {line.get('detail')}",
            why="nothing is taken from the agent that runs here; rows wait on this disk",
            fix=line.get("fix") or "ask whoever runs the aggregator",
        )
    if line is not None and line.get("state") == "connected" and line.get("detail"):
        return warn(
            "aggregator",
            f"{seen.address} takes what this site sends, but {line['detail']}",
            why="these rows are in no estimate or statement until somebody mends it",
            fix="run the same version of heatpool on both ends; heatpool-aggregator keeps them",
        )
    how = "knows this site's CA, and answers" if seen.is_secure else "answers"
    return ok("aggregator", f"{seen.address} {how} in {1000 * seen.took_s:.0f} ms")


def page_port(listen: str, error: int, *, is_agent: bool) -> Verdict:
    """Whether our page can listen; `error` is what the kernel said to it, 0 for free."""
    if not listen:
        return skip("http_port", "http.listen is empty: no page is served")
    if not error:
        return ok("http_port", f"{listen} is free")
    if error == errno.EADDRINUSE and is_agent:
        return ok("http_port", f"{listen} is held by the running agent")
    port = listen.rpartition(":")[2]
    if error == errno.EADDRINUSE:
        return fail(
            "http_port",
            f"{listen} is taken by another program",
            why="the agent would not start",
            fix=f"ss -ltnp 'sport = :{port}' says by whom; stop it, or set http.listen to "
            "another port",
        )
    make = warn if error == errno.EADDRNOTAVAIL else fail
    return make(
        "http_port",
        f"{listen}: {errno.errorcode.get(error, error)}",
        why="this machine has no such address now, or the port needs rights",
        fix="set http.listen to an address of this machine (ip -br addr) and a port above 1023",
    )


async def _ask(url: str, own: Enrolled | None) -> Answered | None:
    address = aggregator_address(url) if url else None
    if address is None:
        return None
    if is_secure(url) and own is None:
        return Answered(address=address, distrust="wants a certificate, and this site has none")
    start_s = asyncio.get_running_loop().time()
    try:
        context = identity.context(own.identity) if own and is_secure(url) else None
        async with asyncio.timeout(_MOST_S):
            head = await _first_frame(address, context)
    except ssl.SSLError as error:
        told = getattr(error, "verify_message", "") or error.reason or str(error)
        return Answered(address=address, distrust=f"no TLS with it: {told}")
    except TimeoutError:
        return Answered(address=address, refusal=f"no answer within {_MOST_S:g} s")
    except OSError as error:
        return Answered(address=address, refusal=error.strerror or str(error))
    took_s = asyncio.get_running_loop().time() - start_s
    is_http2 = len(head) == _HEAD_BYTES and head[_TYPE_AT] == _SETTINGS
    if context is not None and not head:
        return Answered(
            address=address, distrust="ends the line: it takes our certificate for none"
        )
    is_secured = context is not None
    return Answered(address=address, speaks_http2=is_http2, took_s=took_s, is_secure=is_secured)


async def _first_frame(address: str, context: ssl.SSLContext | None) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    try:
        writer.write(_PREFACE)
        head = await reader.readexactly(_HEAD_BYTES)
        if head[_TYPE_AT] == _SETTINGS:
            writer.write(_health_call(host, is_secure=context is not None))
            await _answered(reader, head)
        return head
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        # Not closed in good manners: over TLS that waits for the other end, which may not answer.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _health_call(host: str, *, is_secure: bool) -> bytes:
    """The frames of a call that asks a gRPC server how it is."""
    fields = (
        _POST + _SCHEMES[is_secure],
        _PATH + _text(b"/grpc.health.v1.Health/Check"),
        _AUTHORITY + _text(host.encode()[:_TEXT_MOST]),
        _TYPE + _text(b"application/grpc"),
        _NEW + _text(b"te") + _text(b"trailers"),
    )
    block = b"".join(fields)
    ask = _frame(_HEADERS, _END_HEADERS, block)
    return ask + _frame(_DATA, _END_STREAM, bytes(5))


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    return len(body).to_bytes(3) + bytes((kind, flags)) + (1).to_bytes(4) + body


def _text(value: bytes) -> bytes:
    return bytes((len(value),)) + value


async def _answered(reader: asyncio.StreamReader, head: bytes) -> None:
    """Reads up to the first frame of the call's answer; whatever it says, the line works."""
    with suppress(TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CALL_S):
            while int.from_bytes(head[5:_HEAD_BYTES]) != 1:
                await reader.readexactly(int.from_bytes(head[:3]))
                head = await reader.readexactly(_HEAD_BYTES)


def _bind_error(listen: str) -> int:
    """What the kernel says to our listening there, and to nobody connecting; 0 for nothing."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, int(port)))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
