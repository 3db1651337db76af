"""Rules of a map beyond its words: plans that are cut, orders that are guessed, published cases."""

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heatpool_agent
from heatpool_agent.core.decode import Stamp, map_readings
from heatpool_agent.core.device_map import (
    Block,
    DeviceMap,
    billing_flaws,
    holds,
    mistakes,
    pieces,
    requests,
    span,
    within,
)
from heatpool_agent.core.endpoint import Serial, line_address, silence_s
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.torn import guarded, is_settled
from heatpool_agent.core.words import WordOrder, WordType, text_of, width, words_of

MAPS = Path(heatpool_agent.__file__).parent / "sensors" / "maps"
STAMP = Stamp(sensor="s", loop="rack", event_ns=1_700_000_000_000_000_000, boot_ns=5)
TYPES: tuple[WordType, ...] = get_args(WordType)
ORDERS: tuple[WordOrder, ...] = get_args(WordOrder)


def _map(points: Sequence[dict[str, Any]], **more: Any) -> DeviceMap:
    plain = [
        {"quantity": f"q{i}", "function": 4, "type": "uint16", "address": i} | p
        for i, p in enumerate(points)
    ]
    return msgspec.convert({"name": "made-up", "point": plain} | more, DeviceMap)


def _laid_out(kinds: Sequence[tuple[WordType, int]]) -> DeviceMap:
    """Points one behind the other, each after a hole of so many words."""
    points: list[dict[str, Any]] = []
    at = 0
    for kind, hole in kinds:
        at += hole
        points.append({"type": kind, "address": at})
        at += width(kind)
    return _map(points)


layouts = st.lists(
    st.tuples(st.sampled_from(TYPES), st.integers(0, 12)), min_size=1, max_size=30
).map(_laid_out)


@given(device=layouts, data=st.data())
def test_cutting_a_refused_block_loses_no_point_and_ends(
    device: DeviceMap, data: st.DataObject
) -> None:
    there = data.draw(st.sets(st.sampled_from([span(p, device).address for p in device.point])))
    plan, answered, asked = list(requests(device)), set[int](), 0
    while plan:
        block, asked = plan.pop(), asked + 1
        inside = [span(p, device) for p in device.point if holds(block, p, device)]
        has_holes = sum(own.count for own in inside) < block.count
        if all(own.address in there for own in inside) and not has_holes:
            answered |= {own.address for own in inside}
            continue
        plan += pieces(block, device)
        assert asked < 200
    assert answered == there


@given(device=layouts)
def test_a_part_of_a_block_lies_within_it_and_holds_its_points(device: DeviceMap) -> None:
    for block in requests(device):
        some = [p for p in device.point if holds(block, p, device)][1:]
        part = within(block, some, device)
        assert (part is None) == (not some)
        if part is not None:
            assert block.address <= part.address and part.end <= block.end
            assert all(holds(part, point, device) for point in some)


@given(
    words=st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4),
    kind=st.sampled_from(TYPES),
    order=st.sampled_from(ORDERS),
    scale=st.sampled_from([1.0, 0.001, 1e9, -1.0]),
    unit=st.sampled_from(["", "kWh", "degC", "%"]),
)
def test_any_words_decode_to_finite_numbers_or_nothing(
    words: list[int], kind: WordType, order: WordOrder, scale: float, unit: str
) -> None:
    device = _map([{"type": kind, "scale": scale, "unit": unit, "address": 0}], word_order=order)
    readings = map_readings(device, {Block(4, 0, 4): words}, STAMP)
    assert all(math.isfinite(reading.value) for reading in readings)
    assert likely_word_order(device, {Block(4, 0, 4): words}) in (None, *ORDERS)


def _answers(
    device: DeviceMap, values: Sequence[float], order: WordOrder
) -> dict[Block, list[int]]:
    answers: dict[Block, list[int]] = {}
    for point, value in zip(device.point, values, strict=True):
        number = value if point.type.startswith("float") else round(value)
        answers[span(point, device)] = list(words_of(number, point.type, order))
    return answers


@pytest.mark.parametrize("spoken", ORDERS)
@pytest.mark.parametrize("told", ORDERS)
def test_absurd_values_tell_the_order_that_is_spoken(told: WordOrder, spoken: WordOrder) -> None:
    device = _map(
        [
            {"type": "float32", "unit": "degC", "address": 0},
            {"type": "float32", "unit": "m3/h", "address": 2},
            {"type": "float32", "unit": "kW", "address": 4},
        ],
        word_order=told,
    )
    seen = _answers(device, [45.12, 5.123, 87.654], spoken)
    assert likely_word_order(device, seen) == (None if told == spoken else spoken)


def test_whole_numbers_tell_their_order_too() -> None:
    device = _map([{"type": "uint32", "unit": "L/h", "address": 0}])
    assert likely_word_order(device, _answers(device, [5123], "CDAB")) == "CDAB"


def test_single_words_and_zeros_tell_no_order() -> None:
    device = _map([{"unit": "degC", "address": 0}, {"type": "int32", "address": 1}])
    assert likely_word_order(device, _answers(device, [60_000, 0], "CDAB")) is None


def test_an_absent_mark_may_be_told_once_for_all_points_of_a_type() -> None:
    device = _map([{}, {}, {"type": "int16"}], absent={"uint16": [0xFFFF]})
    readings = map_readings(device, {Block(4, 0, 3): [0xFFFF, 7, 0xFFFF]}, STAMP)
    assert [(reading.quantity, reading.value) for reading in readings] == [("q1", 7), ("q2", -1)]


def test_an_uncertainty_is_told_in_the_unit_of_the_reading() -> None:
    device = _map([{"unit": "kW", "u": 0.5}, {"u": 2.0}])
    readings = map_readings(device, {Block(4, 0, 2): [80, 1]}, STAMP)
    assert [reading.u for reading in readings] == [500.0, 2.0]


def test_a_point_may_sit_elsewhere_than_its_device() -> None:
    points = [{"node": "pdu", "loop": "row-7"}, {"sensor_side": "hot"}, {"circuit": "primary"}]
    device = _map(points, sensor_side="cold")
    readings = map_readings(device, {Block(4, 0, 3): [1, 2, 3]}, STAMP, primary_loop="site")
    assert [(r.node.value, r.loop, r.sensor_side) for r in readings] == [
        ("pdu", "row-7", "cold"),
        ("cdu", "rack", "hot"),
        ("cdu", "site", "cold"),
    ]


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ({"circuit": "primary", "loop": "row"}, "take one"),
        ({"kind": "counter", "unit": "kWh", "digits": 8}, "8 digits do not fit uint16"),
        ({"digits": 4}, 'the kind is not "counter"'),
        ({"quantity": "meter_number", "scale": 0.1}, "a whole number without"),
        ({"quantity": "meter_number", "type": "float32"}, "a whole number without"),
        ({"quantity": "meter_number", "type": "uint32", "text_words": 4}, "text comes in uint16"),
        ({"quantity": "name", "text_words": 4}, "every other point is a number"),
        ({"quantity": "meter_number", "text_words": 12}, "more than max_words, 10"),
        ({"address": 65_530, "quantity": "meter_number", "text_words": 9}, "outside the device"),
    ],
)
def test_a_point_that_contradicts_itself_is_a_mistake(point: dict[str, Any], told: str) -> None:
    assert told in "\n".join(mistakes(_map([point], max_words=10)))


def test_a_quantity_may_be_there_once_for_each_side_and_place() -> None:
    twice = [{"quantity": "heat_power", "circuit": side} for side in ("primary", "secondary")]
    assert mistakes(_map(twice)) == ()
    assert mistakes(_map([{"quantity": "power", "node": n} for n in ("pdu", "cdu")])) == ()
    assert "is there twice" in mistakes(_map([{"quantity": "power"}] * 2))[0]


def test_text_comes_two_characters_to_a_word() -> None:
    assert text_of([0x5344, 0x5A2D, 0x3600], "ABCD") == "SDZ-6"
    assert text_of([0x4453, 0x2D5A, 0x0036], "BADC") == "SDZ-6"
    assert text_of([0, 0x2020, 0xFFFF], "ABCD") == ""


def test_a_meter_that_names_itself_needs_no_name_from_the_settings() -> None:
    energy = {"quantity": "energy", "kind": "counter", "type": "uint32", "unit": "kWh"}
    number = {"quantity": "meter_number", "address": 9}
    assert billing_flaws(_map([energy, number]), meter_id="") == []
    assert len(billing_flaws(_map([{}]), meter_id="")) == 2


def test_only_numbers_that_can_tear_are_looked_at_twice() -> None:
    points = [
        {"type": "uint32", "kind": "counter", "unit": "Wh", "address": 0},
        {"type": "int32", "address": 2},
        {"kind": "counter", "unit": "Wh", "address": 4},
    ]
    names = {
        torn: [point.quantity for point in guarded(_map(points, torn=torn))]
        for torn in ("counters", "reread", "never")
    }
    assert names == {"counters": ["q0"], "reread": ["q0", "q1"], "never": []}


@given(count=st.integers(0, 2**32 - 2**15), step=st.integers(0, 2**15 - 1))
def test_a_slow_counters_true_step_is_settled_and_its_torn_halves_are_not(
    count: int, step: int
) -> None:
    device = _map([{"type": "uint32", "kind": "counter", "unit": "Wh", "address": 0}])
    point = device.point[0]
    before, after = (words_of(n, "uint32", "ABCD") for n in (count, count + step))
    assert is_settled(point, device, [before, after])
    if before[0] != after[0]:
        assert not is_settled(point, device, [before, (after[0], before[1])])
        assert not is_settled(point, device, [before, (before[0], after[1])])


@pytest.mark.parametrize(
    ("baud", "parity", "stop", "expected_s"),
    [
        (9600, "even", 1, 3.5 * 11 / 9600),
        (19_200, "none", 1, 3.5 * 10 / 19_200),
        (38_400, "odd", 1, 0.00175),
    ],
)
def test_the_silence_between_frames_is_the_standards(
    baud: int, parity: Any, stop: int, expected_s: float
) -> None:
    serial = Serial(baud=baud, parity=parity, stop=stop)
    assert silence_s(serial) == pytest.approx(expected_s)


def test_a_url_is_one_line() -> None:
    one = line_address("rtu:/dev/ttyUSB0?baud=9600&parity=even&stop=1")
    assert one == line_address("rtu:/dev/ttyUSB0?stop=1&parity=even&baud=9600")
    assert line_address("rtu+tcp://[::1]:502").host == "::1"
    assert line_address("tcp://h:502") != line_address("rtu+tcp://h:502")


def test_the_format_of_a_map_has_a_schema_that_shipped_maps_were_written_by() -> None:
    schema = msgspec.json.schema(DeviceMap)
    known = set(schema["$defs"]["DeviceMap"]["properties"])
    assert {"name", "point", "source", "absent", "torn", "setpoint"} <= known
    for file in MAPS.glob("*.toml"):
        assert set(tomllib.loads(file.read_text(encoding="utf-8"))) <= known


@pytest.mark.realdata
def test_the_published_unit_is_read_in_one_request(realdata: Path) -> None:
    path = realdata / "04_modbus" / "densewatch_cdu" / "profiles" / "example.json"
    listed = json.loads(path.read_text(encoding="utf-8"))["registers"]
    device = _map([{"quantity": r["field"], "address": r["addr"]} for r in listed])
    assert mistakes(device) == ()
    assert requests(device) == (Block(4, 0, 13),)


def _telegraf(case: Path) -> DeviceMap:
    """A published configuration as a map of ours: its fields, by their names."""
    tree = tomllib.loads((case / "telegraf.conf").read_text(encoding="utf-8"))
    functions = {"holding": 3, "input": 4}
    points = [
        {
            "quantity": "".join(c if c.isalnum() else "_" for c in f["name"].lower()),
            "function": functions[request["register"]],
            "address": f["address"],
            "type": f["type"].lower(),
        }
        for request in tree["inputs"]["modbus"][0]["request"]
        for f in request["fields"]
    ]
    return _map(points)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name",
    [
        "duplicate_fields_different_registers",
        "duplicate_fields_same_slave_and_request",
        "duplicate_fields_same_tags",
    ],
)
def test_published_fields_that_are_there_twice_are_mistakes(realdata: Path, name: str) -> None:
    device = _telegraf(realdata / "04_modbus" / "telegraf_cases" / name)
    assert "is there twice" in "\n".join(mistakes(device))


@pytest.mark.realdata
def test_published_fields_that_are_too_short_are_mistakes(realdata: Path) -> None:
    case = realdata / "04_modbus" / "telegraf_cases" / "field_request_too_short_issue_13482"
    tree = tomllib.loads((case / "telegraf.conf").read_text(encoding="utf-8"))
    (data,) = tree["inputs"]["modbus"][0]["holding_registers"]
    # A width is the type's in our format, so two addresses cannot be told for eight bytes; what
    # the writer meant, a point beside it, overlaps.
    points = [{"type": data["data_type"].lower(), "address": data["address"][0]}]
    points.append({"address": data["address"][0] + len(data["address"])})
    assert "overlap" in mistakes(_map(points))[0]


@pytest.mark.realdata
def test_published_fields_beyond_one_answer_are_split(realdata: Path) -> None:
    device = _telegraf(realdata / "04_modbus" / "telegraf_cases" / "overflow_issue_14387")
    blocks = requests(device)
    assert sum(block.count for block in blocks) > 125
    assert len(blocks) == 2
    assert all(block.count <= 125 for block in blocks)
    assert all(any(holds(b, p, device) for b in blocks) for p in device.point)


@pytest.mark.parametrize("pairs_count", [62, 63, 125])
def test_pairs_are_split_between_numbers(pairs_count: int) -> None:
    device = _map([{"type": "uint32", "address": 2 * i} for i in range(pairs_count)])
    blocks = requests(device)
    assert [block.count for block in blocks] == [
        min(124, 2 * pairs_count - at) for at in range(0, 2 * pairs_count, 124)
    ]


def test_a_shipped_map_that_was_copied_from_a_document_names_it() -> None:
    trees = [tomllib.loads(f.read_text(encoding="utf-8")) for f in sorted(MAPS.glob("*.toml"))]
    nameless = [t["name"] for t in trees if t.get("verified") != "sim" and not t.get("source")]
    assert not nameless
