"""What the tests of the door say over a connection, and what they look at."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import grpc.aio
from integration.site_client import Line
from prometheus_client.parser import text_string_to_metric_families

from heatpool.v1 import command_pb2, control_pb2, telemetry_pb2

QUERY = "heatpool.v1.QueryService"
REGISTRY = "heatpool.v1.RegistryService"
COMMAND = "heatpool.v1.CommandService"
ANSWER_S = 20.0
_RESPONSES: dict[str, Any] = {
    "Telemetry": telemetry_pb2.TelemetryServiceStreamResponse,
    "Control": control_pb2.ControlServiceStreamResponse,
}


def order(**change: Any) -> bytes:
    """An order that asks e1 for nothing: it is allowed to whoever may order."""
    terms: dict[str, Any] = {
        "site_id": "e1",
        "heat_rate_w": 0.0,
        "lease_s": 60.0,
        "reason": "warm",
    } | change
    return command_pb2.SetSetpointRequest(**terms).SerializeToString()


@asynccontextmanager
async def stream(channel: grpc.aio.Channel, service: str = "Telemetry") -> AsyncIterator[Line]:
    """A stream of the agent's kind."""
    call: Any = channel.stream_stream(f"/heatpool.v1.{service}Service/Stream")()
    yield Line(call, _RESPONSES[service])
    call.cancel()


async def say(line: Line, *messages: Any) -> None:
    """Sends what will be refused, perhaps before it is all written; `next` tells how."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await line.send(*messages)


async def ask(channel: grpc.aio.Channel, path: str, request: bytes = b"") -> bytes:
    """The answer of a method, `SERVICE/METHOD`."""
    call: Any = channel.unary_unary(f"/{path}")
    data: bytes = await call(request, timeout=ANSWER_S)
    return data


async def status(asked: Awaitable[Any]) -> tuple[str, str]:
    """Name of the status and detail of a call that must fail."""
    try:
        answer = await asked
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    except EOFError as error:
        code, _, detail = str(error).partition(": ")
        return code, detail
    raise AssertionError(f"answered {answer!r}")


async def refused(rig: Any) -> dict[str, float]:
    """Calls turned away so far, by reason, as /metrics tells it."""
    samples = await figures(rig, "heatpool_refused_total")
    return {sample.labels["reason"]: sample.value for sample in samples}


async def figures(rig: Any, name: str) -> list[Any]:
    """Samples of this name on /metrics."""
    trusted = ssl.create_default_context(cadata=rig.ca.pem.decode())
    headers = {"Authorization": f"Bearer {rig.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"https://{rig.http}/metrics", ssl=trusted) as page,
    ):
        families = text_string_to_metric_families(await page.text())
        return [one for family in families for one in family.samples if one.name == name]


async def eventually(is_true: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it is so."""
    async with asyncio.timeout(30):
        while not await is_true():  # noqa: ASYNC110  # what it asks is in another place
            await asyncio.sleep(0.05)


def hello_of(*site_ids: str) -> bytes:
    """Says on the control stream who listens."""
    hello = control_pb2.ControlHello(site_ids=site_ids, sent_ns=1)
    return control_pb2.ControlServiceStreamRequest(hello=hello).SerializeToString()


def report_of(site_id: str) -> bytes:
    """Says on the control stream what became of a setpoint."""
    state = control_pb2.SetpointStateReport(
        site_id=site_id, setpoint_seq=1, state=control_pb2.SETPOINT_STATE_APPLIED
    )
    return control_pb2.ControlServiceStreamRequest(state=state).SerializeToString()
