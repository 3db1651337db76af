"""A file of a command is there whole or not at all."""

import os
from pathlib import Path

import pytest

from heatpool.errors import StoreError
from heatpool_agent.commands import whole_file


def test_a_file_takes_its_name_once_all_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    path.chmod(0o640)
    with whole_file.written(path) as out:
        out.write("new")
        out.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_breaks_off_leaves_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file.written(path) as out:
        out.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    path.write_text("old")
    link.symlink_to(path)
    with whole_file.written(link) as out:
        out.write("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_a_device_is_written_and_never_replaced() -> None:
    with whole_file.written(Path(os.devnull)) as out:
        out.write("new")
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_names_the_file_and_what_to_do() -> None:
    with (
        pytest.raises(StoreError, match=r"^/dev/full: No space left on device; look at the disk"),
        whole_file.written(Path("/dev/full")) as out,
    ):
        out.write("new")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"), whole_file.written(tmp_path / "absent/rows"):
        pytest.fail("nothing to write to")
