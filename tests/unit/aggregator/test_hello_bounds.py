"""A hello is read in the handler of a stream, while all others wait: what takes long is refused."""

from collections.abc import Callable

import pytest

from heatpool.errors import WireError
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_aggregator.wire import telemetry as wire


def hello(change: Callable[[pb.HelloSite], object]) -> bytes:
    site = pb.HelloSite(site_id="e1")
    change(site)
    said = pb.Hello(wire_version=1, agent_version="1", sites=[site])
    return pb.TelemetryServiceStreamRequest(hello=said).SerializeToString()


def schemas(count: int, channels_count: int) -> Callable[[pb.HelloSite], object]:
    channels = [pb.Channel()] * channels_count
    one = pb.Schema(schema_id=1, boot_id="b", channels=channels)
    return lambda site: site.schemas.extend([one] * count)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (schemas(1, wire.COLUMNS_LIMIT + 1), "channels"),
        (schemas(2, wire.COLUMNS_LIMIT // 2 + 1), "channels"),
        (schemas(wire.SCHEMAS_LIMIT + 1, 0), "schemas"),
        (lambda site: site.capability.loop_ids.extend(["l"] * 257), "257 loops"),
        (lambda site: site.spools.extend([pb.SpoolState()] * 3), "3 spools"),
        (lambda site: site.capability.loop_ids.append("\x1b[2J"), "can be printed"),
        (lambda site: site.capability.loop_ids.append("l" * 65), "1 to 64"),
    ],
)
def test_a_hello_that_says_too_much_is_refused(
    change: Callable[[pb.HelloSite], object], told: str
) -> None:
    with pytest.raises(WireError, match=told):
        wire.hello_from_bytes(hello(change))


@pytest.mark.parametrize("name", ["e1\n", "e\x1b[2J", "e\u202e1", "e\x9b1", ""])
def test_a_site_is_named_by_signs_that_can_be_printed(name: str) -> None:
    said = pb.Hello(wire_version=1, sites=[pb.HelloSite(site_id=name)])
    with pytest.raises(WireError, match="site_id"):
        wire.hello_from_bytes(pb.TelemetryServiceStreamRequest(hello=said).SerializeToString())


def test_as_much_as_a_gateway_of_many_sites_says_is_read() -> None:
    assert len(wire.hello_from_bytes(hello(schemas(256, 256))).sites[0].schemas) == 256
