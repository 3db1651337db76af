"""The simulated meter's figures: as they are, or marked as none; never with a digit lost."""

import math
from dataclasses import replace

import pytest

from heatpool_agent.core import mbus
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
