"""An agent of the last release: it knows the messages as they were frozen, and no field since."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from integration import site_client as site
from integration.test_ingest import config, eventually, site_a

from heatpool.v1 import control_pb2
from heatpool_aggregator import app

RELEASED = Path(__file__).resolve().parents[2] / "protos" / "released.binpb"
SITE_A = "site-a"
T, B = f"{SITE_A}-t", f"{SITE_A}-b"


@pytest.fixture(scope="module")
def released() -> Mapping[str, Any]:
    """Message classes of the last release, by full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(RELEASED.read_bytes())
    known = descriptor_pool.DescriptorPool()
    for file in files.file:
        known.Add(file)
    names = [f"{file.package}.{one.name}" for file in files.file for one in file.message_type]
    return {
        name: message_factory.GetMessageClass(known.FindMessageTypeByName(name)) for name in names
    }


def as_released(message: Any, released: Mapping[str, Any]) -> bytes:
    """The message as that release would have written it: what it did not know is not there."""
    old = released[message.DESCRIPTOR.full_name].FromString(message.SerializeToString())
    old.DiscardUnknownFields()
    data: bytes = old.SerializeToString()
    return data


async def test_its_batches_are_acked_and_shown(tmp_path: Path, released: Mapping[str, Any]) -> None:
    now_ns = time.time_ns()
    sent = [
        site.hello(),
        site.batch(1, now_ns, 1000),
        site.batch(2, now_ns + 1, 2500),
        site.registers(1, now_ns - 5 * 10**9, 100, 150, 700),
    ]
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        line._response = released["heatpool.v1.TelemetryServiceStreamResponse"]
        await line.send(*(as_released(message, released) for message in sent))
        await line.acked(T, 2)
        await line.acked(B, 1)
        shown = site_a(
            await eventually(addresses, "/v1/sites", lambda it: site_a(it)["energy_wh"] == 600)
        )
    assert line.seen[0].hello_reply.limits.unacked_batches_count > 0
    assert shown["heat_rate_w"] == 2500.0
    # What it acts on stands in fields that it knows: one watermark for each of its two queues.
    watermarks = {(s.boot_id, s.durable_seq) for one in line.seen for s in one.ack.spools}
    assert {(T, 2), (B, 1)} <= watermarks


async def test_it_hears_its_setpoint_and_reports_on_it(
    tmp_path: Path, released: Mapping[str, Any]
) -> None:
    wish = {"site_id": SITE_A, "heat_rate_w": 4000, "lease_s": 30, "reason": "swim"}
    hello = control_pb2.ControlHello(site_ids=[SITE_A], sent_ns=time.time_ns())
    async with (
        app.serving(config(setpoint=[wish]), tmp_path) as addresses,
        site.line(addresses["grpc"]) as telemetry,
        site.line(addresses["grpc"], "Control") as line,
    ):
        await telemetry.send(as_released(site.hello(), released))
        line._response = released["heatpool.v1.ControlServiceStreamResponse"]
        await line.send(as_released(control_pb2.ControlServiceStreamRequest(hello=hello), released))
        found = (await line.next()).setpoint
        assert (found.heat_rate_w, found.lease_s, found.reason) == (4000.0, 30.0, "swim")
        told = control_pb2.SetpointStateReport(
            site_id=SITE_A,
            setpoint_seq=found.setpoint_seq,
            state=control_pb2.SETPOINT_STATE_APPLIED,
            event_ns=time.time_ns(),
            applied_heat_rate_w=3900.0,
        )
        report = control_pb2.ControlServiceStreamRequest(state=told)
        await line.send(as_released(report, released))
        shown = await eventually(
            addresses,
            "/v1/sites",
            lambda it: (site_a(it)["setpoint"] or {}).get("state") == "applied",
        )
    assert site_a(shown)["setpoint"]["applied_heat_rate_w"] == 3900.0
