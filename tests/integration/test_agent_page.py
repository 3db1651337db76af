"""The page tells refused readings, hosts with their parts, and meters with an error that stays."""

import re
from dataclasses import replace

import pytest
from integration.site_board import ENDED, LASTING, NS, StoppedClock, estimate, filled, odd, rack

from heatpool.sample import Provenance
from heatpool_agent.board import Board, SensorView
from heatpool_agent.core.attribution import Cover, Part
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import HostPower, LoopPower
from heatpool_agent.http.page import page
from heatpool_agent.http.seen import look
from heatpool_agent.http.status import status


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def board(clock: StoppedClock) -> Board:
    return filled(clock)


def shown(board: Board, clock: StoppedClock) -> str:
    """The page as it is served."""
    return page(look(board, clock, period_s=0.5), version="0.0.0")


def words_of(html: str) -> str:
    """What a person reads."""
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_the_page_counts_what_is_refused_and_says_why(clock: StoppedClock, board: Board) -> None:
    board.judged = (
        odd("cdu", Node.PSU_IN, "power_w", "stale"),
        odd("cdu", Node.PSU_IN, "power_w", "stale"),
        odd("cdu", Node.PSU_IN, "power_w", "above_capacity"),
        odd("cdu", Node.PSU_IN, "power_w", "lower_rank"),
    )
    words = words_of(shown(board, clock))
    assert "3 refused" in words
    assert "refused: 2 × older than three" in words
    assert "1 × more than the supply can deliver" in words


def test_what_was_refused_before_the_loop_died_is_not_told(
    clock: StoppedClock, board: Board
) -> None:
    board.judged = (odd("cdu", Node.PSU_IN, "power_w", "stale"),)
    clock.at_ns += 4 * NS
    assert "refused" not in shown(board, clock)


def test_a_fault_that_lasts_is_an_alarm_and_one_that_ended_is_told(
    clock: StoppedClock, board: Board
) -> None:
    board.loops = (replace(rack(), faults=(LASTING, ENDED)),)
    words = words_of(shown(board, clock))
    alarms, _, rest = words.partition("Heat now")
    assert "dirt or a clogged strainer, since 2025-10-09 06:06:40 UTC. 5.2 % less heat" in alarms
    assert "air in the loop" not in alarms
    assert "fouling 2025-10-09 06:06:40 UTC lasts" in rest
    assert "air in loop 2025-10-08 19:00:00 UTC 2025-10-08 19:30:00 UTC" in rest
    assert "vent the loop" in rest


@pytest.mark.parametrize(
    ("heat_w", "heat_w_u", "told"),
    [
        (96e3, 5e3, "Heat of loop rack is 36.0 kW above its proven rejection capacity"),
        (
            96e3,
            200e3,
            "Heat of loop rack may be above its proven rejection capacity: "
            "100 kW ± 390 kW of 60.0 kW",
        ),
        (59e3, 200e3, ""),
    ],
)
def test_heat_is_above_what_can_be_rejected_only_beyond_its_doubt(
    clock: StoppedClock, board: Board, heat_w: float, heat_w_u: float, told: str
) -> None:
    heat = estimate(heat_w, heat_w_u, "C", Provenance.FUSED)
    board.loops = (replace(rack(), fused=heat),)
    alarms, _, _ = words_of(shown(board, clock)).partition("Heat now")
    assert alarms.count("rejection capacity") == bool(told)
    assert told in alarms


def test_where_the_power_goes_is_told_with_its_doubt(clock: StoppedClock, board: Board) -> None:
    words = words_of(shown(board, clock))
    assert "Captured share 77.9 ± 3.3 %" in words
    assert "from power, flow and temperatures" in words
    assert re.search(r"With the air .* 5\.3 kW ± 1\.7 kW C", words)
    assert re.search(r"Reported .* ± is assumed 21\.5 kW ± 2\.1 kW", words)


def test_an_error_that_stays_in_a_meter_is_an_alarm(clock: StoppedClock, board: Board) -> None:
    reading = odd("meter", Node.HEAT_METER, "energy_wh", "permanent_error")
    board.judged = (replace(reading, meter_id="HPS.17"),)
    text = shown(board, clock)
    assert "<p>Heat meter meter (meter HPS.17) reports an error of its own that stays" in text


def test_the_page_shows_each_host_with_parts_and_remainder(
    clock: StoppedClock, board: Board
) -> None:
    whole = estimate(1_463.5, 73.2, "B", Provenance.ELECTRIC)
    parts = (Part("gpu", 848.0, 68.0), Part("rest", 615.5, 100.0, is_measured=False))
    host = HostPower(host="n7", cover=Cover(level="chassis", whole=whole, parts=parts))
    power = LoopPower(whole=whole, level="chassis", hosts=(host,))
    board.loops = (replace(rack(), power=power),)
    main = shown(board, clock).split("by host")[1]
    words = words_of(main)
    told = "n7 read at chassis class B 1.46 kW ± 0.14 kW gpu 850 W ± 130 W"
    assert f"{told} remainder not measured 620 W ± 200 W" in words


def test_no_number_of_loops_and_sensors_makes_the_page_heavy(
    clock: StoppedClock, board: Board
) -> None:
    board.loops = tuple(replace(rack(), loop_id=f"rack{n}") for n in range(40))
    for n in range(300):
        bad = SensorView(
            id=f"s{n:063}", kind="modbus", state="gone", detail="<" * 999, fix="&" * 99
        )
        board.post_sensor(bad)
    board.energies_j = {(f"s{n}", "<" * 500): 1.0 for n in range(300)}
    board.judged = tuple(
        odd(f"s{n:063}", Node.HEAT_METER, "<" * 99, "stale", "permanent_error") for n in range(300)
    )
    whole = estimate(1_463.5, 73.2, "B", Provenance.ELECTRIC)
    hosts = tuple(
        HostPower(host="<" * 99, cover=Cover(level="chassis", whole=whole)) for _ in range(200)
    )
    power = LoopPower(whole=whole, level="chassis", hosts=hosts)
    board.loops = tuple(replace(view, power=power) for view in board.loops)
    board.uplink = replace(board.uplink, detail="<" * 999)
    text = shown(board, clock)
    assert len(text.encode()) < 30_000
    assert "more sensors in the status as JSON" in text
    assert "more loops in the status as JSON" in text


def test_a_backlog_has_a_bar_and_what_is_left(clock: StoppedClock) -> None:
    text = shown(filled(clock), clock)
    assert '<progress max="1" value="0.7500">' in text
    assert "300 of 1,200 older batches to send" in text
    assert "12.5 batches a second" in text


@pytest.mark.parametrize(("left_s", "told"), [(42.0, "in 42 s, "), (-1.0, "now")])
def test_a_line_that_is_down_says_why_and_when_it_is_tried_again(
    clock: StoppedClock, left_s: float, told: str
) -> None:
    board = filled(clock)
    assert "Next try" not in shown(board, clock)
    next_ns = clock.boot_ns() + round(left_s * NS)
    board.uplink = replace(
        board.uplink, state="waiting", detail="nobody answers", next_try_boot_ns=next_ns
    )
    text = shown(board, clock)
    assert f"<dt>Next try</dt><dd>{told}" in text
    assert "nobody answers" in text
    line = status(look(board, clock, period_s=1.0), version="x").uplink
    assert line.next_try_s == max(0.0, left_s)
    assert line.next_try_ns == clock.event_ns() + max(0, round(left_s * NS))


def test_no_bar_stands_where_nothing_waits(clock: StoppedClock) -> None:
    board = filled(clock)
    assert board.uplink.backlog is not None
    done = replace(board.uplink.backlog, frames_count=0, done_frac=1.0)
    board.uplink = replace(board.uplink, backlog=done)
    assert "<progress" not in shown(board, clock)


def test_a_refused_site_says_so_first_and_what_mends_it(clock: StoppedClock) -> None:
    board = filled(clock)
    board.uplink = replace(
        board.uplink, state="refused", detail="UNAUTHENTICATED: revoked", fix="join again"
    )
    text = shown(board, clock)
    assert "The aggregator does not let this site in: UNAUTHENTICATED: revoked; join again" in text
    assert "<code>join again</code>" in text
