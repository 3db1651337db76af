"""The door between a driver and its device: where the machine lies, and what is kept of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Tape(Protocol):
    """Between a driver and its device: every raw exchange passes here, to be kept or played back.

    `request` names the exchange and is the same each time the same thing is asked; an answer is
    bytes, or one of OSError, TimeoutError, SensorBusy, SensorGone and WireError. `hide` takes
    secrets and serial numbers out of what is kept. While a tape plays, nothing is asked.
    """

    @property
    def is_playing(self) -> bool:
        """Whether answers come from the tape, so that no device must be opened or connected."""
        ...

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The device's answer."""
        ...

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The same for what answers at once or blocks its own worker thread, such as a file."""
        ...


class Live:
    """No tape: every exchange goes straight to the device."""

    is_playing = False

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The device's answer."""
        return await ask()

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What is there."""
        return see()


LIVE = Live()


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the machine's own files lie; settings, so that dumps replay through the same code.

    `state` is a folder of the agent where a driver may leave a small file for its next life, such
    as a session to log out of; None where nothing may be left behind.
    """

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    nvml: str = "auto"
    state: Path | None = None
    tape: Tape = LIVE
