"""A password file that cannot be used names the command that mends it, with real names."""

import getpass
import os
from pathlib import Path

import pytest

from heatpool.errors import SensorGone
from heatpool_agent.sensors.password_file import password_of


@pytest.mark.parametrize("text", ["secret", "secret\n", "secret\r\n", "secret\nsecond"])
def test_the_first_line_is_the_password(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(text.encode())
    assert password_of(file) == "secret"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "is not there"), (b"\n", "is empty"), (b"\xff", "is no text")]
)
def test_an_unusable_file_is_told_once_with_its_cure(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "a secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SensorGone) as caught:
        password_of(file)
    assert caught.value.reason == f"password_file {file}: {reason}"
    cure = f"chown {getpass.getuser()} '{file}' && chmod 0400 '{file}'"
    assert caught.value.fix.endswith(cure)


def test_a_file_that_may_not_be_read_is_told_by_the_command_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    file.chmod(0)
    if os.access(file, os.R_OK):
        file.unlink()
        file.mkdir()  # root may read everything but a folder
    with pytest.raises(SensorGone) as caught:
        password_of(file)
    assert "Errno" not in str(caught.value)
    assert caught.value.reason.count(str(file)) == 1
    assert caught.value.fix == f"chown {getpass.getuser()} {file} && chmod 0400 {file}"
