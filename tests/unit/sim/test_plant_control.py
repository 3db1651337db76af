"""The coolant unit's holding block: who may open the valve, and until when."""

from math import inf

import pytest

from heatpool_sim.plant import control, exchanger
from heatpool_sim.plant.control import Control, Mode

REMOTE = Control(setpoint_w=30_000, watchdog_s=10, mode=Mode.REMOTE, written_ns=0)


def test_the_watchdog_ends_remote_control_and_says_so() -> None:
    held = control.watched(REMOTE, boot_ns=10 * 10**9 - 1)
    ended = control.watched(REMOTE, boot_ns=10 * 10**9)
    assert (held.mode, held.is_expired) == (Mode.REMOTE, False)
    assert (ended.mode, ended.is_expired) == (Mode.LOCAL, True)


def test_every_write_restarts_the_watchdog() -> None:
    again = control.written(REMOTE, [10], at=2, boot_ns=8 * 10**9)
    assert again is not None
    assert control.watched(again, boot_ns=17 * 10**9).mode is Mode.REMOTE


def test_a_network_mode_needs_no_watchdog() -> None:
    assert control.watched(Control(mode=Mode.NETWORK), boot_ns=10**15).mode is Mode.NETWORK


def test_a_watchdog_of_zero_forbids_remote_control() -> None:
    block = control.written(REMOTE, [0, 5000, 0, 1], at=0, boot_ns=0)
    assert block is not None
    assert block.mode is Mode.LOCAL


@pytest.mark.parametrize(
    ("values", "at"), [([0, 1, 5, 3], 0), ([1], 4), ([0, 0, 0, 0, 0], 0), ([70_000], 2)]
)
def test_a_write_outside_the_manual_is_refused(values: list[int], at: int) -> None:
    assert control.written(REMOTE, values, at=at, boot_ns=0) is None


def test_the_setpoint_is_one_number_in_two_cells() -> None:
    block = control.written(Control(), [1, 0x86A0, 30, 1], at=0, boot_ns=0)
    assert block is not None
    assert block.setpoint_w == 100_000
    assert control.cells(block) == (1, 0x86A0, 30, 1)


@pytest.mark.parametrize(
    ("block", "expected_w"),
    [
        (Control(setpoint_w=9, mode=Mode.LOCAL), 0.0),
        (Control(setpoint_w=9, mode=Mode.REMOTE, watchdog_s=5), 9.0),
        (Control(setpoint_w=9, mode=Mode.NETWORK), inf),
    ],
)
def test_each_mode_wishes_its_own_heat(block: Control, expected_w: float) -> None:
    assert control.wish_w(block) == expected_w


def test_the_valve_travels_at_its_own_pace() -> None:
    box = exchanger.Exchanger(
        capacity_w=4e4, approach_k=2.0, travel_s=10.0, rejection_capacity_w=6e4
    )
    now_frac = exchanger.valve_frac(box, 0.0, wish_w=inf, carried_w=3e4, dt_s=1.0)
    then_frac = exchanger.valve_frac(box, 1.0, wish_w=0.0, carried_w=3e4, dt_s=4.0)
    assert now_frac == pytest.approx(0.1)
    assert then_frac == pytest.approx(0.6)
