"""MQTT payloads under the rules of points: exact numbers, named refusals, and nothing else."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.mqtt_newest import Message, Newest, packed, unpacked
from heatpool_agent.core.mqtt_payload import (
    MAX_PAYLOAD_BYTES,
    Absent,
    Figure,
    Refusal,
    document,
    figure,
    told_ns,
)
from heatpool_agent.core.mqtt_rules import Point, mistakes, path_steps
from heatpool_agent.core.reading import Node, Reading

S = 1_000_000_000
NOW_NS = 1_750_000_000 * S
NOW = Stamp(sensor="cdu", loop="rack", event_ns=NOW_NS, boot_ns=500 * S)


def point(**more: Any) -> Point:
    return msgspec.convert({"topic": "t", "quantity": "power", "unit": "W"} | more, Point)


def told(payload: bytes, **more: Any) -> Figure:
    return figure(document(payload), point(**more))


@pytest.mark.parametrize(
    ("payload", "rules", "value"),
    [
        (b"87.5", {}, 87.5),
        (b" -3e2 \n", {}, -300.0),
        (b'{"a": {"b": [1, {"c": 42}]}}', {"path": "a.b[1].c"}, 42.0),
        (b"[[1, 2], [3]]", {"path": "[1][0]"}, 3.0),
        (b"87.654", {"unit": "kW"}, 87_654.0),
        (b"235", {"unit": "%", "scale": 0.1, "quantity": "pump"}, 0.235),
        (b"85.383", {"unit": "L/min", "quantity": "volume_flow"}, 5.12298),
        (b"100", {"scale": 2.0, "offset": -50.0}, 150.0),
        (b'"87.5"', {"text": True}, 87.5),
        (b"87,5", {"text": True, "decimal": ","}, 87.5),
        (b'" -87,5 "', {"text": True, "decimal": ","}, -87.5),
        (b"87.5", {"text": True, "decimal": ","}, 87.5),
        (b"true", {"kind": "state", "unit": ""}, 1.0),
        (b"ON", {"kind": "state", "unit": "", "states": {"ON": 1.0, "OFF": 0.0}}, 1.0),
        (b'"OFF"', {"kind": "state", "unit": "", "states": {"ON": 1.0, "OFF": 0.0}}, 0.0),
    ],
)
def test_a_number_arrives_in_the_unit_of_its_name(
    payload: bytes, rules: dict[str, Any], value: float
) -> None:
    assert told(payload, **rules).value == value


@pytest.mark.parametrize(
    ("payload", "rules", "reason"),
    [
        (b"", {}, "no number"),
        (b"n/a", {}, "no number"),
        (b'"87.5"', {}, "text = true"),
        (b"87,5", {}, "decimal one"),
        (b"87,5", {"text": True}, "decimal one"),
        (b'"87.5"', {"text": True, "decimal": ","}, "no number"),
        (b"1.234,5", {"text": True, "decimal": ","}, "no number"),
        (b"87.5 kW", {"text": True}, "no number"),
        (b"1_000", {"text": True}, "no number"),
        ("८७".encode(), {"text": True}, "no number"),
        (b"true", {}, "yes or no"),
        (b"NaN", {}, "no number"),
        (b"[1]", {}, "a list is no number"),
        (b'{"a": 1}', {}, "an object is no number"),
        (b'{"a": 1}', {"path": "a.b"}, "has no a.b"),
        (b'{"a": [1]}', {"path": "a[1]"}, r"has no a\[1\]"),
        (b"1e400", {}, "beyond"),
        (b"1e999999999999", {}, "beyond"),
        (b"1" * 5000, {}, "beyond"),
        (b"0." + b"3" * 60_000, {}, "beyond"),
        (b"\xff\xfe", {}, "no text"),
        (b"[" * 60_000, {}, "nested"),
        (b"1" * (MAX_PAYLOAD_BYTES + 1), {}, "more than 65536 bytes"),
        (b"-1", {"unit": "Wh", "quantity": "energy", "kind": "counter"}, "below 0"),
        (b"1000", {"unit": "Wh", "quantity": "energy", "kind": "counter", "digits": 3}, "digits"),
    ],
)
def test_what_is_no_number_is_refused_with_its_reason(
    payload: bytes, rules: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refusal, match=reason):
        told(payload, **rules)


@pytest.mark.parametrize("payload", [b"null", b"-999", b"-999.0"])
def test_a_device_may_say_that_it_has_no_value(payload: bytes) -> None:
    with pytest.raises(Absent):
        told(payload, absent=[-999.0])


def test_a_counter_keeps_its_raw_count_exact() -> None:
    rules = {"quantity": "energy", "unit": "kWh", "kind": "counter", "decimals": 3, "digits": 9}
    newest = Newest([point(**rules)], node=Node.HEAT_METER)
    newest.take([Message(topic="t", payload=b"123456.789")], NOW)
    (reading,) = newest.readings(NOW)
    assert (reading.raw, reading.exponent, reading.modulus) == (123_456_789, 0, 10**9)
    assert (reading.quantity, reading.value) == ("energy_wh", 123_456_789.0)


@given(raw=st.integers(0, 10**12), decimals=st.integers(0, 6))
def test_no_count_loses_a_step_on_its_way(raw: int, decimals: int) -> None:
    whole, rest = divmod(raw, 10**decimals)
    payload = f"{whole}.{rest:0{decimals}d}" if decimals else f"{whole}"
    found = told(payload.encode(), quantity="energy", unit="MWh", kind="counter", decimals=decimals)
    assert found.raw == raw
    assert found.value == float(Fraction(raw * 10**6, 10**decimals))


@pytest.mark.parametrize(
    ("time", "at_ns"),
    [
        ("1750000000", NOW_NS),
        ("1750000000.25", NOW_NS + S // 4),
        ("1750000000123", NOW_NS + 123_000_000),
        ("1750000000123456", NOW_NS + 123_456_000),
        ("1750000000123456789", NOW_NS + 123_456_789),
        ('"2025-06-15T15:06:40Z"', NOW_NS),
        ('"2025-06-15T17:06:40.5+02:00"', NOW_NS + S // 2),
        ("null", None),
    ],
)
def test_a_payload_s_own_time_is_read_in_every_usual_form(time: str, at_ns: int | None) -> None:
    payload = f'{{"at": {time}, "v": 1}}'.encode()
    assert told_ns(document(payload), point(path="v", time="at")) == at_ns


@pytest.mark.parametrize(
    "time", ['"2025-06-15T15:06:40"', '"yesterday"', "-5", "1e30", "true", "[]", '"0001-01-01T00Z"']
)
def test_a_time_that_cannot_be_placed_is_refused(time: str) -> None:
    payload = f'{{"at": {time}, "v": 1}}'.encode()
    with pytest.raises(Refusal, match="no time since 1970"):
        told_ns(document(payload), point(path="v", time="at"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abt"), inner),
    max_leaves=8,
)
BYTES = st.binary(max_size=64) | JSON.map(json.dumps).map(str.encode)
POINTS = (
    point(),
    point(path="a", time="t", text=True),
    point(path="a[0].b", time="t", quantity="energy", unit="kWh", kind="counter", decimals=2),
    point(path="b", text=True, decimal=",", unit="GJ", quantity="heat", scale=1e300),
    point(path="a.b", kind="state", unit="", states={"x": 1.0}),
)


@given(
    payload=st.binary(max_size=64) | JSON.map(json.dumps).map(str.encode), flags=st.integers(0, 3)
)
def test_any_payload_gives_readings_or_reasons_and_nothing_else(payload: bytes, flags: int) -> None:
    newest = Newest(POINTS, node=Node.CDU, availability_topic="s", payload_offline="offline")
    message = Message(
        topic="t", payload=payload, is_retained=bool(flags & 1), is_dup=bool(flags & 2)
    )
    newest.take([message, message], NOW)
    found = newest.readings(NOW)
    assert all(abs(reading.value) < float("inf") for reading in found)
    assert len(found) + len(newest.reasons) <= len(POINTS)


@given(data=BYTES)
def test_any_tape_holds_messages_or_is_refused(data: bytes) -> None:
    try:
        found = unpacked(data)
    except WireError:
        return
    assert unpacked(packed(found)) == found


MESSAGES = st.builds(
    Message,
    topic=st.text(max_size=5),
    payload=st.binary(max_size=20),
    is_retained=st.booleans(),
    is_dup=st.booleans(),
    age_ns=st.integers(0, 2**62),
)


@given(messages=st.lists(MESSAGES, max_size=4))
def test_a_tape_gives_back_the_messages_that_came(messages: list[Message]) -> None:
    assert unpacked(packed(messages)) == messages


def timed(value: float, *, age_s: float, **more: Any) -> Message:
    at_s = (NOW_NS - round(age_s * S)) / S
    payload = json.dumps({"at": at_s, "v": value}).encode()
    return Message(topic="t", payload=payload, **more)


def held(*messages: Message, **more: Any) -> tuple[Reading, ...]:
    newest = Newest([point(path="v", time="at", **more)], node=Node.CDU)
    newest.take(messages, NOW)
    return newest.readings(NOW)


def test_a_retained_message_without_a_time_is_old_news() -> None:
    newest = Newest([point()], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5", is_retained=True)], NOW)
    assert newest.readings(NOW) == ()
    newest.take([Message(topic="t", payload=b"6")], NOW)
    assert [reading.value for reading in newest.readings(NOW)] == [6.0]


def test_a_retained_message_with_a_fresh_time_counts_from_that_time() -> None:
    (reading,) = held(timed(5.0, age_s=20.0, is_retained=True))
    assert (reading.event_ns, reading.boot_ns) == (NOW_NS - 20 * S, NOW.boot_ns - 20 * S)


@pytest.mark.parametrize("age_s", [86_400.0, 61.0, -6.0])
def test_yesterday_retained_is_no_reading_and_neither_is_tomorrow(age_s: float) -> None:
    assert held(timed(5.0, age_s=age_s, is_retained=True)) == ()


def test_a_live_message_that_is_old_by_its_own_word_is_named() -> None:
    newest = Newest([point(path="v", time="at")], node=Node.CDU)
    newest.take([timed(5.0, age_s=3600.0)], NOW)
    assert newest.readings(NOW) == ()
    assert newest.reasons == {"mqtt/t#v": "its own time is 3600 s old, compare clocks"}


def test_a_clock_ahead_of_ours_leaves_the_time_of_arrival() -> None:
    (reading,) = held(timed(5.0, age_s=-3600.0, age_ns=2 * S))
    assert (reading.event_ns, reading.boot_ns) == (NOW_NS - 2 * S, NOW.boot_ns - 2 * S)


@pytest.mark.parametrize(("after_s", "count"), [(0, 1), (60, 1), (61, 0)])
def test_a_value_holds_for_its_age_and_not_longer(after_s: int, count: int) -> None:
    newest = Newest([point(max_age_s=60.0)], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5")], NOW)
    assert len(newest.readings(replace(NOW, boot_ns=NOW.boot_ns + after_s * S))) == count


def test_a_value_says_for_how_long_it_stands() -> None:
    newest = Newest([point(max_age_s=45.0)], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5")], NOW)
    assert [reading.holds_s for reading in newest.readings(NOW)] == [45.0]


def test_an_older_message_after_a_newer_one_changes_nothing() -> None:
    (reading,) = held(timed(7.0, age_s=1.0), timed(6.0, age_s=2.0), timed(8.0, age_s=1.0))
    assert reading.value == 7.0


def test_a_duplicate_does_not_make_a_value_younger() -> None:
    newest = Newest([point()], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5", age_ns=30 * S)], NOW)
    newest.take([Message(topic="t", payload=b"5", is_dup=True)], NOW)
    (reading,) = newest.readings(NOW)
    assert reading.boot_ns == NOW.boot_ns - 30 * S
    assert newest.ignored_count == 1


def test_a_message_that_was_lost_once_counts_when_it_is_sent_again() -> None:
    newest = Newest([point()], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5")], NOW)
    newest.take([Message(topic="t", payload=b"6", is_dup=True)], NOW)
    assert [reading.value for reading in newest.readings(NOW)] == [6.0]


def test_a_payload_without_a_number_takes_the_value_away_and_is_named() -> None:
    newest = Newest([point()], node=Node.CDU)
    newest.take([Message(topic="t", payload=b"5"), Message(topic="t", payload=b"n/a")], NOW)
    assert newest.readings(NOW) == ()
    assert newest.reasons == {"mqtt/t": '"n/a" is no number'}
    assert newest.refused_count == 1
    newest.take([Message(topic="t", payload=b"6")], NOW)
    assert newest.reasons == {}


def test_the_last_will_ends_what_was_said_and_speaking_ends_the_will() -> None:
    newest = Newest([point()], node=Node.CDU, availability_topic="s", payload_offline="offline")
    newest.take([Message(topic="t", payload=b"5"), Message(topic="s", payload=b"offline")], NOW)
    assert newest.is_offline
    assert newest.readings(NOW) == ()
    newest.take([Message(topic="t", payload=b"6", is_retained=True)], NOW)
    assert newest.is_offline
    newest.take([Message(topic="t", payload=b"7")], NOW)
    assert not newest.is_offline
    assert [reading.value for reading in newest.readings(NOW)] == [7.0]


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("[2][0]", (2, 0)),
        ("ä-1", ("ä-1",)),
    ],
)
def test_a_path_is_keys_and_indexes(path: str, steps: tuple[str | int, ...]) -> None:
    assert path_steps(path) == steps


@pytest.mark.parametrize("path", [".", ".a", "a.", "a..b", "a[", "a[x]", "a[0]b", "a]", "[-1]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        path_steps(path)


def test_all_mistakes_are_told_at_once_with_their_points() -> None:
    found = "\n".join(
        mistakes(
            [
                point(topic="a/+/b", path="x..y"),
                point(topic="", unit="parsec", scale=0.0),
                point(quantity="temperature", unit="degC"),
                point(topic="p", pipe="hot", quantity="temperature"),
                point(topic="d", decimal=",", states={"on": 1.0}, digits=4, quantity="d"),
                point(topic="j", quantity="energy", unit="GJ", kind="counter"),
                point(topic="o", quantity="o", scale=float("nan")),
                point(topic="q", quantity="q"),
                point(topic="q", quantity="q"),
            ]
        )
    )
    assert found.splitlines() == [
        "point[0] (power): topic 'a/+/b' has a wildcard, which would mix devices; name one topic",
        "point[0] (power): path: 'x..y' is no path; write it as a.b[0].c",
        "point[1] (power): topic is empty",
        found.splitlines()[3],
        "point[1] (power): scale and offset are numbers, and a scale of 0 would leave the offset "
        "alone",
        'point[2] (temperature): a temperature of a pipe needs quantity "temperature" and pipe '
        '"hot" or "cold"',
        "point[3] (temperature): a pipe's temperature is in degC, not 'W'",
        'point[4] (d): decimal "," is for numbers as text; set text = true',
        'point[4] (d): states are numbers of words; the kind is not "state"',
        'point[4] (d): digits and decimals tell how a counter counts; the kind is not "counter"',
        "point[5] (energy): a counter has a unit and scale that make a power of ten, and no offset",
        "point[6] (o): scale and offset are numbers, and a scale of 0 would leave the offset alone",
        "point: q is there twice; each place is one number",
        "point: power is there twice; take one, or give them nodes",
        "point: q is there twice; take one, or give them nodes",
    ]
    assert found.splitlines()[3].startswith("point[1] (power): unit 'parsec' is not known; known:")


def test_a_sensor_without_points_is_a_mistake() -> None:
    assert list(mistakes([])) == ["point: is missing, list at least one"]
