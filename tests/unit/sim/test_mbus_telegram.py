"""The simulated meter's figures: as they are, or marked as none; never with a digit lost."""

import math
from dataclasses import replace
from typing import Any

import pytest

from heatpool.errors import SensorBusy, WireError
from heatpool_agent.core import mbus
from heatpool_agent.core.mbus_frames import long_frame, select_frame
from heatpool_sim.devices import mbus_telegram
from heatpool_sim.plant.meter import Meter, MeterState

METER = Meter(manufacturer="HPS", number=12345678, version=1)
STATE = MeterState(register_wh=1)
POWER, VOLUME_FLOW, HOT = 2, 3, 4
ENERGY, VOLUME = 0, 1


def shown(place: int, **fields: float) -> object:
    """What the agent's decoder reads in one record of the frame."""
    state = replace(STATE, **fields)  # type: ignore[arg-type]  # figures by name
    frame = mbus_telegram.answer(METER, state, address=1, access=0)
    return mbus.decode(frame).records[place].value


@pytest.mark.parametrize("heat_rate_w", [0, 999_999, 1_200_000, 99_999_999, -1, -9_999_999])
def test_a_power_is_read_as_it_is(heat_rate_w: int) -> None:
    assert shown(POWER, heat_rate_w=heat_rate_w) == heat_rate_w


@pytest.mark.parametrize("flow_l_h", [0, 999_999, 2_153_000, -40])
def test_a_flow_is_read_as_it_is(flow_l_h: int) -> None:
    seen = shown(VOLUME_FLOW, volume_flow_m3_h=flow_l_h / 1000)
    assert seen == pytest.approx(flow_l_h / 1000)


@pytest.mark.parametrize("hot_c", [-0.01, -40.0, 0.0, 327.67, -327.67])
def test_a_temperature_may_be_below_zero(hot_c: float) -> None:
    assert shown(HOT, hot_c=hot_c) == pytest.approx(hot_c)


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        (ENERGY, "register_wh", 10**8),
        (VOLUME, "register_l", 10**8),
        (POWER, "heat_rate_w", 1e8),
        (POWER, "heat_rate_w", -1e7),
        (POWER, "heat_rate_w", math.nan),
        (VOLUME_FLOW, "volume_flow_m3_h", 1e5),
        (HOT, "hot_c", 327.68),
        (HOT, "hot_c", -327.68),
        (HOT, "hot_c", math.nan),
        (HOT + 1, "cold_c", math.inf),
    ],
)
def test_what_does_not_fit_is_no_value(place: int, field: str, value: float) -> None:
    assert shown(place, **{field: value}) is None


def test_an_old_meter_sends_two_counters() -> None:
    state = replace(STATE, register_wh=98_765_432, register_l=561_081)
    frame = mbus_telegram.fixed_answer(METER, state, address=3, access=7)
    telegram = mbus.decode(frame)
    view = mbus.heat_view(telegram)
    assert (telegram.ci, telegram.address, len(telegram.records)) == (0x73, 3, 2)
    assert (view.energy_wh, view.volume_m3, view.meter_id) == (
        *(98_765_432, 561.081, "-.12345678.-.4"),
    )


@pytest.mark.parametrize("answer", [mbus_telegram.answer, mbus_telegram.fixed_answer])
def test_a_status_stands_in_the_header(answer: Any) -> None:
    frame = answer(METER, STATE, address=1, access=0, status=mbus_telegram.STATUS_FROZEN)
    assert mbus.heat_view(mbus.decode(frame)).status == 0x18


@pytest.mark.parametrize(
    ("frame", "wait_s"),
    [(mbus_telegram.busy(address=1), 0), (mbus_telegram.too_many_readouts(address=1), 86_400)],
)
def test_patience_is_asked_for_by_an_application_error(frame: bytes, wait_s: float) -> None:
    with pytest.raises(SensorBusy) as caught:
        mbus.decode(frame)
    assert caught.value.wait_s == wait_s


def test_meters_that_speak_at_once_are_not_understood() -> None:
    one = mbus_telegram.answer(METER, STATE, address=1, access=0)
    other = mbus_telegram.answer(replace(METER, number=87654321), STATE, address=1, access=0)
    assert mbus_telegram.together([one, b"", other]) not in (one, other)
    with pytest.raises(WireError, match="two meters answered at once"):
        mbus.decode(mbus_telegram.together([one, other]))
    assert mbus_telegram.together([b"", one]) == one
    assert mbus_telegram.together([mbus_telegram.ACK] * 2) == mbus_telegram.ACK
    assert mbus_telegram.together([]) == b""


def test_a_selection_is_read_from_its_frame() -> None:
    request, rest = mbus_telegram.next_request(select_frame(bytes(range(8))))
    assert request is not None
    assert (request.selection, rest) == (bytes(range(8)), b"")
    other, _ = mbus_telegram.next_request(long_frame(0x53, 1, b"\x52" + bytes(8)))
    assert other is not None
    assert other.selection is None
