"""The daemon's tick beside a meter: what it learns, of what it does not, and what it keeps."""

import random
from dataclasses import replace

import pytest
from unit.agent.learning_site import CPUS, Site

from heatpool.sample import QualityClass
from heatpool_agent.core.calibrate import of_load
from heatpool_agent.core.coefficients import COMPONENTS, LOAD, LOOP, predicted
from heatpool_agent.core.reading import Node


async def test_beside_a_bmc_the_host_s_counters_and_load_are_learnt() -> None:
    site = Site()
    await site.work(300)
    found = {one.kind: one for one in site.learning.coefficients}
    assert found[COMPONENTS].basis == ("package",)
    assert found[COMPONENTS].values[:2] == pytest.approx((95, 1.15), rel=0.1)
    assert found[COMPONENTS].reference == "chassis"
    assert found[LOAD].count >= 20
    assert LOOP not in found


async def test_when_the_meter_is_taken_away_what_was_learnt_takes_its_place() -> None:
    site = Site()
    await site.work(300)
    site.lose("bmc")
    # The tree waits for a level that is silent; another life of the agent has not seen it.
    again = Site(clock=site.clock)
    again.learning = site.learning
    again.sense._learning = site.learning
    site.clock.second += 120
    wall_w = [await again.second(0.5, meters=()) for _ in range(3)][-1]
    assert again.board.electric is not None
    assert again.board.electric.quality is QualityClass.C
    assert again.board.electric.value == pytest.approx(wall_w, rel=0.02)
    assert "learned:chassis" in again.board.electric.flags


@pytest.mark.parametrize("is_restarted", [True, False])
async def test_a_bmc_on_loan_takes_its_board_and_fans_along_and_leaves_class_c(
    *, is_restarted: bool
) -> None:
    site = Site()
    for second in range(300):
        # The same BMC through two doors, of which one shows no power of the whole.
        await site.say("ipmi", Node.FAN, power_w=14.0 + 0.1 * (second % 7))
        await site.second(0.1 + 0.2 * ((second // 20) % 5), has_board=True)
    bases = {one.basis for one in site.learning.coefficients if one.kind == COMPONENTS}
    assert bases == {("package",), ("fan", "package")}
    left = site
    if is_restarted:
        left = Site(clock=site.clock)
        left.learning = left.sense._learning = site.learning
    for sensor in ("bmc", "ipmi"):
        site.lose(sensor)
    site.clock.second += 120
    wall_w = [await left.second(0.5, meters=()) for _ in range(5)][-1]
    assert left.board.electric is not None
    assert left.board.electric.quality is QualityClass.C
    assert left.board.electric.value == pytest.approx(wall_w, rel=0.02)
    assert "learned:chassis" in left.board.electric.flags


async def test_without_any_meter_the_counters_teach_the_load_and_nothing_teaches_them() -> None:
    site = Site()
    await site.work(300, meters=())
    (found,) = site.learning.coefficients
    assert (found.kind, found.reference) == (LOAD, COMPONENTS)
    assert found.quality == QualityClass.D


async def test_a_load_that_rests_teaches_nothing() -> None:
    site = Site()
    for _ in range(200):
        await site.second(0.5)
    assert site.learning.coefficients == ()


async def test_only_the_meter_on_loan_teaches() -> None:
    loan = Site(reference="plug")
    await loan.work(200, meters=("bmc", "plug"))
    assert loan.kinds()[COMPONENTS] >= 15
    other = Site(reference="bmc")
    await other.work(200, meters=("bmc", "plug"))
    assert other.kinds()[COMPONENTS] >= 15
    nobody = Site(reference="rapl")
    await nobody.work(200, meters=("bmc", "plug"))
    assert nobody.kinds() == {}


async def test_levels_that_contradict_each_other_teach_nothing() -> None:
    site = Site()
    for second in range(200):
        site.clock.second += 1
        busy = 0.1 + 0.2 * ((second // 20) % 5)
        await site.say("host", Node.HOST, busy_frac=busy, logical_cpu_count=float(CPUS))
        await site.say("rapl", Node.PACKAGE, power_w=100 + 160 * busy)
        # A BMC that shows half of what lies inside it.
        await site.say("bmc", Node.CHASSIS, power_w=0.5 * (100 + 160 * busy))
        site.sense.tick(site.clock.event_ns(), site.clock.boot_ns())
    assert site.kinds() == {}


async def test_a_meter_that_is_late_does_not_teach_that_counters_are_wrong() -> None:
    site, r = Site(), random.Random(6)
    busy, later_w = 0.5, 200.0
    for second in range(6000):
        busy = r.random() if second % 37 == 0 else busy
        if second % 30 == 0:
            await site.say("bmc", Node.CHASSIS, power_w=later_w)
        later_w = await site.second(busy, meters=())
    found = {one.kind: one for one in site.learning.coefficients}[COMPONENTS]
    assert found.values[:2] == pytest.approx((95, 1.15), rel=0.15)
    assert found.residual_u_frac < 0.08
    told = predicted(found, (150.0, 0.0, 0.0))
    assert told.value_w == pytest.approx(95 + 1.15 * 150, rel=0.03)


async def test_a_gap_does_not_run_into_a_lesson() -> None:
    site = Site()
    for _ in range(20):
        await site.work(5)
        site.clock.second += 200
    assert site.kinds() == {}


async def test_a_loop_s_capture_is_learnt_beside_its_coolant_until_a_sensor_stands_still() -> None:
    site, r = Site(), random.Random(2)
    counts: list[dict[str, int]] = []
    for second in range(2400):
        busy = 0.1 + 0.4 * ((second // 600) % 2)
        wall_w = 95 + 1.15 * (40 + 160 * busy)
        # 70 % of the wall is in the coolant.
        delta_k = 0.7 * wall_w / (1155.0 * 0.05)
        # A sensor that stands still while power moves, as it does at 1800 s, is a fault.
        hot_c = 40.0 + (r.gauss(0, 0.02) if second < 1500 else 0.0)
        water = {"hot_c": hot_c, "cold_c": hot_c - delta_k * (1 + r.gauss(0, 0.01))}
        await site.say("cdu", Node.CDU, volume_flow_m3_h=0.05 * (1 + r.gauss(0, 0.01)), **water)
        await site.second(busy)
        counts.append(site.kinds() if second % 10 == 0 else {})
    found = {one.kind: one for one in site.learning.coefficients}
    assert found[LOOP].values[0] == pytest.approx(0.72, abs=0.04)
    assert counts[1500][LOOP] > 50
    assert counts[2390][LOOP] == counts[1900][LOOP]


@pytest.mark.parametrize("times", [8.0, 30.0])
async def test_a_load_learnt_as_too_small_a_machine_takes_its_size_with_the_next_lesson(
    times: float,
) -> None:
    site, r = Site(), random.Random(4)

    async def taught(seconds: int) -> None:
        for second in range(seconds):
            site.clock.second += 1
            busy = busy_now(second)
            wall_w = times * (60 + 150 * busy) * (1 + r.gauss(0, 0.01))
            await site.say("host", Node.HOST, busy_frac=busy, logical_cpu_count=float(CPUS))
            await site.say("bmc", Node.CHASSIS, power_w=wall_w)
            site.sense.tick(site.clock.event_ns(), site.clock.boot_ns())

    def busy_now(second: int) -> float:
        return 0.1 + 0.2 * ((second // 20) % 5)

    await taught(200)
    key = (LOAD, "", ("busy_frac",))
    # What a life that knew no sizes left: the lessons, and the machine that was assumed.
    narrow = of_load("", 0.63 * CPUS, 3.35 * CPUS).prior
    site.learning._learners[key] = replace(site.learning._learners[key], prior=narrow)
    await taught(40)
    (found,) = (one for one in site.learning.coefficients if one.kind == LOAD)
    for busy in (0.2, 0.9):
        told, true_w = predicted(found, (busy,)), times * (60 + 150 * busy)
        assert abs(told.value_w - true_w) <= 2 * told.value_w_u
        assert told.value_w_u < 0.25 * true_w
