"""What a tick says upwards, and which register rows a meter's reading makes."""

from dataclasses import replace

import pytest

from heatpool.sample import (
    Channel,
    Estimate,
    Provenance,
    QualityClass,
    RegisterReason,
    RegisterRow,
)
from heatpool_agent.board import LoopView
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.registers import register_rows
from heatpool_agent.core.rows import EXPONENTS, Mean, cells_of

FUSED = Estimate(
    value=30_000.0, u=500.0, quality=QualityClass.B, provenance=Provenance.FUSED, flags=()
)
READING = Reading(
    sensor="meter",
    channel="meter/energy_wh",
    quantity="energy_wh",
    kind=ReadingKind.COUNTER,
    value=5_000.0,
    event_ns=100,
    boot_ns=1,
    node=Node.HEAT_METER,
    raw=5,
    exponent=3,
    modulus=10**8,
    meter_id="ABC.1.2.4",
    status_bits=3,
)


def heat(loop_id: str = "rack") -> Channel:
    return Channel(loop_id, "heat_rate_w", EXPONENTS["heat_rate_w"])


def test_an_absent_figure_has_no_cell() -> None:
    cells = cells_of(None, [LoopView(loop_id="rack", fused=FUSED, hot_c=45.0)])
    assert {channel.quantity for channel in cells} == {
        "heat_rate_w",
        "heat_rate_w_u",
        "quality",
        "provenance",
        "hot_c",
    }


def test_figures_of_the_site_name_no_loop() -> None:
    cells = cells_of(FUSED, [])
    assert [channel.loop_id for channel in cells] == ["", ""]


def test_a_row_is_the_mean_of_its_ticks_and_an_absent_tick_is_left_out() -> None:
    mean = Mean()
    for cells in ({heat(): 10.0, heat("b"): 1.0}, {heat(): 20.0}, {heat(): 60.0}):
        mean.add(cells)
    assert mean.taken() == {heat(): 30.0, heat("b"): 1.0}
    assert mean.taken() == {}


def test_the_worst_class_and_the_last_origin_stand_for_a_row() -> None:
    mean = Mean()
    quality, origin = Channel("rack", "quality"), Channel("rack", "provenance")
    for grade, source in ((2, 4), (5, 3), (2, 2)):
        mean.add({quality: float(grade), origin: float(source)})
    assert mean.taken() == {quality: 5.0, origin: 2.0}


def previous(**changes: object) -> RegisterRow:
    (row,) = register_rows(READING, None, is_first_read=False)
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "is_first", "reason"),
    [
        (None, True, RegisterReason.METER_OPENING),
        (previous(raw=4, event_ns=50), True, RegisterReason.START),
        (previous(raw=4, event_ns=50), False, RegisterReason.PERIODIC),
    ],
)
def test_one_reading_makes_one_row(
    before: RegisterRow | None, *, is_first: bool, reason: RegisterReason
) -> None:
    (row,) = register_rows(READING, before, is_first_read=is_first)
    assert (row.reason, row.raw, row.exponent, row.modulus) == (reason, 5, 3, 10**8)
    assert (row.metering_point_id, row.meter_id, row.status_bits) == ("meter", "ABC.1.2.4", 3)


def test_another_meter_closes_the_old_one_at_its_last_count() -> None:
    before = previous(raw=99_999_990, event_ns=50, meter_id="OLD.9.2.4")
    closing, opening = register_rows(READING, before, is_first_read=False)
    assert (closing.meter_id, closing.raw, closing.reason) == (
        "OLD.9.2.4",
        99_999_990,
        RegisterReason.METER_CLOSING,
    )
    assert (opening.meter_id, opening.raw, opening.reason) == (
        "ABC.1.2.4",
        5,
        RegisterReason.METER_OPENING,
    )
    assert before.event_ns < closing.event_ns < opening.event_ns


@pytest.mark.parametrize("raw", [-1, 2**63, 2**70])
def test_a_count_that_no_book_holds_makes_no_row(raw: int) -> None:
    assert register_rows(replace(READING, raw=raw), None, is_first_read=False) == ()


def test_a_turning_point_beyond_int64_is_not_known() -> None:
    (row,) = register_rows(replace(READING, modulus=2**63), None, is_first_read=False)
    assert row.modulus is None
