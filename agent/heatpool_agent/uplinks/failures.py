"""Every way in which a line fails, as the error whose catcher knows what to do."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio

from heatpool.errors import UplinkError, WireError
from heatpool_agent.core.line import LineReplaced
from heatpool_agent.ports import LineBusy, LineRefused

_REFUSING = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_FIXES = {
    grpc.StatusCode.UNAUTHENTICATED: "ask whoever runs the aggregator: heatpool-aggregator site "
    "list says whether this site is known or revoked; heatpool-agent join enrols it again",
    grpc.StatusCode.PERMISSION_DENIED: "ask whoever runs the aggregator to let this site in, or "
    "mend site.id here",
}
# How a handshake fails for good, in the words of gRPC, and what mends it; the first that fits. One
# that a bad line cuts off only says that a socket was closed, as an aggregator does that does not
# know our CA.
_HANDSHAKE_FIXES = (
    (
        "WRONG_VERSION_NUMBER",
        "the other end speaks no TLS: mend aggregator.url, or have the aggregator given its "
        "certificate (heatpool-aggregator init)",
    ),
    (
        "Hostname Verification",
        "the aggregator's certificate does not name this address: use the name that it has in "
        "aggregator.url, or have it given one with this address",
    ),
    (
        "security handshaker",
        "this site's key and certificate do not fit: heatpool-agent join --force with a new token",
    ),
    (
        "SSL_ERROR_SSL",
        "the two ends do not trust each other: heatpool-agent join --force with the CA hash that "
        "the aggregator shows, and look at both clocks",
    ),
)


def failure(code: grpc.StatusCode, details: str, wait_s: float | None) -> UplinkError:
    """What the end of a stream asks of us."""
    text = f"{code.name}: {details}"
    if code in _REFUSING:
        return LineRefused(text, fix=_FIXES[code])
    if code is grpc.StatusCode.UNAVAILABLE:
        fixes = (fix for word, fix in _HANDSHAKE_FIXES if word in details)
        if fix := next(fixes, ""):
            return LineRefused(text, fix=fix)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return LineBusy(text, wait_s=wait_s)
    if code is grpc.StatusCode.ABORTED:
        return LineReplaced(text, wait_s=wait_s)
    return UplinkError(text, wait_s=wait_s)


async def ended(stream: "grpc.aio.StreamStreamCall[Any, Any]") -> UplinkError:
    """Why a stream that has ended did so."""
    with as_uplink_error():
        code, details = await stream.code(), await stream.details()
        wait_s = _wait_s(tuple(await stream.trailing_metadata() or ()))
        if code is grpc.StatusCode.OK:
            return UplinkError("the aggregator closed the stream", wait_s=wait_s)
        return failure(code, details or "", wait_s)


def _wait_s(metadata: Sequence[tuple[str, str | bytes]]) -> float | None:
    """When to come back, as the server's last words say it: in ms as gRPC has it, or in s."""
    for name, factor in (("grpc-retry-pushback-ms", 1e-3), ("retry-after-s", 1.0)):
        for key, value in metadata:
            if key == name and isinstance(value, str) and value.replace(".", "", 1).isdecimal():
                return float(value) * factor
    return None


@contextmanager
def as_uplink_error() -> Iterator[None]:
    """Turns what gRPC raises into our errors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        wait_s = _wait_s(tuple(error.trailing_metadata() or ()))
        raise failure(error.code(), error.details() or "", wait_s) from error
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise UplinkError(f"the stream is closed: {error}") from error
    except WireError as error:
        raise UplinkError(f"the aggregator sent what cannot be read: {error}") from error


@asynccontextmanager
async def within(seconds_s: float, what: str) -> AsyncIterator[None]:
    """Gives up after a time."""
    try:
        async with asyncio.timeout(seconds_s):
            yield
    except TimeoutError as error:
        raise UplinkError(f"{what} was not taken within {seconds_s:.0f} s") from error
