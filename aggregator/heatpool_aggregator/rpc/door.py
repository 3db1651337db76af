"""Every method with what it needs; what is not in the table is refused.

Each call, of whatever kind, comes in as a stream: so the caller is looked at before its message is
read, and one that sends none holds its place no longer than `FIRST_S`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from heatpool.errors import WireError
from heatpool_aggregator.core.principal import Action
from heatpool_aggregator.rpc.certificate import Context
from heatpool_aggregator.rpc.guard import Anybody, Guard, Need
from heatpool_aggregator.rpc.refused import Refused

FIRST_S = 10.0

_V1 = "/heatpool.v1"
METHODS: Mapping[str, Need] = {
    f"{_V1}.TelemetryService/Stream": Action.SPEAK,
    f"{_V1}.ControlService/Stream": Action.SPEAK,
    f"{_V1}.QueryService/ListSiteStatus": Action.READ,
    f"{_V1}.QueryService/ListSourceStatus": Action.READ,
    f"{_V1}.QueryService/WatchSourceStatus": Action.READ,
    f"{_V1}.QueryService/GetStatement": Action.READ_ACCOUNTS,
    f"{_V1}.QueryService/ListGaps": Action.READ,
    f"{_V1}.RegistryService/ListSites": Action.READ,
    f"{_V1}.RegistryService/ListVirtualSources": Action.READ,
    f"{_V1}.RegistryService/RenewCertificate": Action.RENEW,
    f"{_V1}.CommandService/SetSetpoint": Action.COMMAND,
    f"{_V1}.CommandService/EndSetpoint": Action.COMMAND,
    f"{_V1}.CommandService/ListSetpoints": Action.READ,
    f"{_V1}.CommandService/ListAudit": Action.AUDIT,
    "/grpc.health.v1.Health/Check": Anybody.AT_ALL,
    "/grpc.health.v1.Health/Watch": Anybody.PROVEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Action.READ,
}

# A handler of ours or of another maker, with whatever its messages are.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


class Door(grpc.aio.ServerInterceptor):
    """Lets calls in by the table."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The handler that asks the guard first."""
        method: str = handler_call_details.method
        need = METHODS.get(method)
        found = await continuation(handler_call_details)
        if need is None or found is None:
            return grpc.stream_stream_rpc_method_handler(self._nowhere)

        # Made once: of thousands of streams each would hold one of its own.
        handler = self._handlers.get(method)
        if handler is None:
            handler = self._handlers[method] = self._guarded(method, need, found)
        return handler

    def _guarded(self, method: str, need: Need, found: Handler) -> Handler:
        work = found.stream_stream if _is_ours(found) else partial(_work, found)

        async def stream(requests: AsyncIterator[bytes], context: Context) -> None:
            await self._guard.serve(context, method, need, partial(work, requests, context))

        return grpc.stream_stream_rpc_method_handler(
            stream, response_serializer=found.response_serializer
        )

    async def _nowhere(self, _: AsyncIterator[bytes], context: Context) -> None:
        text = "there is no such method here"
        await self._guard.turn_away(context, Refused(grpc.StatusCode.UNIMPLEMENTED, text))


def _is_ours(found: Handler) -> bool:
    """Whether the handler reads and writes by itself: nothing stands between it and its stream."""
    return not found.request_deserializer and iscoroutinefunction(found.stream_stream)


async def _work(found: Handler, requests: AsyncIterator[bytes], context: Context) -> None:
    """The call as its handler wants it: one message or many, each way."""
    read = found.request_deserializer or bytes
    if found.stream_stream is not None:
        up = requests if read is bytes else _each(requests, read)
        await _answer(found.stream_stream(up, context), context)
    elif found.unary_stream is not None:
        await _answer(found.unary_stream(await _first(requests, read), context), context)
    else:
        answer = await found.unary_unary(await _first(requests, read), context)
        await context.write(answer)


async def _answer(answering: Any, context: Context) -> None:
    if not hasattr(answering, "__aiter__"):
        await answering
        return
    async with aclosing(answering):
        async for answer in answering:
            await context.write(answer)


async def _first(requests: AsyncIterator[bytes], read: Callable[[bytes], Any]) -> Any:
    try:
        async with asyncio.timeout(FIRST_S):
            return _decoded(await anext(aiter(requests)), read)
    except TimeoutError as error:
        text = f"no request within {FIRST_S:g} s"
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, text) from error
    except StopAsyncIteration as error:
        text = "the call ended without a request"
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, text) from error


async def _each(requests: AsyncIterator[bytes], read: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for data in requests:
        yield _decoded(data, read)


def _decoded(data: bytes, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no request: {error}") from error
