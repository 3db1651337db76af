"""The MQTT driver against mosquitto, and against peers that are no broker."""

import asyncio
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from integration.mqtt_rig import (
    CONNACK,
    NOW_NS,
    SUBACK,
    Clock,
    S,
    cancelled_while_connecting,
    peer,
    sensor,
    subscribed,
    values,
)
from ports.benches.mqtt import Mosquitto
from turns import cancelled, turned

from heatpool.errors import SensorGone
from heatpool_agent.sensors.mqtt import link

Say = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto(tmp_path).running() as running:
        yield running


@pytest.fixture
async def say(broker: Mosquitto) -> AsyncIterator[Say]:
    """Publishes with QoS 1, and knows that the broker has it when this returns."""
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:

        async def publish(topic: str, payload: str, *, retain: bool = False) -> None:
            await client.publish(topic, payload, qos=1, retain=retain)

        yield publish


async def test_a_published_number_is_read_with_the_time_of_its_coming(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    async with sensor(broker.port, clock, loop="rack") as bound:
        probe = await subscribed(bound)
        await say("t", "42.5")
        assert await probe == ["mqtt/t"]
        clock.ns += 30 * S
        (reading,) = await bound.read()
    assert (reading.quantity, reading.value, reading.loop) == ("power_w", 42.5, "rack")
    assert (reading.event_ns, reading.boot_ns) == (NOW_NS, 1000 * S)


async def test_only_the_newest_of_many_is_kept_and_the_others_are_counted(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    async with sensor(broker.port, clock) as bound:
        probe = await subscribed(bound)
        await say("t", "1")
        await probe
        for value in range(500):
            await say("t", str(value))
        async with asyncio.timeout(60):
            while bound._link.overwritten_count < 499:  # noqa: ASYNC110  # the port tells no event
                await asyncio.sleep(0.01)
        assert values(await bound.read()) == {"power_w": 499.0}
        assert bound._link.overwritten_count == 499


async def test_yesterday_s_retained_message_is_no_reading_and_today_s_is(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    point = {"topic": "t", "path": "v", "time": "at", "quantity": "power", "unit": "W"}
    old, fresh = ({"v": 5, "at": (NOW_NS // S) - age_s} for age_s in (86_400, 10))
    await say("t", json.dumps(old), retain=True)
    async with sensor(broker.port, clock, point=[point], timeout_s=1.0) as bound:
        with pytest.raises(SensorGone, match="86400 s old"):
            await bound.read()
    await say("t", json.dumps(fresh), retain=True)
    async with sensor(broker.port, clock, point=[point], timeout_s=5.0) as bound:
        (reading,) = await bound.read()
    assert reading.event_ns == NOW_NS - 10 * S


async def test_nothing_but_retained_messages_without_a_time_is_told(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    await say("t", "5", retain=True)
    async with sensor(broker.port, clock, timeout_s=1.0) as bound:
        with pytest.raises(SensorGone, match="keeps older messages") as caught:
            await bound.probe()
    assert "mosquitto_sub" in caught.value.fix


async def test_silence_is_gone_after_the_age_of_the_last_message(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    async with sensor(broker.port, clock, timeout_s=1.5) as bound:
        probe = await subscribed(bound)
        await say("t", "5")
        await probe
        clock.ns += 61 * S
        with pytest.raises(SensorGone, match=r"no message came in 1\.5 s") as caught:
            await bound.read()
        assert "publishes" in caught.value.fix


async def test_a_payload_without_a_number_is_named_once_while_it_lasts(
    broker: Mosquitto, say: Say, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with sensor(broker.port, clock) as bound:
        probe = await subscribed(bound)
        await say("t", "5")
        await probe
        for _ in range(3):
            await say("t", "n/a")
            await turned(0.2)
            with pytest.raises(SensorGone, match=r'mqtt/t: "n/a" is no number'):
                await bound.read()
        await say("t", "6")
        await turned(0.2)
        assert values(await bound.read()) == {"power_w": 6.0}
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == ["mqtt.refused"]


async def test_a_broker_that_died_is_told_and_found_again(
    broker: Mosquitto, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with sensor(broker.port, clock) as bound, aiomqtt.Client("127.0.0.1", broker.port) as one:
        probe = await subscribed(bound)
        await one.publish("t", "5", qos=1)
        await probe
        await broker.kill()
        with pytest.raises(SensorGone, match="refused") as caught:
            await bound.read()
        assert caught.value.fix
        await broker.start()
        probe = await subscribed(bound)
        async with aiomqtt.Client("127.0.0.1", broker.port) as two:
            await two.publish("t", "6", qos=1)
            assert await probe == ["mqtt/t"]
        assert values(await bound.read()) == {"power_w": 6.0}
    assert [
        r for r in caplog.records if r.levelno >= logging.WARNING and "heatpool" in r.name
    ] == []


async def test_a_last_will_from_before_the_broker_died_is_forgotten(
    broker: Mosquitto, clock: Clock
) -> None:
    async with sensor(broker.port, clock, availability_topic="s") as bound:
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            probe = await subscribed(bound)
            await client.publish("t", "5", qos=1)
            await probe
            await client.publish("s", "offline", qos=1)
            await turned(0.2)
        await broker.kill()
        await broker.start()
        assert values(await bound.read()) == {"power_w": 5.0}


async def test_a_read_is_cancelled_at_once_and_harms_no_later_one(
    broker: Mosquitto, say: Say, clock: Clock
) -> None:
    async with sensor(broker.port, clock) as bound:
        probe = await subscribed(bound)
        await cancelled(probe)
        probe = await subscribed(bound)
        await say("t", "5")
        assert await probe == ["mqtt/t"]


async def test_a_frozen_broker_holds_nobody(broker: Mosquitto, clock: Clock) -> None:
    broker.freeze()
    async with sensor(broker.port, clock, timeout_s=0.3) as bound:
        with pytest.raises(SensorGone, match=r"no connection in 0\.3 s"):
            await bound.read()
        await cancelled_while_connecting(bound)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x02\x00",
        b"\x20\x02\x00\x00\x30\x03\x00\x01\xff",
        b"\x20\x02\x00\x00\x30\x04\x00\x09t1",
        b"\xff" * 64,
        bytes(64),
    ],
)
async def test_a_peer_that_is_no_broker_is_gone_with_a_cure(clock: Clock, answer: bytes) -> None:
    async with peer(answer) as port, sensor(port, clock, timeout_s=0.3) as bound:
        with pytest.raises(SensorGone) as caught:
            await bound.read()
        assert caught.value.fix


async def test_a_refused_subscription_is_named(clock: Clock) -> None:
    async with peer(CONNACK, b"\x90\x03\x00\x01\x80") as port, sensor(port, clock) as bound:
        with pytest.raises(SensorGone, match="may not subscribe to t") as caught:
            await bound.read()
    assert "access list" in caught.value.fix


async def test_what_a_broker_kept_does_not_replace_what_was_said_since(clock: Clock) -> None:
    said = b"\x30\x04\x00\x01t7" + b"\x31\x04\x00\x01t5" + b"\x30\x04\x00\x01u8"
    points = [
        {"topic": "t", "quantity": "power", "unit": "W"},
        {"topic": "u", "quantity": "other", "unit": "W"},
    ]
    both = b"\x90\x04\x00\x01\x01\x01"
    async with peer(CONNACK, both + said) as port, sensor(port, clock, point=points) as bound:
        assert await bound.probe() == ["mqtt/t", "mqtt/u"]
        assert values(await bound.read()) == {"power_w": 7.0, "other_w": 8.0}


async def test_a_stream_that_says_nothing_of_ours_is_begun_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = {"topic": "t", "quantity": "power", "unit": "W", "max_age_s": 0.05}
    stranger = b"\x30\x04\x00\x01u8"
    async with (
        peer(CONNACK, SUBACK + stranger) as port,
        sensor(port, clock, point=[point]) as bound,
    ):
        await bound._link.connect()
        first = bound._link._client
        await turned(0.1)
        await bound._link.connect()
        assert bound._link._client is first
        monkeypatch.setattr(link, "DEAF_S", 0.0)
        await bound._link.connect()
        assert bound._link._client is not first
        assert bound._link.is_up


@pytest.mark.parametrize(("kind", "later_s"), [(b"\x3a", 0), (b"\x32", 30)])
async def test_only_the_dup_flag_tells_a_duplicate_from_the_same_value_again(
    clock: Clock, kind: bytes, later_s: int
) -> None:
    body, more = b"\x06\x00\x01t\x00\x097", asyncio.Event()
    answers = CONNACK, SUBACK + b"\x32" + body, kind + body
    async with peer(*answers, more=more) as port, sensor(port, clock) as bound:
        await bound.probe()
        clock.ns += 30 * S
        more.set()
        await turned(0.2)
        (reading,) = await bound.read()
    assert reading.boot_ns == (1000 + later_s) * S


async def test_a_message_of_any_length_costs_little_memory_and_the_next_one_counts(
    clock: Clock,
) -> None:
    size, more = 32 << 20, asyncio.Event()
    # Of QoS 0 to topic "t": its length in seven bits a byte, then `size` digits.
    length = bytes((size + 3) >> shift & 0x7F | 0x80 for shift in (0, 7, 14))
    huge = b"\x30" + length + bytes(((size + 3) >> 21,)) + b"\x00\x01t" + b"1" * size
    async with peer(CONNACK, SUBACK + huge, b"\x30\x05\x00\x01t42", more=more) as port:
        async with sensor(port, clock, timeout_s=40.0) as bound:
            tracemalloc.start()
            try:
                with pytest.raises(SensorGone, match="more than 65536 bytes"):
                    await bound.read()
                most_bytes = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            # The sender's own copies are two of these; the library's would be the third and more.
            assert most_bytes < 2.5 * size
            more.set()
            assert values(await bound.read()) == {"power_w": 42.0}
