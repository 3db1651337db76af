"""The machine's own clock: every figure carries its time, and bills are cut by it."""

import ctypes
import shutil
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Verdict, fail, ok, warn

# struct timex of Linux with a long of 8 bytes: modes, offset, freq, maxerror, esterror, status.
_HEAD = struct.Struct("@I4xqqqqi")
_TIMEX_BYTES = 256
_UNSYNCED = 0x40
# Older than this program: such a clock was never set.
_LEAST_NS = 1_735_689_600_000_000_000
# Beyond it a row lands in the wrong tick of 1 s; the kernel's bound is a worst case.
MOST_ERROR_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSeen:
    """What kernel and services say; `bound_s` is the kernel's worst case."""

    now_ns: int
    is_synced: bool | None
    bound_s: float | None = None
    services: Sequence[str] = ()


def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room; blocking, asks the kernel only."""
    synced, bound_s = _kernel()
    if Path("/run/systemd/timesync/synchronized").exists():
        synced = True
    known = ("chronyd", "timedatectl")
    services = [name for name in known if shutil.which(name)]
    seen = ClockSeen(
        now_ns=time.time_ns(), is_synced=synced, bound_s=bound_s, services=tuple(services)
    )
    return (clock(seen),)


def clock(seen: ClockSeen) -> Verdict:
    """Whether the clock can be trusted to a second."""
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seen.now_ns / 1e9))
    if seen.now_ns < _LEAST_NS:
        why = "this date is before the program was made; every reading would be dated wrong"
        return fail("clock", day, why=why, fix=_fix(seen.services))
    if not seen.is_synced:
        return warn(
            "clock",
            f"{day}, not synchronised" if seen.is_synced is False else f"{day}, state unknown",
            why="a clock on its own drifts by seconds a week, and periods are settled by it",
            fix=_fix(seen.services),
        )
    if seen.bound_s is not None and seen.bound_s > MOST_ERROR_S:
        why = "its worst error is longer than a tick"
        found = f"{day}, synchronised, within {seen.bound_s:.1f} s"
        return warn("clock", found, why=why, fix=_fix(seen.services))
    bound = "" if seen.bound_s is None else f", within {seen.bound_s * 1000:.0f} ms"
    return ok("clock", f"{day}, synchronised{bound}")


def _fix(services: Sequence[str]) -> str:
    if "chronyd" in services:
        return "systemctl enable --now chrony && chronyc makestep (as root)"
    if "timedatectl" in services:
        return "timedatectl set-ntp true (as root); in a container: on its host"
    return "apt-get install chrony (as root); in a container: on its host"


def _kernel() -> tuple[bool | None, float | None]:
    """What the kernel holds of its clock; nothing is set (`modes` is 0)."""
    room = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    except (OSError, AttributeError):
        return None, None
    if answer < 0 or ctypes.sizeof(ctypes.c_long) != 8:
        return None, None
    _, _, _, bound_us, _, status = _HEAD.unpack_from(room)
    return not status & _UNSYNCED, bound_us / 1e6
