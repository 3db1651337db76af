"""The whole way in over a real channel: durable acks, repeats, refusals, restarts, the way down."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration import site_client as site

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process.settings import convert
from heatpool.v1 import control_pb2
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.ports import START
from heatpool_aggregator.stores import open_store

T, B = "site-a-t", "site-a-b"


def config(**change: Any) -> Config:
    tree: dict[str, Any] = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "virtual_source": [
            {
                "id": "harbour",
                "kind": "swimming_pool",
                "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
                "member": [{"site_id": "site-a"}, {"site_id": "site-b"}],
            }
        ],
    }
    return convert(tree | change, Config)


async def eventually(
    addresses: Any, path: str, is_true: Callable[[Any], bool], within_s: float = 60
) -> Any:
    """What the aggregator says there, once it is so."""
    async with asyncio.timeout(within_s), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://{addresses['http']}{path}") as answer:
                found = await answer.json()
            if is_true(found):
                return found
            await asyncio.sleep(0.05)


def site_a(found: Any) -> Any:
    return found["sites"][0]


async def test_what_a_site_sends_is_acked_and_shown(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.batch(1, now_ns, 1000), site.batch(2, now_ns + 1, 2500))
        await line.send(site.registers(1, now_ns - 5 * 10**9, 100, 150, 700))
        await line.acked(T, 2)
        await line.acked(B, 1)
        sites = await eventually(addresses, "/v1/sites", lambda it: site_a(it)["energy_wh"] == 600)
        sources = await eventually(addresses, "/v1/sources", lambda _: True)
        status = await eventually(
            addresses, "/v1/status", lambda it: it["ingest"]["batches_durable"] == 3
        )
    shown, source = site_a(sites), sources["virtual_sources"][0]
    assert (shown["heat_rate_w"], shown["hot_c"], shown["quality_class"]) == (2500.0, 45.0, "B")
    assert (shown["is_stale"], shown["rejection_capacity_w"]) == (False, 9000.0)
    assert (source["heat_rate_w"], source["energy_wh"], source["coverage_frac"]) == (
        2500.0,
        600,
        0.5,
    )
    assert (source["members_count"], source["fresh_count"]) == (2, 1)
    assert status["ingest"]["streams"] == 1


async def test_hello_is_answered_with_limits_and_nothing_durable(tmp_path: Path) -> None:
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello())
        reply = (await line.next()).hello_reply
    assert (len(reply.durable), reply.limits.unacked_batches_count) == (0, 16)


async def test_an_ack_comes_after_the_log_has_it(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), *(site.batch(seq, now_ns + seq) for seq in range(1, 11)))
        await line.acked(T, 10)
    async with open_log("sqlite:", tmp_path) as log, log.partition(0) as partition:
        found = await partition.read(START, 1000)
        assert partition.snapshot is not None
        assert partition.snapshot.position == found[-1][0]
    assert [frame.seq for _, frame in found] == [0, *range(1, 11)]


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.batch(1, now_ns), site.registers(1, now_ns, 10, 30))
        await line.acked(T, 1)
        await line.acked(B, 1)
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello())
        durable = {
            known.boot_id: known.last_seq for known in (await line.next()).hello_reply.durable
        }
        # All of it again, as after a lost ack, and something new behind it.
        await line.send(site.batch(1, now_ns), site.registers(1, now_ns, 10, 30))
        await line.send(site.batch(2, now_ns + 1, 500), site.registers(2, now_ns + 2 * 10**9, 35))
        await line.acked(T, 2)
        await line.acked(B, 2)
        await eventually(addresses, "/v1/sites", lambda it: site_a(it)["energy_wh"] == 25)
        status = await eventually(
            addresses, "/v1/status", lambda it: it["ingest"]["duplicates_ignored"] == 2
        )
    assert durable == {T: 1, B: 1}
    assert status["ingest"]["batches_durable"] == 2


async def test_late_registers_give_the_energy_of_punctual_ones(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    # A rise before a fall: it shows only when the row between the others is there.
    early, late = (
        site.registers(2, now_ns + 10**9, 60_000),
        site.registers(3, now_ns + 5 * 10**9, 30_000),
    )
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.registers(1, now_ns, 20_000), late, early)
        await line.acked(B, 3)
        await eventually(addresses, "/v1/sites", lambda it: site_a(it)["energy_wh"] == 40_000)


async def test_a_repeat_is_acked_and_counted_once(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses:
        async with site.line(addresses["grpc"]) as line:
            await line.send(site.hello(), site.batch(1, now_ns))
            await line.acked(T, 1)
            await line.send(site.batch(1, now_ns, sent_ns=now_ns + 7))
            await line.next()
            assert line.durable(T) == 1
        async with site.line(addresses["grpc"]) as other:
            await other.send(site.hello(), site.batch(1, now_ns))
            await other.acked(T, 1)
        await eventually(
            addresses, "/v1/status", lambda it: it["ingest"]["duplicates_ignored"] == 2
        )
    async with open_store("sqlite:", tmp_path) as store:
        assert len(await store.chunks.read("site-a", 0, 2**62)) == 1  # type: ignore[arg-type]


def garbage(seq: int) -> bytes:
    body = b"\x08\x00\x10" + bytes([seq]) + b"\xff" * 30
    return b"\x12" + bytes([len(body)]) + body


REFUSED = [
    (garbage(1), "MALFORMED", "not a message"),
    (site.batch(1, 10**18, schema_id=7), "UNKNOWN_SCHEMA", "schema 7"),
    (site.batch(1, 10**18, cells=[1, 2]), "MALFORMED", "2 cells"),
    (site.batch(1, 10**18, -2e9), "OUT_OF_RANGE", "electric_w is"),
    (site.batch(1, 10**18, dt_ns=[1] * 1_100_000, n_rows=2), "TOO_LARGE", "bytes"),
    (site.batch(1, time.time_ns() + 3600 * 10**9, sent_ns=time.time_ns()), "CLOCK", "ahead"),
]


@pytest.mark.parametrize(
    ("message", "reason", "told"), REFUSED, ids=[str(reason) for _, reason, _ in REFUSED]
)
async def test_a_frame_that_cannot_be_used_is_acked_and_named(
    tmp_path: Path, message: Any, reason: str, told: str
) -> None:
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), message)
        await line.acked(T, 1)
        (refused,) = await line.refused(1)
        await eventually(addresses, "/v1/status", lambda it: it["ingest"]["refused"] == 1)
    assert (refused.boot_id, refused.seq) == (T, 1)
    assert refused.reason == getattr(site.pb, f"REFUSED_REASON_{reason}")
    assert told in refused.detail
    async with open_store("sqlite:", tmp_path) as store:
        (event,) = await store.events.read("refused", None, 10)
        assert json.loads(event.detail)["reason"] == reason.lower()
        assert len(await store.events.read("refused_frame", None, 10)) == 1


async def test_the_same_number_with_other_content_is_an_alarm_not_an_update(
    tmp_path: Path,
) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.batch(1, now_ns, 1000))
        await line.acked(T, 1)
        await line.send(site.batch(1, now_ns, 9999))
        (refused,) = await line.refused(1)
        await eventually(addresses, "/v1/sites", lambda it: site_a(it)["heat_rate_w"] == 1000.0)
    assert refused.reason == site.pb.REFUSED_REASON_SEQ_CONFLICT


async def test_a_hole_is_asked_for_and_a_gap_closes_it(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.batch(1, now_ns), site.batch(5, now_ns + 1))
        while not line.seen or not line.seen[-1].HasField("resend"):
            await line.next()
        resend = line.seen[-1].resend
        assert (resend.boot_id, resend.first_seq, resend.last_seq) == (T, 2, 4)
        assert line.durable(T) == 1
        gap = site.pb.Gap(boot_id=T, first_seq=2, last_seq=4, reason=site.pb.GAP_REASON_DROPPED)
        await line.send(site.pb.TelemetryServiceStreamRequest(gap=gap))
        await line.acked(T, 5)
    async with open_store("sqlite:", tmp_path) as store:
        (event,) = await store.events.read("gap", None, 10)
    assert json.loads(event.detail)["reason"] == "dropped"


async def test_a_schema_that_cannot_be_is_refused_in_the_reply(tmp_path: Path) -> None:
    request = site.hello()
    request.hello.sites[0].schemas.append(site.pb.Schema(schema_id=2, boot_id=T))
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(request)
        (refused,) = (await line.next()).hello_reply.refused_schemas
    assert (refused.schema_id, refused.reason) == (2, "has 0 channels, allowed is 1 to 256")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ((site.hello("stranger"),), "PERMISSION_DENIED: site 'stranger' is no member"),
        ((site.hello(wire_version=2),), "FAILED_PRECONDITION: wire version 2"),
        ((site.batch(1, 1),), "FAILED_PRECONDITION: the first message is telemetry"),
        ((site.hello(), site.batch(1, 1, site_index=4)), "INVALID_ARGUMENT: site_index is 4"),
        ((site.hello(), b"\xff\xff"), "INVALID_ARGUMENT: a number does not end"),
        ((site.hello(sites=[]),), "INVALID_ARGUMENT: hello names 0 sites"),
    ],
)
async def test_a_stream_that_is_out_of_order_is_closed_with_the_reason(
    tmp_path: Path, messages: tuple[Any, ...], told: str
) -> None:
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(*messages)
        with pytest.raises(EOFError, match=told):
            while True:
                await line.next()


async def test_what_was_sent_before_the_end_is_still_acked(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.batch(1, now_ns))
        await line.call.done_writing()
        with pytest.raises(EOFError, match="OK"):
            await line.acked(T, 99)
    assert line.durable(T) == 1


# The way down


def control_hello(*site_ids: str) -> Any:
    message = control_pb2.ControlHello(site_ids=site_ids)
    return control_pb2.ControlServiceStreamRequest(hello=message)


def state(seq: int, name: str, applied_heat_rate_w: float | None = None) -> Any:
    report = control_pb2.SetpointStateReport(
        site_id="site-a",
        setpoint_seq=seq,
        state=control_pb2.SetpointState.Value(f"SETPOINT_STATE_{name}"),
        event_ns=time.time_ns(),
        applied_heat_rate_w=applied_heat_rate_w,
    )
    return control_pb2.ControlServiceStreamRequest(state=report)


STANDING = {"setpoint": [{"site_id": "site-a", "heat_rate_w": 2000, "lease_s": 1.5}]}


async def test_a_standing_setpoint_goes_down_is_renewed_and_its_state_shown(
    tmp_path: Path,
) -> None:
    async with (
        app.serving(config(**STANDING), tmp_path) as addresses,
        site.line(addresses["grpc"], "Control") as line,
    ):
        await line.send(control_hello("site-a"))
        setpoint = (await line.next()).setpoint
        await eventually(
            addresses, "/v1/sites", lambda it: site_a(it)["setpoint"]["state"] == "sent"
        )
        heartbeat = (await line.next()).heartbeat
        await line.send(state(setpoint.setpoint_seq, "APPLIED", 1500.0))
        found = await eventually(
            addresses, "/v1/sites", lambda it: site_a(it)["setpoint"]["state"] == "applied"
        )
    shown = site_a(found)["setpoint"]
    assert (setpoint.heat_rate_w, setpoint.lease_s) == (2000.0, 1.5)
    assert heartbeat.plan_id == setpoint.plan_id
    assert (shown["heat_rate_w"], shown["applied_heat_rate_w"]) == (2000.0, 1500.0)


async def test_setpoint_numbers_rise_over_restarts(tmp_path: Path) -> None:
    seqs = []
    for _ in range(2):
        async with (
            app.serving(config(**STANDING), tmp_path) as addresses,
            site.line(addresses["grpc"], "Control") as line,
        ):
            await line.send(control_hello("site-a"))
            seqs.append((await line.next()).setpoint.setpoint_seq)
    assert seqs[0] < seqs[1]


async def test_a_lease_that_ran_out_brings_a_fresh_setpoint(tmp_path: Path) -> None:
    async with (
        app.serving(config(**STANDING), tmp_path) as addresses,
        site.line(addresses["grpc"], "Control") as line,
    ):
        await line.send(control_hello("site-a"))
        first = (await line.next()).setpoint
        await line.send(state(first.setpoint_seq, "EXPIRED"))
        while not (fresh := (await line.next()).setpoint).setpoint_seq:
            pass
    assert fresh.setpoint_seq > first.setpoint_seq


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ((control_hello("stranger"),), "PERMISSION_DENIED: site 'stranger'"),
        ((state(1, "APPLIED"),), "FAILED_PRECONDITION: the first message is the state"),
        ((control_hello("site-b"), state(1, "APPLIED")), "PERMISSION_DENIED: site 'site-a'"),
        ((control_hello("site-a"), control_hello("site-a")), "INVALID_ARGUMENT: hello comes once"),
        ((b"\xff",), "INVALID_ARGUMENT"),
    ],
)
async def test_a_control_stream_that_is_out_of_order_is_closed_with_the_reason(
    tmp_path: Path, messages: tuple[Any, ...], told: str
) -> None:
    async with (
        app.serving(config(), tmp_path) as addresses,
        site.line(addresses["grpc"], "Control") as line,
    ):
        await line.send(*messages)
        with pytest.raises(EOFError, match=told):
            await line.next()


# The program


async def test_health_says_serving(tmp_path: Path) -> None:
    async with (
        app.serving(config(), tmp_path) as addresses,
        grpc.aio.insecure_channel(addresses["grpc"]) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="heatpool.v1.TelemetryService")
        answer = await stub.Check(request)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:80", "nowhere", "127.0.0.1:"])
async def test_it_listens_on_this_machine_only(tmp_path: Path, address: str) -> None:
    listen = {"grpc": address, "http": "127.0.0.1:0"}
    with pytest.raises(ConfigError, match="serves this machine only"):
        async with app.serving(config(listen=listen), tmp_path):
            pass


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    async with app.serving(config(), tmp_path / "one") as addresses:
        listen = {"grpc": addresses["grpc"], "http": "127.0.0.1:0"}
        with pytest.raises(ExceptionGroup) as caught:
            async with app.serving(config(listen=listen), tmp_path / "two"):
                pass
    assert caught.group_contains(HeatpoolError, match="another process has it")
