"""The energy ledger: exact over restarts, wraps and boots; what cannot be measured is a gap."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core import ledger_rows
from heatpool_agent.core.ledger import STEPS_MOST, GapCause, GapRecord, Ledger, Page, merged
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, StepKind

S = 1_000_000_000
WALL_S = 1_750_000_000
ZONE = "powercap/intel-rapl:0"
# A 32-bit count of 61 uJ, and what the kernel says of its range: one unit short.
UNIT_UJ = 61
COUNTS = 2**32
RANGE_UJ = (COUNTS - 1) * UNIT_UJ


def zone(raw: int, boot_s: float, *, boot: str = "a", wall_s: float | None = None) -> Reading:
    return Reading(
        sensor="cpu",
        channel=ZONE,
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=raw / 1e6,
        event_ns=round((WALL_S + boot_s if wall_s is None else wall_s) * S),
        boot_ns=round(boot_s * S),
        node=Node.PACKAGE,
        raw=raw,
        exponent=-6,
        modulus=RANGE_UJ,
        generation=boot,
    )


def rated(power_w: float) -> Reading:
    told = replace(zone(0, 0.0), quantity="rated_w", kind=ReadingKind.STATE, raw=None)
    return replace(told, value=power_w, exponent=0, modulus=None, generation="")


def meter(raw: int, boot_s: float, *, number: str = "LUG.1", digits: int = 8) -> Reading:
    """A heat meter that shows Wh."""
    told = replace(zone(raw, boot_s), sensor="meter", channel="meter/energy_wh")
    named = replace(told, node=Node.HEAT_METER, generation=number, meter_id=number)
    return replace(named, quantity="energy_wh", exponent=0, modulus=10**digits)


def card(raw_mj: int, boot_s: float, *, boot: str = "a") -> Reading:
    named = replace(zone(raw_mj, boot_s, boot=boot), channel="nvml/0000:3b:00.0", node=Node.GPU)
    return replace(named, exponent=-3, modulus=None)


def restarted(ledger: Ledger, *, boot: str = "a", before: Page | None = None) -> Ledger:
    """The ledger of the next process: nothing but what lies on disk goes over."""
    page = merged(before, ledger.page(), most_count=100)
    clock = page.clock
    saved = Page(
        accounts=tuple(ledger_rows.account_of(ledger_rows.account_row(a)) for a in page.accounts),
        steps=tuple(ledger_rows.step_of(ledger_rows.step_row(s)) for s in page.steps),
        clock=ledger_rows.clock_of(ledger_rows.clock_text(clock) if clock else None),
    )
    return Ledger(saved, boot_id=boot)


def total_uj(ledger: Ledger, sensor: str = "cpu", channel: str = ZONE) -> int:
    account = ledger.account(sensor, channel)
    assert account is not None
    assert 0 <= account.total.total_uj < 10**6
    return account.total.total_j * 10**6 + account.total.total_uj


def told_gaps(*ledgers: Ledger) -> list[GapRecord]:
    return [gap for ledger in ledgers for gap in ledger.page().gaps]


def only_gap(ledger: Ledger) -> GapRecord:
    (gap,) = told_gaps(ledger)
    return gap


@dataclass
class Machine:
    """A package with its true energy, the kernel's counter, and an agent that comes and goes."""

    counts: int
    boot: str = "a"
    boot_s: float = 5.0
    measured_counts: int = 0
    wraps_count: int = 0
    shown_counts: int | None = None

    @property
    def raw(self) -> int:
        return self.counts % COUNTS * UNIT_UJ

    def draw(self, counts: int, span_s: float) -> None:
        self.counts += counts
        self.boot_s += span_s

    def show(self, ledger: Ledger) -> None:
        ledger.take("cpu", [zone(self.raw, self.boot_s, boot=self.boot)])
        if self.shown_counts is not None:
            self.measured_counts += self.counts - self.shown_counts
            self.wraps_count += self.counts // COUNTS - self.shown_counts // COUNTS
        self.shown_counts = self.counts

    def reboot(self, counts: int, number: int) -> None:
        self.counts, self.shown_counts = counts, None
        self.boot, self.boot_s = f"boot-{number}", 5.0


# At most 200 s between reads and at most 1 kW: never two wraps.
MOVES = st.tuples(st.sampled_from(["read", "kill", "stop", "reboot"]), st.integers(0, 199 * 10**9))


@given(start=st.integers(0, COUNTS - 1), moves=st.lists(MOVES, min_size=1, max_size=60))
def test_the_total_is_the_truth_over_any_restarts_wraps_and_reboots(
    start: int, moves: list[tuple[str, int]]
) -> None:
    machine, ledger = Machine(counts=start), Ledger(boot_id="a")
    machine.show(ledger)
    saved = ledger.page()
    for number, (move, drawn_uj) in enumerate(moves):
        if move == "reboot":
            machine.reboot(drawn_uj, number)
        else:
            machine.draw(drawn_uj // UNIT_UJ, 200.0)
        if move != "read":
            # A kill between two reads leaves what the last save left.
            ledger = Ledger(saved, boot_id=machine.boot)
        machine.show(ledger)
        saved = merged(saved, ledger.page(), most_count=100)
    lost_uj = machine.wraps_count * UNIT_UJ
    assert total_uj(ledger) == machine.measured_counts * UNIT_UJ - lost_uj


@given(
    start=st.integers(COUNTS - 10**9, COUNTS - 1),
    moves=st.lists(
        st.tuples(st.sampled_from(["read", "save", "kill"]), st.integers(0, 5 * 10**9)),
        min_size=1,
        max_size=40,
    ),
)
def test_a_kill_between_saves_loses_nothing(start: int, moves: list[tuple[str, int]]) -> None:
    machine, ledger = Machine(counts=start), Ledger(boot_id="a")
    machine.show(ledger)
    saved = ledger.page()
    for move, drawn_uj in moves:
        machine.draw(drawn_uj // UNIT_UJ, 5.0)
        if move == "kill":
            ledger = Ledger(saved, boot_id="a")
        machine.show(ledger)
        if move == "save":
            saved = merged(saved, ledger.page(), most_count=100)
    restored = Ledger(saved, boot_id="a")
    machine.draw(0, 1.0)
    machine.show(restored)
    drawn_uj = (machine.counts - start) * UNIT_UJ
    assert total_uj(restored) == drawn_uj - machine.wraps_count * UNIT_UJ
    assert total_uj(ledger) == total_uj(restored)


def test_a_restart_tells_no_power_of_now_from_the_time_it_was_away() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("cpu", [zone(0, 10.0)])
    again = restarted(ledger)
    steps = again.take("cpu", [zone(60_000_000_000, 310.0)])
    assert steps == {("cpu", ZONE): Step(kind=StepKind.FIRST)}
    assert again.energies_j() == {("cpu", ZONE): 60_000.0}
    assert again.take("cpu", [zone(60_050_000_000, 311.0)])["cpu", ZONE].power_w == 50.0


def test_a_counter_that_is_not_there_any_more_shows_no_energy() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("cpu", [zone(0, 10.0)])
    assert restarted(ledger).energies_j() == {}


def test_totals_go_on_beyond_the_end_of_64_bits_of_microjoules() -> None:
    ledger, before = Ledger(boot_id="a"), None
    for step in range(4):
        ledger.take("meter", [meter(step * 4 * 10**13, 10.0 + step, digits=15)])
        before = merged(before, ledger.page(), most_count=100)
        ledger = Ledger(before, boot_id="a")
    ledger.take("meter", [meter(12 * 10**13 + 1, 20.0, digits=15)])
    assert total_uj(ledger, "meter", "meter/energy_wh") == (12 * 10**13 + 1) * 3600 * 10**6
    row = ledger_rows.account_row(ledger.page().accounts[0])
    assert ledger_rows.account_of(row).total.total_j == 432 * 10**15 + 3600


def watched(*, power_w: int = 100, minutes: int = 120, boot: str = "a") -> Ledger:
    """A ledger that saw a steady package from boot second 0 on."""
    ledger = Ledger(boot_id=boot)
    for minute in range(minutes + 1):
        raw = minute * 60 * power_w * 10**6 % RANGE_UJ
        ledger.take("cpu", [zone(raw, minute * 60.0, boot=boot)])
    return ledger


def test_a_new_boot_is_a_gap_beside_the_total() -> None:
    ledger = watched(power_w=100, minutes=120)
    # Off or away for 10 minutes, of which the machine ran the last 8.
    again = restarted(ledger, boot="b")
    again.take("cpu", [zone(5_000_000, 480.0, boot="b", wall_s=WALL_S + 7_200 + 600)])
    again.take("cpu", [zone(6_000_000, 490.0, boot="b", wall_s=WALL_S + 7_200 + 610)])
    gap = only_gap(again)
    assert gap.cause is GapCause.REBOOT
    assert (gap.start.boot_id, gap.end.boot_id) == ("a", "b")
    assert total_uj(again) == 100 * 7_200 * 10**6 + 1_000_000
    # 480 s at 100 W, and 120 s anywhere between off and 110 W.
    assert gap.energy_j == pytest.approx(100 * 480 + 50 * 120)
    assert gap.energy_j_u is not None and 1_000 < gap.energy_j_u < 8_000
    account = again.account("cpu", ZONE)
    assert account is not None
    assert (account.gaps_count, account.gaps_j) == (1, gap.energy_j)
    hidden = again.hidden()["cpu", ZONE]
    assert (hidden.energy_j, hidden.energy_j_u) == (gap.energy_j, gap.energy_j_u)
    assert ledger.hidden() == {}


def test_a_boot_whose_clock_begins_in_1970_has_its_gap_put_right_when_the_clock_is_set() -> None:
    again = restarted(watched(power_w=100, minutes=120), boot="b")
    again.look(0, 470 * S)
    again.take("cpu", [zone(5_000_000, 480.0, boot="b", wall_s=10.0)])
    assert only_gap(again).energy_j == pytest.approx(100 * 480)
    again.look((WALL_S + 7_200 + 610) * S, 490 * S)
    page = again.page()
    assert page.steps[0].step_ns == (WALL_S + 7_200 + 610 - 20) * S
    assert page.gaps[0].energy_j == pytest.approx(100 * 480 + 50 * 120)


def test_a_clock_that_was_set_while_the_agent_was_away_is_found() -> None:
    ledger = Ledger(boot_id="a")
    ledger.look(5 * S, 5 * S)
    again = restarted(ledger)
    again.look((WALL_S + 65) * S, 65 * S)
    (step,) = again.page().steps
    assert (step.boot_id, step.step_ns) == ("a", WALL_S * S)


def test_a_gap_whose_counter_was_never_watched_has_no_energy() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("cpu", [zone(5, 10.0)])
    again = restarted(ledger, boot="b")
    again.take("cpu", [zone(7, 10.0, boot="b", wall_s=WALL_S + 600)])
    gap = only_gap(again)
    assert (gap.energy_j, gap.energy_j_u) == (None, None)
    hidden = again.hidden()["cpu", ZONE]
    assert (hidden.gaps_count, hidden.energy_j, hidden.energy_j_u) == (1, None, None)


def test_a_clock_that_jumps_at_every_look_fills_no_memory() -> None:
    ledger = Ledger(boot_id="a")
    for look in range(3_000):
        ledger.look(look % 2 * 100 * S, look * S)
        ledger.page()
    assert len(ledger._steps) == STEPS_MOST


def test_a_meter_counts_on_through_boots_and_rolls_over_exactly() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("meter", [meter(99_999_990, 5_000.0)])
    again = restarted(ledger, boot="b")
    again.take("meter", [meter(10, 30.0)])
    assert again.energies_j() == {("meter", "meter/energy_wh"): 20 * 3600.0}
    assert told_gaps(again) == []


def test_another_meter_is_a_gap_and_a_life_of_its_own() -> None:
    ledger = Ledger(boot_id="a")
    for second, raw in ((0, 500), (60, 510), (120, 520)):
        ledger.take("meter", [meter(raw, float(second))])
    again = restarted(ledger)
    again.take("meter", [meter(7, 240.0, number="LUG.2")])
    again.take("meter", [meter(17, 300.0, number="LUG.2")])
    gap = only_gap(again)
    assert (gap.cause, gap.number) == (GapCause.EXCHANGE, 1)
    # 10 Wh a minute before and after it, for two minutes.
    assert gap.energy_j == pytest.approx(20 * 3600)
    assert total_uj(again, "meter", "meter/energy_wh") == 30 * 3600 * 10**6


def test_a_driver_that_is_loaded_again_begins_at_its_new_value() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("gpu", [card(9_000_000, 10.0)])
    ledger.take("gpu", [card(9_100_000, 11.0)])
    ledger.take("gpu", [card(2_000, 20.0)])
    assert ledger.is_urgent
    ledger.take("gpu", [card(3_500, 30.0)])
    assert only_gap(ledger).cause is GapCause.RESET
    assert total_uj(ledger, "gpu", "nvml/0000:3b:00.0") == 101_500_000


def test_an_event_that_was_opened_again_is_a_gap_of_the_same_boot() -> None:
    def event(raw: int, boot_s: float, opened: str) -> Reading:
        return replace(zone(raw, boot_s), channel="perf/energy-pkg/cpu0", generation=f"a/{opened}")

    ledger = Ledger(boot_id="a")
    for second in range(0, 601, 60):
        ledger.take("cpu", [event(second * 50 * 10**6, float(second), "1")])
    again = restarted(ledger)
    again.take("cpu", [event(10, 720.0, "2")])
    again.take("cpu", [event(50 * 10**6 + 10, 721.0, "2")])
    gap = only_gap(again)
    assert gap.cause is GapCause.UNREADABLE
    assert gap.energy_j == pytest.approx(50 * 120)
    assert total_uj(again, channel="perf/energy-pkg/cpu0") == 601 * 50 * 10**6


def test_a_count_in_another_unit_is_no_energy() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("meter", [meter(5_000, 10.0)])
    again = restarted(ledger)
    again.take("meter", [replace(meter(5_001, 70.0), exponent=3)])
    again.take("meter", [replace(meter(5_002, 80.0), exponent=3)])
    assert only_gap(again).cause is GapCause.RESET
    assert total_uj(again, "meter", "meter/energy_wh") == 1000 * 3600 * 10**6


def test_a_zone_without_a_boot_id_lives_no_longer_than_the_kernel() -> None:
    ledger = Ledger(boot_id="a")
    ledger.take("cpu", [replace(zone(5_000, 100.0), generation="")])
    again = restarted(ledger, boot="b")
    again.take("cpu", [replace(zone(9_000, 200.0), generation="")])
    assert total_uj(again) == 0
    assert only_gap(again).cause is GapCause.REBOOT


def test_a_rating_tells_one_wrap_from_two() -> None:
    # 600 s: 1 kW would begin anew twice, 120 W never.
    ledger = Ledger(boot_id="a")
    ledger.take("cpu", [zone(0, 0.0)])
    again = restarted(ledger)
    again.take("cpu", [zone(60_000_000_000, 600.0), rated(100.0)])
    assert total_uj(again) == 60_000_000_000
    assert told_gaps(again) == []


def test_several_possible_wraps_are_an_estimate_beside_the_total() -> None:
    again = restarted(watched(power_w=100, minutes=120))
    away_uj = 6_000 * 100 * 10**6
    start_uj = 7_200 * 100 * 10**6
    again.take("cpu", [zone((start_uj + away_uj) % RANGE_UJ, 7_200.0 + 6_000)])
    gap = only_gap(again)
    assert gap.cause is GapCause.MULTI_WRAP
    assert gap.energy_j == pytest.approx(away_uj / 1e6)
    assert gap.energy_j_u == pytest.approx(RANGE_UJ / 1e6 / 12**0.5)
    assert total_uj(again) == start_uj


def test_the_minute_after_a_gap_tells_more_of_it() -> None:
    again = restarted(watched(power_w=100, minutes=120))
    end_s, raw = 7_200.0 + 20_000, 1_000_000
    again.take("cpu", [zone(raw, end_s)])
    before = only_gap(again)
    for second in range(10, 70, 10):
        again.take("cpu", [zone(raw + second * 200 * 10**6, end_s + second)])
    after = only_gap(again)
    assert (after.number, after.cause) == (before.number, before.cause)
    assert before.energy_j is not None and after.energy_j is not None
    assert after.energy_j > before.energy_j
    account = again.account("cpu", ZONE)
    assert account is not None and account.gaps_j == pytest.approx(after.energy_j)


def test_pages_merge_to_the_newest_of_each_and_keep_their_gaps() -> None:
    ledger = Ledger(boot_id="a")
    raws = (9_000, 100, 50, 20)
    pages = []
    for second, raw in enumerate(raws):
        ledger.take("gpu", [card(raw, 10.0 + second)])
        pages.append(ledger.page())
    whole = None
    for page in pages:
        whole = merged(whole, page, most_count=2)
    assert whole is not None
    assert [account.total.raw for account in whole.accounts] == [20]
    assert [gap.number for gap in whole.gaps] == [2, 3]
