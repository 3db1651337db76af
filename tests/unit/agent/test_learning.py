"""The daemon's tick beside a meter: what it learns, of what it does not, and what it keeps."""

import json
import os
import random
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from heatpool.errors import ConfigError
from heatpool.sample import QualityClass, SiteId
from heatpool_agent import calibrations
from heatpool_agent.board import Board
from heatpool_agent.calibrations import CALIBRATION, LEARNED, Shelf
from heatpool_agent.config import loop_priors
from heatpool_agent.core.calibrate import Calibration
from heatpool_agent.core.coefficients import COMPONENTS, LOAD, LOOP, predicted
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.learning import SAVE_S, Learning
from heatpool_agent.loops.loop_pass import LoopSettings
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven

S = 1_000_000_000
CPUS = 40
RACK = LoopSettings(
    loop_id="rack",
    fluid="water",
    sensor_side="cold",
    priors=loop_priors("dlc")[0],
    reported_u_frac=0.05,
    rejection_capacity_w=None,
)


class NoSensor:
    """Stands where a driver would; the test hands its readings over itself."""

    async def probe(self) -> Sequence[str]:
        return ()

    async def read(self) -> Sequence[Reading]:
        return ()

    async def close(self) -> None:
        """Nothing to free."""


@dataclass
class Clock:
    second: int = 1_760_000_000

    def event_ns(self) -> int:
        return self.second * S

    def boot_ns(self) -> int:
        return self.second * S


@dataclass
class Site:
    """One server: its load, its package counter, and the meters that a test gives it."""

    shelf: Shelf | None = None
    reference: str = ""
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.board = Board(site_id=SiteId("s1"))
        self.learning = Learning([RACK], self.clock, shelf=self.shelf, reference=self.reference)
        self.sense = Sense(
            [RACK],
            self.board,
            self.clock,
            spooling=None,
            period_s=1.0,
            report_period_s=10.0,
            learning=self.learning,
        )

    async def say(self, sensor: str, node: Node, **told: float) -> None:
        readings = [
            Reading(
                sensor=sensor,
                channel=f"{sensor}/{quantity}",
                quantity=quantity,
                kind=ReadingKind.GAUGE,
                value=value,
                event_ns=self.clock.event_ns(),
                boot_ns=self.clock.boot_ns(),
                node=node,
                loop="rack" if node is Node.CDU else "",
            )
            for quantity, value in told.items()
        ]
        self.board.latest[sensor] = tuple(readings)
        driven = Driven(id=sensor, kind="x", sensor=NoSensor(), period_s=1.0, timeout_s=5.0)
        await self.sense.take(driven, readings)

    def lose(self, sensor: str) -> None:
        self.board.latest.pop(sensor, None)

    async def second(self, busy: float, *, meters: Sequence[str] = ("bmc",)) -> float:
        """One second at this load, seen by the meters named; the true power at the wall, W."""
        self.clock.second += 1
        # A figure that never moves is taken for stuck.
        cpu_w = 40 + 160 * busy + 0.01 * (self.clock.second % 7)
        wall_w = 95 + 1.15 * cpu_w
        await self.say("host", Node.HOST, busy_frac=busy, logical_cpu_count=float(CPUS))
        await self.say("rapl", Node.PACKAGE, power_w=cpu_w)
        for meter in meters:
            node = {"bmc": Node.CHASSIS, "plug": Node.PDU}[meter]
            await self.say(meter, node, power_w=wall_w)
        self.sense.tick(self.clock.event_ns(), self.clock.boot_ns())
        return wall_w

    async def work(self, seconds: int, *, meters: Sequence[str] = ("bmc",)) -> None:
        """A load that changes every 20 s."""
        for second in range(seconds):
            await self.second(0.1 + 0.2 * ((second // 20) % 5), meters=meters)

    def classes(self) -> list[QualityClass]:
        return [] if self.board.electric is None else [self.board.electric.quality]

    def kinds(self) -> dict[str, int]:
        return {one.kind: one.count for one in self.learning.coefficients}


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


async def test_what_was_learnt_outlives_the_daemon(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(300)
    await site.learning.tend(SAVE_S)
    path = tmp_path / LEARNED
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [LEARNED]
    again = Site(shelf=Shelf(tmp_path))
    assert again.learning.coefficients == site.learning.coefficients


async def test_at_its_end_the_daemon_keeps_what_is_new_and_writes_nothing_twice(
    tmp_path: Path,
) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.learning.keep()
    assert not (tmp_path / LEARNED).exists()
    await site.work(100)
    await site.learning.keep()
    first = (tmp_path / LEARNED).stat().st_mtime_ns
    await site.learning.keep()
    assert (tmp_path / LEARNED).stat().st_mtime_ns == first


async def test_a_person_s_new_calibration_is_taken_over(tmp_path: Path) -> None:
    teacher = Site()
    await teacher.work(300, meters=("plug",))
    site = Site(shelf=Shelf(tmp_path))
    await site.second(0.5, meters=())
    assert site.classes() == [QualityClass.D]
    told = Calibration(coefficients=teacher.learning.coefficients)
    Shelf(tmp_path).keep_calibration(told, saved_ns=site.clock.event_ns())
    await site.learning.tend(30.0)
    await site.second(0.5, meters=())
    assert site.classes() == [QualityClass.C]


async def test_a_reset_is_noticed(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(300)
    await site.learning.keep()
    assert [path.name for path in Shelf(tmp_path).forget()] == [LEARNED]
    await site.learning.tend(30.0)
    assert site.learning.coefficients == ()


async def test_after_a_reset_learning_goes_on(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(100)
    await site.learning.keep()
    Shelf(tmp_path).forget()
    await site.learning.tend(30.0)
    await site.work(300)
    await site.learning.tend(30.0)
    assert site.learning.coefficients
    await site.learning.keep()
    assert (tmp_path / LEARNED).exists()


async def test_a_stop_soon_after_a_reset_does_not_bring_it_back(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(100)
    await site.learning.keep()
    await site.work(100)
    Shelf(tmp_path).forget()
    await site.learning.keep()
    assert not (tmp_path / LEARNED).exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00\xff",
        b"[]",
        b'{"schema": "heatpool.calibration/2", "saved_ns": 1}',
        b'{"schema": "heatpool.calibration/1"}',
        b'{"schema": "heatpool.calibration/1", "saved_ns": 1, "coefficients": [{"kind": "load"}]}',
        b'{"schema": "heatpool.calibration/1", "saved_ns": 1, "x": ' + b"[" * 100_000,
        b" " * (calibrations.MOST_BYTES + 1),
    ],
)
def test_a_damaged_file_is_set_aside_and_nothing_is_known(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / LEARNED
    path.write_bytes(damage)
    assert Shelf(tmp_path).learned() == Calibration()
    assert not path.exists()
    assert (tmp_path / "learned.damaged").read_bytes() == damage


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "dangling"])
def test_what_is_no_file_neither_holds_the_start_nor_teaches(tmp_path: Path, kind: str) -> None:
    path = tmp_path / LEARNED
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else tmp_path / "nowhere")
    assert Shelf(tmp_path).learned() == Calibration()


async def test_figures_that_no_lesson_leaves_are_refused(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(300)
    await site.learning.keep()
    whole = (tmp_path / LEARNED).read_bytes()
    calibrations.parsed(whole)
    changes: list[tuple[str, tuple[str | int, ...], float]] = [
        ("learners", ("prior", "means_u", 0), 1e-200),
        ("learners", ("slow", 0, "squares"), 1e200),
        ("learners", ("slow", 0, "count"), 0.0),
        ("learners", ("scatter_square",), -1.0),
        ("learners", ("count",), -1),
        ("coefficients", ("values", 1), 1e300),
        ("coefficients", ("values", 0), -5.0),
        ("coefficients", ("covariance", 0, 0), -1.0),
        ("coefficients", ("learned_ns",), 10**25),
        ("coefficients", ("count",), -4),
        ("coefficients", ("covariance", 0, 1), 1e300),
    ]
    for part, place, value in changes:
        told = json.loads(whole)
        inner = told[part][0]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        with pytest.raises(ValueError, match=rf"{part}\[0\]"):
            calibrations.parsed(json.dumps(told).encode())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for another user")
def test_what_root_learns_belongs_to_the_folder_s_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4322)
    Shelf(tmp_path).keep_calibration(Calibration(), saved_ns=1)
    told = (tmp_path / CALIBRATION).stat()
    assert (told.st_uid, told.st_gid) == (4321, 4322)


async def test_a_fit_that_went_badly_is_read_back(tmp_path: Path) -> None:
    site = Site()
    await site.work(300)
    bad = replace(site.learning.coefficients[0], residual_u_frac=2.2, reference_u_frac=1.5)
    shelf = Shelf(tmp_path)
    shelf.keep_learned(Calibration(coefficients=(bad,)), saved_ns=1)
    assert shelf.learned().coefficients == (bad,)


async def test_what_was_learnt_after_now_is_no_knowledge() -> None:
    site = Site()
    await site.work(300)
    known = site.learning.coefficients[0]
    assert known.is_valid(known.learned_ns)
    assert known.is_valid(known.learned_ns - 3600 * S)
    assert not known.is_valid(known.learned_ns - 30 * 86_400 * S)


def test_a_guest_leaves_a_damaged_file_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / CALIBRATION
    path.write_bytes(b"{")
    assert Shelf(tmp_path, is_guest=True).calibration() == Calibration()
    assert path.read_bytes() == b"{"


async def test_every_cut_of_a_file_is_refused_or_whole(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(100)
    await site.learning.keep()
    data = (tmp_path / LEARNED).read_bytes()
    for at in range(0, len(data), 97):
        with pytest.raises(ValueError, match=r"\S"):
            calibrations.parsed(data[:at])


async def test_sums_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    site = Site(shelf=Shelf(tmp_path))
    await site.work(100)
    await site.learning.keep()
    told = json.loads((tmp_path / LEARNED).read_bytes())
    told["learners"][0]["slow"][0]["row"] = [1.0]
    with pytest.raises(ValueError, match=r"learners\[0\]"):
        calibrations.parsed(json.dumps(told).encode())


def test_a_file_that_a_person_names_tells_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"schema": "heatpool.calibration/1", "saved_ns": "x"}')
    with pytest.raises(ConfigError, match=r"saved_ns[\s\S]*calibrate show --json"):
        calibrations.told(path)


async def test_a_disk_that_refuses_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    site = Site(shelf=Shelf(folder))
    await site.work(100)
    folder.write_text("in the way")
    await site.learning.keep()
    folder.unlink()
    await site.learning.keep()
    assert (folder / LEARNED).exists()


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
