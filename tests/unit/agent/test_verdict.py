"""What a person is told of a reading: its fate, why, and its unit."""

import json
from dataclasses import replace
from math import nan

import pytest

from heatpool.sample import SiteId
from heatpool_agent.board import Board
from heatpool_agent.commands.once import document
from heatpool_agent.commands.once_text import table
from heatpool_agent.core.plausible import FLAGS, REJECTING
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.verdict import Verdict, reasons, unit, verdict

PLAIN = Reading(
    sensor="s",
    channel="c",
    quantity="power_w",
    kind=ReadingKind.GAUGE,
    value=1.0,
    event_ns=0,
    boot_ns=0,
    node=Node.PSU_IN,
)


@pytest.mark.parametrize(
    ("flags", "fate"),
    [
        ((), Verdict.BELIEVED),
        (("field:185",), Verdict.BELIEVED),
        (("lower_rank",), Verdict.REPEATED),
        (("implausible_k",), Verdict.DOUBTED),
        (("no_temperature",), Verdict.DOUBTED),
        (("permanent_error",), Verdict.DOUBTED),
        (("rating_as_reading",), Verdict.REFUSED),
        (("lower_rank", "rating_as_reading"), Verdict.REFUSED),
    ],
)
def test_a_reading_has_one_fate(flags: tuple[str, ...], fate: Verdict) -> None:
    assert verdict(replace(PLAIN, flags=flags)) is fate


@pytest.mark.parametrize("flag", sorted(REJECTING | FLAGS.keys()))
def test_every_mark_has_a_reason_in_words(flag: str) -> None:
    (reason,) = reasons(replace(PLAIN, flags=(flag,)))
    assert "_" not in reason and " " in reason


def test_a_drivers_own_remark_is_no_reason() -> None:
    assert reasons(replace(PLAIN, flags=("field:185", "excerpt_differs"))) == ()


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("power_w", "W"),
        ("energy_wh", "Wh"),
        ("volume_flow_m3_h", "m³/h"),
        ("volume_m3", "m³"),
        ("hot_c", "°C"),
        ("busy_frac", "1"),
        ("leak", "1"),
    ],
)
def test_a_quantity_names_its_unit(quantity: str, expected: str) -> None:
    assert unit(quantity) == expected


def shown(**more: object) -> dict[str, object]:
    plain = {"sensor": "bmc", "channel": "c", "quantity": "power_w", "unit": "W", "value": 1840.0}
    return {
        **plain, "node": "psu_in", "quality": "believed", "believed": True, "reasons": [], **more
    }  # fmt: skip


def test_the_table_tells_what_is_refused_and_why() -> None:
    refused = shown(quality="refused", believed=False, reasons=["it is a rating"])
    told = {
        "site_id": "x", "estimates": [], "sensors": [], "readings": [shown(loop="rack"), refused]
    }  # fmt: skip
    lines = table(told).splitlines()
    assert [line.split() for line in lines if line.startswith(("loop", "this"))] == [
        ["loop", "rack:", "bmc"],
        ["this", "machine:", "bmc", "1", "of", "1", "refused"],
    ]
    assert any("REFUSED: it is a rating" in line for line in lines)


def test_a_leak_stands_above_all_figures() -> None:
    told = {"site_id": "x", "estimates": [], "sensors": [], "readings": []}
    assert table({**told, "heat": [{"loop_id": "rack", "leak": True}]}).splitlines()[2] == (
        "LEAK in loop rack"
    )
    assert "LEAK" not in table({**told, "heat": [{"loop_id": "rack", "leak": False}]})


def test_coolant_that_belongs_to_no_loop_is_told() -> None:
    cdu = shown(node="cdu", quantity="hot_c", value=40.0, unit="°C")
    told = {"site_id": "x", "estimates": [], "sensors": [], "readings": [cdu]}
    assert "coolant of bmc belongs to no [[loop]]" in table(told)
    beside = [cdu, shown(node="cdu", quantity="cold_c", loop="rack")]
    assert "belongs to no" not in table({**told, "readings": beside})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(28915800.0, "28915800"), (1234567.8, "1234568"), (0.0921, "0.0921"), (1e15, "1e+15")],
)
def test_a_register_is_shown_as_it_stands_on_the_display(value: float, expected: str) -> None:
    told = {"site_id": "x", "estimates": [], "sensors": [], "readings": [shown(value=value)]}
    assert expected in table(told).split()


def test_what_is_no_number_is_left_out_of_the_document_and_of_the_table() -> None:
    board = Board(site_id=SiteId("x"))
    board.judged = (replace(PLAIN, value=nan, flags=("not_finite",)),)
    told = json.dumps(document(board, 0), allow_nan=False)
    (line,) = [line for line in table(json.loads(told)).splitlines() if "  power_w" in line]
    assert "REFUSED: no number" in line and "nan" not in line
