"""What a stranger or a faulty client may throw at the gRPC port: refused, counted, told once."""

import asyncio
import logging
import random
import socket
import ssl
import time
from typing import Any

import grpc.aio
import pytest
from integration import site_client as site
from integration.door import calls
from integration.door.calls import (
    QUERY,
    REGISTRY,
    ask,
    hello_of,
    refused,
    report_of,
    say,
    status,
    stream,
)

from heatpool_aggregator.core.turned_away import PEERS_LIMIT, Reason, TurnedAway
from heatpool_aggregator.rpc import calls as rpc_calls
from heatpool_aggregator.rpc import control, door, guard, server, telemetry

SOON_S = 0.3


async def still_serves(rig: Any) -> None:
    """Another caller notices nothing."""
    async with rig.as_("person/ada") as channel:
        await ask(channel, f"{QUERY}/ListSiteStatus")


@pytest.mark.parametrize("service", ["Telemetry", "Control"])
@pytest.mark.parametrize("size", [server.MESSAGE_BYTES_LIMIT + 1, 3 * server.MESSAGE_BYTES_LIMIT])
async def test_an_oversized_message_ends_its_stream_alone(
    rig: Any, service: str, size: int
) -> None:
    async with rig.as_("site/e1") as channel:
        async with stream(channel, service) as line:
            await say(line, bytes(size))
            assert (await status(line.next()))[0] in ("RESOURCE_EXHAUSTED", "CANCELLED")
        code, _ = await status(ask(channel, f"{REGISTRY}/RenewCertificate", bytes(size)))
        assert code == "RESOURCE_EXHAUSTED"
    await still_serves(rig)


async def test_an_oversized_message_in_mid_stream_is_a_line_that_was_hung_up(rig: Any) -> None:
    """gRPC refuses it by itself: docs/security.md says what is counted."""
    async with rig.as_("site/e1") as channel, stream(channel) as line:
        await line.send(site.hello("e1"))
        await line.next()
        await say(line, bytes(server.MESSAGE_BYTES_LIMIT + 1))
        assert (await status(line.next()))[0] == "RESOURCE_EXHAUSTED"
    await still_serves(rig)
    assert sum((await refused(rig)).values()) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_garbage_in_a_message_is_malformed(rig: Any, seed: int) -> None:
    dice = random.Random(seed)
    async with rig.as_("site/e1") as channel:
        for service in ("Telemetry", "Control"):
            for length in (0, 1, 7, 300, 70_000):
                async with stream(channel, service) as line:
                    await say(line, b"\xff" + dice.randbytes(length))
                    assert (await status(line.next()))[0] == "INVALID_ARGUMENT"
        code, _ = await status(ask(channel, f"{REGISTRY}/RenewCertificate", b"\xff\xff"))
        assert code == "INVALID_ARGUMENT"
    async with rig.as_("person/ada") as channel:
        for path in (f"{QUERY}/GetStatement", f"{QUERY}/ListGaps", "grpc.health.v1.Health/Check"):
            assert (await status(ask(channel, path, b"\xff\xff")))[0] == "INVALID_ARGUMENT"
    assert (await refused(rig))["malformed"] == 14


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        random.Random(1).randbytes(100_000),
        b"\x16\x03\x01\xff\xff" + bytes(1000),
        b"",
    ],
    ids=["http/1", "http/2", "noise", "a hello that lies", "nothing"],
)
async def test_garbage_on_the_port_harms_nobody(rig: Any, data: bytes) -> None:
    host, _, port = rig.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    await writer.drain()
    await still_serves(rig)
    writer.close()
    del reader


async def test_old_tls_is_not_spoken(rig: Any) -> None:
    def handshake() -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        host, _, port = rig.address.rpartition(":")
        with socket.create_connection((host, int(port)), 5) as plain:
            with context.wrap_socket(plain) as secure:
                return secure.version()

    with pytest.warns(DeprecationWarning), pytest.raises(ssl.SSLError):
        await asyncio.to_thread(handshake)
    await still_serves(rig)


async def test_failed_handshakes_are_counted_and_told(
    rig: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "SETTLE_NS", 0)
    for _ in range(3):
        async with rig.channel(None) as channel:
            await status(ask(channel, f"{QUERY}/ListSiteStatus"))
    await still_serves(rig)

    async def is_counted() -> bool:
        return (await refused(rig))["tls"] == 3

    await calls.eventually(is_counted)
    assert "rpc.handshakes_failed" in caplog.messages


async def test_who_says_nothing_is_hung_up_on(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "HELLO_S", SOON_S)
    monkeypatch.setattr(door, "FIRST_S", SOON_S)
    async with rig.as_("site/e1") as channel:
        for service in ("Telemetry", "Control"):
            async with stream(channel, service) as line:
                assert (await status(line.next()))[0] == "DEADLINE_EXCEEDED"
        renew: Any = channel.stream_unary(f"/{REGISTRY}/RenewCertificate")()
        assert (await status(renew))[0] == "DEADLINE_EXCEEDED"
    assert (await refused(rig))["too_slow"] == 3


@pytest.fixture
def short_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts after this waits no longer for a handshake."""
    options = dict(server.OPTIONS)
    assert options["grpc.server_handshake_timeout_ms"] == 10_000
    options["grpc.server_handshake_timeout_ms"] = int(SOON_S * 1000)
    monkeypatch.setattr(server, "OPTIONS", tuple(options.items()))


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"])
async def test_a_handshake_that_does_not_go_on_is_hung_up_on(
    short_handshakes: None, rig: Any, data: bytes
) -> None:
    host, _, port = rig.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_headers_without_end_are_refused(rig: Any) -> None:
    async with rig.as_("person/ada") as channel:
        asked: Any = channel.unary_unary(f"/{QUERY}/ListSiteStatus")
        metadata = tuple((f"x-{place}", "y" * 4_000) for place in range(50))
        code, _ = await status(asked(b"", metadata=metadata, timeout=10))
        assert code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL")
    await still_serves(rig)


async def test_a_header_names_nobody(rig: Any) -> None:
    async with rig.as_("site/e1") as channel:
        asked: Any = channel.unary_unary(f"/{QUERY}/ListSiteStatus")
        claims = (
            ("authorization", "Bearer admin"),
            ("x-forwarded-client-cert", "URI=spiffe://heatpool/person/ada"),
            ("x509_pem_cert", "x"),
            ("heatpool-principal", "person/ada"),
        )
        code, _ = await status(asked(b"", metadata=claims, timeout=10))
        assert code == "PERMISSION_DENIED"


async def test_a_hundred_refusals_are_counted_and_told_once(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with rig.as_("site/e1") as channel:
        for _ in range(100):
            async with stream(channel, "Control") as line:
                await say(line, hello_of("e2"))
                assert (await status(line.next()))[0] == "PERMISSION_DENIED"
    assert (await refused(rig))["other_site"] == 100
    assert caplog.messages.count("rpc.refused") == 1
    entries = [e for e in await rig.audit.read(1000) if e.action.startswith("refused")]
    assert len(entries) == 1


async def test_what_was_told_is_kept_in_bounded_memory() -> None:
    away = TurnedAway()
    told = [away.count(f"peer-{n}", Reason.ROLE, boot_ns=n) for n in range(3 * PEERS_LIMIT)]
    assert all(told) and len(away._told_ns) == PEERS_LIMIT
    assert not away.count(f"peer-{3 * PEERS_LIMIT - 1}", Reason.ROLE, boot_ns=4_000)
    assert away.count(f"peer-{3 * PEERS_LIMIT - 1}", Reason.ROLE, boot_ns=2 * 86_400 * 10**9)
    assert away.counts[Reason.ROLE] == 3 * PEERS_LIMIT + 2


async def test_one_caller_has_no_more_than_its_share_of_calls(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_calls, "CALLER_LIMIT", 5)
    async with rig.as_("person/rob") as channel:
        watches: list[Any] = [
            channel.unary_stream(f"/{QUERY}/WatchSourceStatus")(b"") for _ in range(5)
        ]
        for watch in watches:
            await watch.read()
        code, _ = await status(ask(channel, f"{QUERY}/ListSiteStatus"))
        assert code == "RESOURCE_EXHAUSTED"
        await still_serves(rig)
        watches[0].cancel()

        async def has_room() -> bool:
            try:
                await ask(channel, f"{QUERY}/ListSiteStatus")
            except grpc.aio.AioRpcError:
                return False
            return True

        await calls.eventually(has_room)
        for watch in watches:
            watch.cancel()


async def test_one_site_with_many_streams_keeps_one(rig: Any) -> None:
    async with rig.as_("site/e1") as channel:
        lines = [channel.stream_stream("/heatpool.v1.TelemetryService/Stream")() for _ in range(50)]
        for line in lines:
            await line.write(site.hello("e1").SerializeToString())
            await line.read()
        ended = [line.done() for line in lines]
        newest: Any = lines[-1]
        await newest.write(site.batch(1, time.time_ns()).SerializeToString())
        assert await newest.read()
        assert sum(ended) >= 48 and not newest.done()
        newest.cancel()
    assert (await refused(rig))["replaced"] == 49


async def test_two_machines_with_one_identity_are_told_of_once(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.as_("site/e1") as one, rig.as_("site/e1") as two:
        for channel in (one, two, one, two, one):
            call: Any = channel.stream_stream("/heatpool.v1.TelemetryService/Stream")()
            await call.write(site.hello("e1").SerializeToString())
            await call.read()
    (told,) = [record for record in caplog.records if record.message == "rpc.site_contested"]
    assert "two machines with one identity" in told.__dict__["heatpool_facts"]["reason"]
    (gauge,) = await calls.figures(rig, "heatpool_contested_sites")
    assert gauge.value == 1


async def test_who_pings_without_end_is_hung_up_on(rig: Any) -> None:
    who = rig.caller("site/e1")
    credentials = grpc.ssl_channel_credentials(rig.ca.pem, who.key, who.chain)
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )
    async with grpc.aio.secure_channel(rig.address, credentials, options) as channel:
        async with stream(channel) as line:
            await say(line, site.hello("e1"))
            await line.next()
            code, detail = await status(line.next())
            assert code == "UNAVAILABLE" and "pings" in detail.lower()
    await still_serves(rig)


async def test_a_site_that_floods_reports_is_cut_off_and_told_when_to_come_back(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REPORTS_S", 0.001)
    monkeypatch.setattr(control, "REPORTS_BURST", 5.0)
    async with rig.as_("site/e1") as channel, stream(channel, "Control") as line:
        await say(line, hello_of("e1"), *[report_of("e1")] * 6)
        code, detail = await status(line.next())
        assert (code, "0.001 reports a second after the first 5:" in detail) == (
            "RESOURCE_EXHAUSTED",
            True,
        )
        assert ("retry-after-s", "10") in tuple(await line.call.trailing_metadata())
    assert (await refused(rig))["overload"] == 1
    await still_serves(rig)


async def test_a_new_stream_gives_no_new_burst_of_reports(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REPORTS_S", 0.001)
    monkeypatch.setattr(control, "REPORTS_BURST", 5.0)

    async def reported(site_id: str, count: int) -> str:
        async with rig.as_(f"site/{site_id}") as channel, stream(channel, "Control") as line:
            await say(line, hello_of(site_id), *[report_of(site_id)] * count)
            await line.call.done_writing()
            return (await status(line.next()))[0]

    found = [await reported("e1", 3), await reported("e1", 3), await reported("e1", 1)]
    assert found == ["OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    assert await reported("e2", 3) == "OK"


async def test_reports_within_the_burst_are_taken(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REPORTS_S", 0.001)
    monkeypatch.setattr(control, "REPORTS_BURST", 5.0)
    async with rig.as_("site/e1") as channel, stream(channel, "Control") as line:
        await line.send(hello_of("e1"), *[report_of("e1")] * 5)
        await line.call.done_writing()
        assert (await status(line.next()))[0] == "OK"
