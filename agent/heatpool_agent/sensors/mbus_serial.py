"""A serial port on the event loop: opened in a thread, then read as soon as bytes are there.

pyserial sets speed and parity and takes the lock; it is loaded with the first port alone, so that
who has none never pays for it.
"""

import asyncio
import errno
import grp
import importlib
import os
import pwd
import termios
from typing import Any

from heatpool.errors import SensorGone
from heatpool_agent.core.mbus_link import SerialPort

# Device numbers of pseudo terminals on Linux.
PSEUDO_MAJORS = range(136, 144)


class OpenPort:
    """A port that this process holds alone, 8E1."""

    def __init__(self, device: Any) -> None:
        self._device = device

    @classmethod
    async def of(cls, port: SerialPort) -> "OpenPort":
        """The port, held.

        Raises:
            SensorGone: it is missing, in use, or may not be opened.
        """
        # A cancelled opening ends in its thread, and what it opened closes with its last reference.
        return cls(await asyncio.to_thread(_opened, port))

    def send(self, frame: bytes) -> None:
        """Hands a frame to the port, after dropping whatever came unasked before it."""
        try:
            self._device.reset_input_buffer()
        except termios.error as error:
            raise OSError(*error.args) from error
        if os.write(self._device.fileno(), frame) != len(frame):
            raise OSError(errno.EIO, "the port takes no more bytes")

    async def read(self, most: int) -> bytes:
        """The next bytes, at least one; cancelled at once."""
        number = self._device.fileno()
        loop = asyncio.get_running_loop()
        is_ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(number, _wake, is_ready)
        try:
            await is_ready
        finally:
            loop.remove_reader(number)
        if not (data := os.read(number, most)):
            raise ConnectionResetError("the port is gone")
        return data

    def close(self) -> None:
        """Gives the port back."""
        self._device.close()


def _wake(is_ready: "asyncio.Future[None]") -> None:
    if not is_ready.done():
        is_ready.set_result(None)


def _opened(port: SerialPort) -> Any:
    try:
        serial = importlib.import_module("serial")
    except ImportError as error:
        raise SensorGone(
            f"{port.path}: pyserial is missing",
            fix="install it by: pip install 'pymodbus[serial]'",
        ) from error
    # What a pseudo terminal stands for (a tunnel, a test) sets its own parity; it refuses ours.
    parity = "N" if _is_pseudo(port.path) else "E"
    try:
        # No wait of its own: the event loop tells when there is something to read.
        return serial.Serial(port.path, port.baud, parity=parity, timeout=0, exclusive=True)
    except OSError as error:
        raise _refusal(port.path, error) from error
    except (termios.error, ValueError) as error:
        raise SensorGone(
            f"{port.path}: takes no {port.baud} baud with even parity: {error}",
            fix="use a converter for M-Bus, at a speed that it knows",
        ) from error


def _is_pseudo(path: str) -> bool:
    try:
        return os.major(os.stat(path).st_rdev) in PSEUDO_MAJORS
    except OSError:
        return False


def _refusal(path: str, error: OSError) -> SensorGone:
    if error.errno in (errno.EACCES, errno.EPERM):
        return SensorGone(
            f"{path}: this user may not open it",
            fix=f"sudo usermod -aG {_group(path)} {_user()}, then start the agent anew",
        )
    if error.errno in (errno.EAGAIN, errno.EBUSY):
        return SensorGone(
            f"{path}: another program holds it",
            fix=f"find it by: sudo fuser -v {path}; one program alone may ask on a bus",
        )
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return SensorGone(
            f"{path}: is not there",
            fix="plug the converter in; ls /dev/serial/by-id shows what there is",
        )
    return SensorGone(f"{path}: {error}", fix="name a serial port in url")


def _group(path: str) -> str:
    """Who may open the port besides its owner; a port of root's group alone needs a rule first."""
    try:
        found = os.stat(path).st_gid
        return grp.getgrgid(found).gr_name if found else "dialout"
    except (OSError, KeyError):
        return "dialout"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
