"""Questions to an aggregator over gRPC, one channel each; answers are views."""

from collections.abc import Callable
from typing import TypeVar

import grpc

from heatpool.errors import HeatpoolError, UplinkError
from heatpool_aggregator.board import SiteView, SourceView
from heatpool_aggregator.core.settlement import Statement
from heatpool_aggregator.wire import query as wire

ANSWER_S = 15.0  # longer than the server waits for its store, so that its reason is heard

# No proxy: the address that was given is the one that is asked.
_OPTIONS = (("grpc.enable_http_proxy", 0),)
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Q = TypeVar("Q")
T = TypeVar("T")


class Refused(HeatpoolError):
    """The aggregator answered that it cannot answer: the text says why."""


def sites(address: str) -> tuple[SiteView, ...]:
    """State of every site."""
    return _ask(address, "ListSiteStatus", None, wire.nothing_to_bytes, wire.sites_from_bytes)


def sources(address: str) -> tuple[SourceView, ...]:
    """State of every virtual source."""
    return _ask(address, "ListSourceStatus", None, wire.nothing_to_bytes, wire.sources_from_bytes)


def statement(address: str, at_ns: int | None) -> Statement | None:
    """Statement of the period around an instant, or of the last closed one; None: none yet."""
    encode, decode = wire.statement_request_to_bytes, wire.statement_from_bytes
    return _ask(address, "GetStatement", at_ns, encode, decode)


def gaps(address: str, site_id: str) -> tuple[wire.GapView, ...]:
    """What is missing and why, of one site; empty: of all."""
    encode, decode = wire.gaps_request_to_bytes, wire.gaps_from_bytes
    return _ask(address, "ListGaps", site_id, encode, decode)


def _ask(
    address: str,
    method: str,
    question: Q,
    encode: Callable[[Q], bytes],
    decode: Callable[[bytes], T],
) -> T:
    """The decoded answer.

    Raises:
        UplinkError: nobody answers at this address.
        Refused: somebody does, and says no.
        WireError: the answer cannot be read.
    """
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        path = f"/{wire.SERVICE}/{method}"
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        try:
            answer = call(encode(question), timeout=ANSWER_S)
        except grpc.RpcError as error:
            raise _failure(address, error) from error
    return decode(answer)


def _failure(address: str, error: grpc.RpcError) -> HeatpoolError:
    if not isinstance(error, grpc.Call):
        return Refused(str(error))
    code, detail = error.code(), " ".join((error.details() or "").split())
    if code in _GONE:
        fix = "is it running? --address or HEATPOOL_ADDRESS names another one"
        return UplinkError(f"aggregator at {address} does not answer ({detail}); {fix}")
    return Refused(f"{detail} ({code.name})")
