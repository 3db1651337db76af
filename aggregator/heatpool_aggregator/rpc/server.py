"""The gRPC server: streams as plain bytes, health for load balancers, reflection for people."""

import ipaddress
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from heatpool.errors import ConfigError, HeatpoolError
from heatpool_aggregator.rpc.control import ControlService
from heatpool_aggregator.rpc.door import Door
from heatpool_aggregator.rpc.guard import Guard
from heatpool_aggregator.rpc.telemetry import TelemetryService
from heatpool_aggregator.rpc.tls import ServerTls
from heatpool_aggregator.wire import control, telemetry

MESSAGE_BYTES_LIMIT = 4 << 20
# gRPC sheds what waits beyond this with CANCELLED: more than the sites of one process.
PENDING_LIMIT = 20_000
# Of one connection; an agent has two. Others wait at the caller's end. More than a caller may have,
# or nobody would hear of that; not many more, for gRPC holds all fields of a head before it refuses
# it as too large: 8,000 references of one byte are 0.7 MB of each call, of 1,000 calls 700 MB.
CALLS_LIMIT = 128
NO_LIMIT = 2**31 - 1
HANDSHAKE_S = 10.0
IDLE_S = 300.0  # a connection without a call is closed
STOP_S = 0.5
SERVICES = (
    telemetry.SERVICE,
    control.SERVICE,
    "heatpool.v1.RegistryService",
    "heatpool.v1.QueryService",
    "heatpool.v1.CommandService",
)

OPTIONS = (
    # Two servers on one port would share the streams and not the log.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
    # We ask for no header at all; what comes by itself is a few hundred bytes.
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", CALLS_LIMIT),
    ("grpc.server.max_pending_requests", PENDING_LIMIT),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_LIMIT),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S * 1000)),
    ("grpc.max_connection_idle_ms", int(IDLE_S * 1000)),
    # Small messages need no window beyond 64 KiB, and asking how wide the line is costs a ping and
    # its answer for nearly each of them: a sixth of the CPU, and bytes that sites pay for.
    ("grpc.http2.bdp_probe", 0),
    # A site behind a dead line is noticed within a minute, and may ask for us as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Who pings faster than this three times is hung up on.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.keepalive_permit_without_calls", 1),
)


def make_server(
    telemetry_service: TelemetryService, control_service: ControlService, guard: Guard
) -> grpc.aio.Server:
    """A server with the two streams, health and reflection; others add themselves to it."""
    crowd = ("grpc.max_allowed_incoming_connections", connections_limit())
    server = grpc.aio.server(interceptors=(Door(guard),), options=(*OPTIONS, crowd))
    for name, service in (
        (telemetry.SERVICE, telemetry_service),
        (control.SERVICE, control_service),
    ):
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            service.stream
        )
        generic = grpc.method_handlers_generic_handler(name, {"Stream": handler})
        server.add_generic_rpc_handlers((generic,))
    reflection.enable_server_reflection(
        (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def connections_limit() -> int:
    """How many the port may have, those included of which nobody knows yet whose they are.

    Of all descriptors the web port has a quarter at most; a sixteenth is left for our own files.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NO_LIMIT if soft < 0 else soft * 11 // 16


@asynccontextmanager
async def listening(
    server: grpc.aio.Server, address: str, tls: ServerTls | None
) -> AsyncIterator[str]:
    """The bound address, `127.0.0.1:PORT`; leaving ends the streams.

    Raises:
        ConfigError: without TLS, the address is not a loopback one.
        HeatpoolError: the port is taken.
    """
    host = check_listen(address) if tls else check_loopback(address)
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    port = _bind(server, address, tls)
    await server.start()
    for name in ("", *SERVICES):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield f"{host}:{port}"
    finally:
        await state.enter_graceful_shutdown()
        await server.stop(STOP_S)


def check_loopback(address: str) -> str:
    """The host of the address.

    Raises:
        ConfigError: it is not a loopback one, or has no port.
    """
    host, _, port = address.rpartition(":")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or not port.isdecimal():
        raise ConfigError(
            [
                f"listen.grpc: is {address!r}, must be 127.0.0.1:PORT: without certificates "
                "anybody could speak for any site, so it serves this machine only; "
                "`heatpool-aggregator init` makes certificates, [tls] names those from elsewhere"
            ]
        )
    return host


def check_listen(address: str) -> str:
    """The host of an address that TLS guards: any of this machine's.

    Raises:
        ConfigError: it is no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError([f"listen.grpc: is {address!r}, must be HOST:PORT, like 0.0.0.0:8443"])
    return host


def _bind(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    try:
        if tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, tls.credentials())
    except RuntimeError as error:
        raise HeatpoolError(
            f"listen.grpc: {address} cannot be bound, another process has it or this machine has "
            "no such address: choose another one"
        ) from error
