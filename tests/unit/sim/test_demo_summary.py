"""The demo's summary: what is told, what is checked, and that absent is never zero."""

from typing import Any

import pytest

from heatpool_sim.demo.summary import (
    Findings,
    Seen,
    plant_error_wh,
    summary,
    unaccounted_wh,
    unacked,
)

_S = 10**9


def line(opened_wh: int, closed_wh: int, energy_wh: int, **changed: Any) -> dict[str, Any]:
    return {
        "virtual_source_id": "greenhouse",
        "site_id": "s01",
        "metering_point_id": "meter",
        "meter_id": "HPS.1",
        "register_open_wh": opened_wh,
        "register_close_wh": closed_wh,
        "energy_wh": energy_wh,
        "amount_eur": "0.001",
        **changed,
    }


def statement(start_s: int, *lines: dict[str, Any], is_complete: bool = True) -> dict[str, Any]:
    return {
        "start_ns": start_s * _S,
        "end_ns": (start_s + 10) * _S,
        "period_start": f"t{start_s}",
        "period_end": f"t{start_s + 10}",
        "is_complete": is_complete,
        "lines": list(lines),
    }


@pytest.mark.parametrize(
    ("statements", "expected_wh"),
    [
        ([statement(0, line(10, 15, 5)), statement(10, line(15, 22, 7))], 0),
        ([statement(10, line(15, 22, 7)), statement(0, line(10, 15, 5))], 0),
        ([statement(0, line(99_999_990, 5, 15))], 0),
        ([statement(0, line(10, 15, 6))], 1),
        ([statement(0, line(10, 15, 5)), statement(10, line(16, 22, 6))], 1),
        ([statement(0, line(10, 15, 5)), statement(20, line(22, 30, 8))], 7),
        ([statement(0, line(9, 10, 1), line(0, 4, 4, meter_id="HPS.2"))], 0),
        ([statement(0)], None),
    ],
)
def test_energies_must_add_up_to_their_registers(
    statements: list[dict[str, Any]], expected_wh: int | None
) -> None:
    assert unaccounted_wh(statements) == expected_wh


SEEN = [Seen(at_ns=k * _S, registers_wh={"s01": (99_999_990 + k) % 10**8}) for k in range(60)]


@pytest.mark.parametrize(
    ("opened_wh", "closed_wh", "expected_wh"),
    [(10, 20, 0), (4, 26, 1), (10, 200, 175)],
)
def test_a_billed_register_is_one_that_the_plant_showed(
    opened_wh: int, closed_wh: int, expected_wh: int
) -> None:
    found = plant_error_wh([statement(20, line(opened_wh, closed_wh, 0))], SEEN)
    assert found == expected_wh


def test_an_opening_is_not_on_the_edge_of_its_period() -> None:
    opening = line(0, 20, 20, flags=["opening"])
    assert plant_error_wh([statement(20, opening)], SEEN) == 0


def test_a_time_that_nobody_watched_proves_nothing() -> None:
    assert plant_error_wh([statement(90, line(1, 2, 1))], SEEN) is None


def test_a_silent_agent_makes_the_count_absent() -> None:
    told = {"spool": {"telemetry": {"unacked": 2}, "billing": {"unacked": 1}}}
    assert unacked([told, told]) == 6
    assert unacked([told, None]) is None


def test_the_summary_names_the_newest_whole_statement() -> None:
    pages = [
        statement(20, line(7, 9, 2), is_complete=False),
        statement(10, line(5, 7, 2)),
        statement(0, line(1, 5, 4)),
    ]
    agent = {
        "uplink": {"batches_sent": 5, "batches_acked": 5},
        "spool": {"telemetry": {"unacked": 0}, "billing": {"unacked": 0}},
    }
    found = Findings(
        sites={
            "sites": [
                {"site_id": "s01", "event_ns": 1},
                {"site_id": "s02", "event_ns": None},
                {"site_id": "this-machine", "event_ns": 1},
            ]
        },
        sources={"virtual_sources": [{"virtual_source_id": "gh", "kind": "greenhouse"}]},
        statements={"statements": pages},
        balance=None,
        status={"ingest": {"duplicates_ignored": 3}},
        agents=[agent, agent],
        restarts_count=0,
        seen=SEEN,
    )
    tree = summary(found)
    assert (tree["sites"], tree["real_sites"]) == (2, 1)
    assert (tree["batches_sent"], tree["batches_acked"], tree["spool_unacked"]) == (10, 10, 0)
    assert tree["duplicates_ignored"] == 3
    assert tree["statement"]["period_start"] == "t10"
    assert tree["statement"]["lines"][0]["site"] == "s01"
    assert tree["balance_error_wh"] == 0
    assert tree["virtual_sources"][0]["heat_rate_w"] is None
