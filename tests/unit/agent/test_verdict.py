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
        (("set_copy",), Verdict.REPEATED),
        (("outputs_below_half",), Verdict.PARTIAL),
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


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("lower_rank", "another reading says the same better: kept, never added"),
        ("set_copy", "the sum of others of this pass: kept, never added"),
        ("outputs_below_half", "not all of its level is shown"),
    ],
)
def test_what_is_never_added_says_why(flag: str, words: str) -> None:
    assert reasons(replace(PLAIN, flags=(flag,))) == (words,)


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
    fate = {"quality": "believed", "believed": True, "reasons": []}
    return {**plain, **fate, "node": "psu_in", "kind": "gauge", **more}


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


def rows(*readings: dict[str, object], **more: object) -> list[str]:
    told = {"site_id": "x", "estimates": [], "sensors": [], "readings": list(readings), **more}
    return table(told).splitlines()


def test_a_sign_stands_before_what_carries_an_estimate_and_is_explained() -> None:
    lines = rows(shown(counted_for=["loop", "host"]), shown(counted_for=["host"]), shown())
    signs = [line[0] for line in lines if line[2:].startswith("power_w")]
    assert signs == ["*", "+", " "]
    assert [line[:9] for line in lines if "carries" in line] == ["* carries", "+ carries"]
    assert not any("carries" in line for line in rows(shown()))


@pytest.mark.parametrize(
    ("quantity", "value", "word"),
    [
        ("leak", 0.0, "no"),
        ("leak", 1.0, "yes"),
        ("pump_runs", 1.0, "yes"),
        ("is_suspended", 0.0, "no"),
        ("status", 1.0, "1"),
        ("leak", 2.0, "2"),
    ],
)
def test_a_state_is_a_word_and_a_code_a_number(quantity: str, value: float, word: str) -> None:
    lines = rows(shown(quantity=quantity, value=value, unit="1", kind="state"))
    assert any(line.split()[:2] == [quantity, word] for line in lines)


@pytest.mark.parametrize(
    ("kind", "u", "band"),
    [("gauge", 92.0, "180"), ("gauge", 0.5, "0.98"), ("counter", 92.0, "10%")],
)
def test_the_doubt_stands_beside_the_value(kind: str, u: float, band: str) -> None:
    lines = rows(shown(kind=kind, u=u, quality_class="B"))
    assert any(line.split()[1:3] == ["1840", band] for line in lines)


def host(level: str, *, part: dict[str, object]) -> dict[str, object]:
    figure = {"power_w": 100.0, "power_w_u": 10.0}
    return {
        "host": "", "level": level, "quality_class": "B", "counted": [{"sensor": "bmc"}], **figure,
        "parts": [{"sensors": [], **part, **figure}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "part", "words"),
    [
        (
            "chassis",
            {"name": "gpu", "is_measured": True, "sensors": ["nvml"]},
            ("read at chassis by bmc", "measured by nvml"),
        ),
        ("host", {"name": "host", "is_measured": False}, ("modelled from load",) * 2),
        ("last", {"name": "last", "is_measured": False}, ("silent: what it drew last",) * 2),
        ("chassis", {"name": "rest", "is_measured": False}, ("by bmc", "not measured")),
    ],
)
def test_a_host_says_how_it_is_known(
    level: str, part: dict[str, object], words: tuple[str, str]
) -> None:
    lines = rows(hosts=[host(level, part=part)])
    at = next(number for number, line in enumerate(lines) if line.startswith("this machine"))
    assert lines[at].endswith(words[0]) and lines[at + 1].endswith(words[1])
