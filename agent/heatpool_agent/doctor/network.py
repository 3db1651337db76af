"""The line to the aggregator, and our own page's port."""

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from heatpool_agent.config import aggregator_address
from heatpool_agent.doctor.place import Place, is_agent_running
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn

_MOST_S = 3.0
# What an HTTP/2 client says first, with empty settings; a server answers with a frame of type 4.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
_HEAD_BYTES, _TYPE_AT, _SETTINGS = 9, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How an address answered: not at all, as something else, or as a gRPC server."""

    address: str
    refusal: str = ""
    speaks_http2: bool = False
    took_s: float = 0.0


async def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room."""
    answered = await _ask(place.config.aggregator.url)
    listen = place.config.http.listen
    taken = await asyncio.to_thread(_bind_error, listen) if listen else 0
    runs = await asyncio.to_thread(is_agent_running, place.folder)
    return (
        aggregator(answered),
        certificate(place.config.aggregator.url),
        page_port(listen, taken, is_agent=runs),
    )


def aggregator(seen: Answered | None) -> Verdict:
    """Whether an aggregator listens where the settings say."""
    if seen is None:
        return skip("aggregator", "aggregator.url is empty: this site sends nowhere")
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
            why="something else listens there, or it wants TLS, which this version has not",
            fix="set aggregator.url to the address that heatpool-aggregator run logs as grpc",
        )
    return ok("aggregator", f"{seen.address} answers in {1000 * seen.took_s:.0f} ms")


def certificate(url: str) -> Verdict:
    """Certificates and tokens do not exist in this version."""
    if not url:
        return skip("certificate", "this site sends nowhere")
    return skip("certificate", "this version has no certificates and no tokens; loopback only")


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


async def _ask(url: str) -> Answered | None:
    address = aggregator_address(url) if url else None
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    start_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(_MOST_S):
            head = await _first_frame(host.strip("[]"), int(port))
    except TimeoutError:
        return Answered(address=address, refusal=f"no answer within {_MOST_S:g} s")
    except OSError as error:
        return Answered(address=address, refusal=error.strerror or str(error))
    took_s = asyncio.get_running_loop().time() - start_s
    is_http2 = len(head) == _HEAD_BYTES and head[_TYPE_AT] == _SETTINGS
    return Answered(address=address, speaks_http2=is_http2, took_s=took_s)


async def _first_frame(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_PREFACE)
        return await reader.readexactly(_HEAD_BYTES)
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


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
