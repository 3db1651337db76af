"""What systemd hears, on real datagram sockets."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from heatpool_agent import watchdog


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A free socket address as systemd writes it."""
    return {"path": str(tmp_path / "notify"), "abstract": f"@heatpool-{os.getpid()}"}[request.param]


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    """The other end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(address.replace("@", "\0"))
        line.settimeout(2)
        yield line


@pytest.mark.parametrize(
    ("tell", "text"),
    [
        (watchdog.ready, b"READY=1"),
        (watchdog.alive, b"WATCHDOG=1"),
        (watchdog.stopping, b"STOPPING=1"),
    ],
)
def test_systemd_hears_each_word(
    systemd: socket.socket, address: str, tell: Callable[[Mapping[str, str]], None], text: bytes
) -> None:
    tell({"NOTIFY_SOCKET": address})
    assert systemd.recv(100) == text


def test_without_systemd_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    watchdog.ready({})
    assert caplog.records == []


def test_an_unheard_word_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog.ready({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert [record.getMessage() for record in caplog.records] == ["watchdog.unheard"]


def test_a_full_socket_does_not_hold_the_sampling_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(path)
        for _ in range(10_000):
            watchdog.alive({"NOTIFY_SOCKET": path})
    assert "watchdog.unheard" in [record.getMessage() for record in caplog.records]
