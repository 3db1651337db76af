"""Questions to an aggregator over gRPC, one channel each; answers are views."""

from collections.abc import Callable
from typing import TypeVar

import grpc

from heatpool_aggregator.board import SiteView, SourceView
from heatpool_aggregator.client.line import Place, failure, open_channel
from heatpool_aggregator.core.settlement import Statement
from heatpool_aggregator.wire import query as wire

ANSWER_S = 15.0  # longer than the server waits for its store, so that its reason is heard

Q = TypeVar("Q")
T = TypeVar("T")


def sites(place: Place) -> tuple[SiteView, ...]:
    """State of every site."""
    return ask(
        place, f"{wire.SERVICE}/ListSiteStatus", None, wire.nothing_to_bytes, wire.sites_from_bytes
    )


def sources(place: Place) -> tuple[SourceView, ...]:
    """State of every virtual source."""
    return ask(
        place,
        f"{wire.SERVICE}/ListSourceStatus",
        None,
        wire.nothing_to_bytes,
        wire.sources_from_bytes,
    )


def statement(place: Place, at_ns: int | None) -> Statement | None:
    """Statement of the period around an instant, or of the last closed one; None: none yet."""
    encode, decode = wire.statement_request_to_bytes, wire.statement_from_bytes
    return ask(place, f"{wire.SERVICE}/GetStatement", at_ns, encode, decode)


def gaps(place: Place, site_id: str) -> tuple[wire.GapView, ...]:
    """What is missing and why, of one site; empty: of all."""
    encode, decode = wire.gaps_request_to_bytes, wire.gaps_from_bytes
    return ask(place, f"{wire.SERVICE}/ListGaps", site_id, encode, decode)


def ask(
    place: Place,
    path: str,
    question: Q,
    encode: Callable[[Q], bytes],
    decode: Callable[[bytes], T],
) -> T:
    """The decoded answer of a method, `SERVICE/METHOD`.

    Raises:
        UplinkError: nobody answers at this address.
        Refused: somebody does, and says no.
        WireError: the answer cannot be read.
    """
    with open_channel(place) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{path}")
        try:
            answer = call(encode(question), timeout=ANSWER_S)
        except grpc.RpcError as error:
            raise failure(place, error) from error
    return decode(answer)
