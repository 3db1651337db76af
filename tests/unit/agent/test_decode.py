"""Words and telegrams become readings in our units; a map's mistakes are all found at once."""

import itertools
import re
import struct
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heatpool_agent
from heatpool_agent.core.decode import Stamp, heat_readings, map_readings
from heatpool_agent.core.device_map import (
    MAX_HOLE,
    Block,
    DeviceMap,
    mistakes,
    requests,
    wire_address,
)
from heatpool_agent.core.mbus import HeatView
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.core.setpoint_words import block_span, setpoint_seen, setpoint_words
from heatpool_agent.core.words import WordOrder, WordType, number_of, width, words_of

STAMP = Stamp(sensor="cdu", loop="rack", event_ns=1_700_000_000_000_000_000, boot_ns=5)
MAPS = Path(heatpool_agent.__file__).parent / "sensors" / "maps"
TYPES: tuple[WordType, ...] = (
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
)
ORDERS: tuple[WordOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")


def _map(points: list[dict[str, object]], **more: object) -> DeviceMap:
    plain = [
        {"quantity": f"q{i}", "function": 4, "type": "uint16"} | p for i, p in enumerate(points)
    ]
    return msgspec.convert({"name": "made-up", "point": plain} | more, DeviceMap)


def _generic() -> DeviceMap:
    text = (MAPS / "generic-cdu.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), DeviceMap)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", (0x4148, 0xF5C3)),
        ("CDAB", (0xF5C3, 0x4148)),
        ("BADC", (0x4841, 0xC3F5)),
        ("DCBA", (0xC3F5, 0x4841)),
    ],
)
def test_each_word_order_gives_the_same_number(order: WordOrder, words: tuple[int, ...]) -> None:
    assert number_of(words, "float32", order) == pytest.approx(12.56, rel=1e-7)


@pytest.mark.parametrize("order", ORDERS)
def test_a_single_word_is_big_endian_in_every_order(order: WordOrder) -> None:
    assert number_of((0x0102,), "uint16", order) == 0x0102


@pytest.mark.parametrize("kind", ["int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("order", ORDERS)
@given(data=st.data())
def test_words_say_back_the_number_they_were_made_of(
    kind: WordType, order: WordOrder, data: st.DataObject
) -> None:
    bits = 16 * width(kind)
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    number = data.draw(st.integers(low, high))
    assert number_of(words_of(number, kind, order), kind, order) == number


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit uint16"):
        words_of(65536, "uint16", "ABCD")


spans = st.lists(
    st.tuples(st.sampled_from([3, 4]), st.integers(0, 400), st.sampled_from(TYPES)),
    min_size=1,
    max_size=40,
)


@given(
    spans=spans,
    holes=st.sampled_from(["bridged", "forbidden"]),
    max_words=st.sampled_from([4, 10, 125]),
)
def test_requests_read_every_point_whole_within_the_limits(
    spans: list[tuple[int, int, WordType]], holes: str, max_words: int
) -> None:
    taken: set[tuple[int, int]] = set()
    points: list[dict[str, object]] = []
    for function, address, kind in spans:
        cells = {(function, address + offset) for offset in range(width(kind))}
        free = not cells & taken
        taken |= cells if free else set()
        points += [{"function": function, "address": address, "type": kind}] * free
    device = _map(points, holes=holes, max_words=max_words)
    blocks = requests(device)
    starts = [
        (point.function, wire_address(point, device), width(point.type)) for point in device.point
    ]

    homes = [
        [b for b in blocks if b.function == f and b.address <= a and a + n <= b.address + b.count]
        for f, a, n in starts
    ]
    read = {(b.function, b.address + offset) for b in blocks for offset in range(b.count)}
    unused = sorted(read - taken)
    runs = [
        len(list(run))
        for _, run in itertools.groupby(enumerate(unused), key=lambda p: (p[1][0], p[1][1] - p[0]))
    ]
    assert all(len(home) == 1 for home in homes)
    assert all(block.count <= max_words for block in blocks)
    assert max(runs, default=0) <= (MAX_HOLE if holes == "bridged" else 0)


def test_the_generic_unit_is_read_in_one_request() -> None:
    assert requests(_generic()) == (Block(4, 0, 12),)


def test_the_shipped_maps_have_no_mistakes() -> None:
    files = sorted(MAPS.glob("*.toml"))
    trees = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    assert files
    assert [mistakes(msgspec.convert(tree, DeviceMap)) for tree in trees] == [()] * len(files)


def test_a_modicon_address_is_counted_from_30001() -> None:
    device = _map([{"address": 30904}], address_base="modicon")
    assert requests(device) == (Block(4, 903, 1),)


@pytest.mark.parametrize(
    ("points", "more", "text"),
    [
        ([{"address": 0, "type": "uint32"}, {"address": 1}], {}, "from 0 and from 1 .* overlap"),
        ([{"address": 0}, {"address": 0}], {}, "overlap"),
        (
            [{"address": 0, "quantity": "pump"}, {"address": 1, "quantity": "pump"}],
            {},
            "pump is there twice",
        ),
        ([{"address": 65535, "type": "uint32"}], {}, "outside the device"),
        ([{"address": 0}], {"address_base": 1}, "outside the device"),
        ([{"address": 0, "unit": "furlong"}], {}, "unit 'furlong' is not known"),
        ([{"address": 0, "quantity": "temperature", "unit": "degC"}], {}, "needs .* pipe"),
        ([{"address": 0, "pipe": "hot", "unit": "degC"}], {}, "needs quantity"),
        (
            [{"address": 0, "quantity": "temperature", "pipe": "hot", "unit": "K"}],
            {},
            "is in degC, not 'K'",
        ),
        ([{"address": 0, "type": "int32", "bits": {"leak": 1}}], {}, "bits are named in a uint16"),
        ([{"address": 0, "absent": [65536]}], {}, "absent mark does not fit"),
        ([{"address": 0, "scale": 0.0}], {}, "scale is 0"),
        ([{"address": 0, "kind": "counter", "unit": "GJ"}], {}, "power of ten"),
        ([], {}, "at least one"),
    ],
)
def test_a_map_that_no_device_can_be_read_with_is_told(
    points: list[dict[str, object]], more: dict[str, object], text: str
) -> None:
    assert re.search(text, "\n".join(mistakes(_map(points, **more))))


def test_all_mistakes_of_a_map_are_told_at_once() -> None:
    device = _map([{"address": 0, "unit": "furlong"}, {"address": 0, "scale": 0.0}])
    assert len(mistakes(device)) == 3


def test_a_setpoint_block_with_a_hole_is_a_mistake() -> None:
    field = {"address": 0, "type": "uint16"}
    block = {"heat_rate": field, "watchdog": field | {"address": 1}, "mode": field | {"address": 3}}
    assert "do not join" in mistakes(_map([{"address": 0}], setpoint=block))[0]


def _words_of_unit(**change: object) -> list[int]:
    values = {
        "flow": 5123,
        "cold": 3021,
        "hot": 4512,
        "pump": 655,
        "valve": 1000,
        "heat": 87_654,
        "status": 0b1001,
        "rack": 91_000,
    } | change
    data = struct.pack(
        ">IhhHHiHHI",
        values["flow"],
        values["cold"],
        values["hot"],
        values["pump"],
        values["valve"],
        values["heat"],
        values["status"],
        0xFFFF,
        values["rack"],
    )
    return list(struct.unpack(">12H", data))


def test_the_units_words_become_our_quantities() -> None:
    readings = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit()}, STAMP)
    assert {reading.quantity: reading.value for reading in readings} == {
        "volume_flow_m3_h": 5.123,
        "cold_c": 30.21,
        "hot_c": 45.12,
        "pump_frac": 0.655,
        "valve_frac": 1.0,
        "reported_heat_w": 87_654.0,
        "status": 9.0,
        "pump_runs": 1.0,
        "leak": 0.0,
        "watchdog_ran_out": 0.0,
        "remote_control": 1.0,
        "power_w": 91_000.0,
    }


def test_readings_carry_their_place_in_the_tree_and_their_time() -> None:
    readings = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit()}, STAMP)
    seen = {reading.quantity: reading for reading in readings}
    assert (seen["power_w"].node, seen["reported_heat_w"].node) == (Node.PDU, Node.CDU)
    assert (seen["leak"].kind, seen["hot_c"].kind) == (ReadingKind.STATE, ReadingKind.GAUGE)
    assert {(r.sensor, r.loop, r.event_ns, r.boot_ns) for r in readings} == {
        ("cdu", "rack", STAMP.event_ns, 5)
    }
    assert seen["volume_flow_m3_h"].sensor_side == "cold"
    assert len({reading.channel for reading in readings}) == len(readings)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"flow": 0xFFFFFFFF}, {"volume_flow_m3_h"}),
        ({"hot": 0x7FFF}, {"hot_c"}),
        ({"cold": 0x7FFF}, {"cold_c"}),
        ({"pump": 0xFFFF}, {"pump_frac"}),
        ({"heat": -1}, {"reported_heat_w"}),
        ({"rack": 0xFFFFFFFF}, {"power_w"}),
        (
            {"status": 0xFFFF},
            {"status", "pump_runs", "leak", "watchdog_ran_out", "remote_control"},
        ),
    ],
)
def test_an_absent_mark_is_no_reading(change: dict[str, Any], missing: set[str]) -> None:
    whole = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit()}, STAMP)
    rest = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit(**change)}, STAMP)
    assert {r.quantity for r in whole} - {r.quantity for r in rest} == missing


def test_zero_is_a_value() -> None:
    readings = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit(flow=0, hot=0)}, STAMP)
    seen = {reading.quantity: reading.value for reading in readings}
    assert (seen["volume_flow_m3_h"], seen["hot_c"]) == (0.0, 0.0)


def test_a_temperature_below_zero_stays_below_zero() -> None:
    readings = map_readings(_generic(), {Block(4, 0, 12): _words_of_unit(cold=-512)}, STAMP)
    assert [r.value for r in readings if r.quantity == "cold_c"] == [-5.12]


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000])
def test_a_float_that_is_no_number_is_no_reading(bits: int) -> None:
    device = _map([{"address": 0, "type": "float32"}])
    assert map_readings(device, {Block(4, 0, 2): [bits >> 16, bits & 0xFFFF]}, STAMP) == ()


def test_points_of_an_unanswered_block_are_left_out() -> None:
    device = _map([{"address": 0, "quantity": "a"}, {"address": 200, "quantity": "b"}])
    readings = map_readings(device, {Block(4, 0, 1): [7]}, STAMP)
    assert [reading.quantity for reading in readings] == ["a"]


def test_readings_through_an_unconfirmed_map_are_flagged() -> None:
    device = _map([{"address": 0}], verified="manual")
    (reading,) = map_readings(device, {Block(4, 0, 1): [7]}, STAMP)
    assert reading.flags == ("map_unverified",)


@pytest.mark.parametrize(
    ("point", "words", "count"),
    [
        ({"type": "uint32", "unit": "kWh"}, [1, 2], (65538, 3, 2**32)),
        ({"type": "uint32", "unit": "kWh", "scale": 0.1}, [1, 2], (65538, 2, 2**32)),
        ({"type": "uint32", "unit": "Wh", "digits": 8}, [1, 2], (65538, 0, 10**8)),
        ({"type": "int32", "unit": "MWh", "scale": 0.01}, [1, 2], (65538, 4, None)),
    ],
)
def test_a_counter_keeps_its_raw_count(
    point: dict[str, object], words: list[int], count: tuple[int, int, int | None]
) -> None:
    device = _map([{"address": 0, "quantity": "energy", "kind": "counter"} | point])
    (reading,) = map_readings(device, {Block(4, 0, 2): words}, STAMP)
    assert (reading.raw, reading.exponent, reading.modulus) == count
    assert reading.quantity == "energy_wh"
    assert reading.value == pytest.approx(count[0] * 10.0 ** count[1])


def test_only_a_device_that_answers_no_plate_is_named_by_the_settings() -> None:
    plate: dict[str, object] = {"quantity": "meter_number", "function": 4, "address": 2}
    energy: dict[str, object] = {"quantity": "energy", "function": 4, "address": 0, "unit": "kWh"}
    device = _map([{**energy, "type": "uint32", "kind": "counter"}, {**plate, "type": "uint32"}])
    answered = {Block(4, 0, 4): [0, 500, 0, 0]}
    assert map_readings(device, answered, STAMP, meter_id="X7") == ()
    (reading,) = map_readings(device, {Block(4, 0, 2): [0, 500]}, STAMP, meter_id="X7")
    assert reading.meter_id == "X7"


def test_a_setpoint_is_the_makers_block() -> None:
    assert block_span(_generic()) == (0, 4)
    assert setpoint_words(_generic(), 70_000.9, watchdog_s=30) == (1, 4464, 30, 1)
    assert setpoint_words(_generic(), None, watchdog_s=30) == (0, 0, 0, 0)


@given(heat_rate_w=st.floats(0, 2**32 - 1), watchdog_s=st.integers(3, 900))
def test_a_setpoint_read_back_is_never_above_what_was_asked(
    heat_rate_w: float, watchdog_s: int
) -> None:
    seen = setpoint_seen(_generic(), setpoint_words(_generic(), heat_rate_w, watchdog_s=watchdog_s))
    assert heat_rate_w - 1 < seen.heat_rate_w <= heat_rate_w
    assert (seen.is_remote, seen.watchdog_s) == (True, watchdog_s)


VIEW = HeatView(
    energy_wh=98_765_430,
    energy_raw=9_876_543,
    energy_exponent=1,
    energy_unit="Wh",
    energy_digits=8,
    modulus_wh=10**9,
    volume_m3=561.08,
    hot_c=45.1,
    cold_c=30.2,
    heat_rate_w=80_000,
    volume_flow_m3_h=4.6,
    sensor_side="cold",
    meter_id="KAM.12345678.1.4",
    status=4,
    flags=("low_power",),
)


def test_a_telegram_becomes_registers_and_gauges_of_the_meter() -> None:
    readings = heat_readings(VIEW, STAMP)
    kinds = {reading.quantity: (reading.value, reading.kind) for reading in readings}
    assert kinds == {
        "energy_wh": (98_765_430.0, ReadingKind.COUNTER),
        "volume_m3": (561.08, ReadingKind.COUNTER),
        "delivered_heat_w": (80_000.0, ReadingKind.GAUGE),
        "volume_flow_m3_h": (4.6, ReadingKind.GAUGE),
        "hot_c": (45.1, ReadingKind.GAUGE),
        "cold_c": (30.2, ReadingKind.GAUGE),
    }
    assert {r.node for r in readings} == {Node.HEAT_METER}
    assert all(r.channel == f"meter/{r.quantity}" for r in readings)
    assert {(r.meter_id, r.sensor_side, r.status_bits, r.flags) for r in readings} == {
        ("KAM.12345678.1.4", "cold", 4, ("low_power",))
    }


def test_the_register_keeps_count_exponent_and_rollover() -> None:
    energy = next(r for r in heat_readings(VIEW, STAMP) if r.quantity == "energy_wh")
    assert (energy.raw, energy.exponent, energy.modulus) == (9_876_543, 1, 10**8)
    assert energy.generation == "KAM.12345678.1.4"


def test_a_register_in_joule_counts_whole_wh_without_a_rollover() -> None:
    view = replace(VIEW, energy_unit="J", energy_raw=7, energy_exponent=6, energy_wh=1944)
    energy = next(r for r in heat_readings(view, STAMP) if r.quantity == "energy_wh")
    assert (energy.raw, energy.exponent, energy.modulus) == (1944, 0, None)


def test_a_telegram_without_figures_gives_no_reading() -> None:
    assert heat_readings(HeatView(meter_id="", status=0), STAMP) == ()
