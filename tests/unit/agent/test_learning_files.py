"""What a daemon learnt, on its shelf: restarts, resets, damage, and files that are none."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from unit.agent.learning_site import S, Site

from heatpool.errors import ConfigError
from heatpool.sample import QualityClass
from heatpool_agent import calibrations
from heatpool_agent.calibrations import CALIBRATION, LEARNED, Shelf
from heatpool_agent.core.calibrate import Calibration
from heatpool_agent.loops.learning import SAVE_S


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
