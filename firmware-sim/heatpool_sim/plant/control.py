"""The holding block of a coolant unit: who may open the network valve, and for how long."""

from dataclasses import dataclass, replace
from enum import IntEnum
from math import inf


class Mode(IntEnum):
    """Third cell of the block, as printed in the maker's manual."""

    LOCAL = 0
    REMOTE = 1
    NETWORK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The block as last written, when, and whether its watchdog has run out since."""

    setpoint_w: int = 0
    watchdog_s: int = 0
    mode: Mode = Mode.LOCAL
    written_ns: int = 0
    is_expired: bool = False


def cells(control: Control) -> tuple[int, int, int, int]:
    """The four cells 0..3: setpoint high and low, watchdog, mode."""
    return (
        control.setpoint_w >> 16,
        control.setpoint_w & 0xFFFF,
        control.watchdog_s,
        int(control.mode),
    )


def written(control: Control, values: list[int], *, at: int, boot_ns: int) -> Control | None:
    """The block after a write from cell `at` on, its watchdog started anew; None if refused."""
    block = list(cells(control))
    if at < 0 or at + len(values) > len(block) or any(not 0 <= v <= 0xFFFF for v in values):
        return None
    block[at : at + len(values)] = values
    if block[3] not in set(Mode):
        return None
    # A watchdog of zero means that nobody may steer from afar.
    mode = Mode.LOCAL if block[3] == Mode.REMOTE and not block[2] else Mode(block[3])
    return Control(
        setpoint_w=block[0] << 16 | block[1],
        watchdog_s=block[2],
        mode=mode,
        written_ns=boot_ns,
    )


def watched(control: Control, *, boot_ns: int) -> Control:
    """The block now: remote control whose watchdog ran out has become local."""
    silent_ns = boot_ns - control.written_ns
    if control.mode is not Mode.REMOTE or silent_ns < control.watchdog_s * 10**9:
        return control
    return replace(control, mode=Mode.LOCAL, is_expired=True)


def wish_w(control: Control) -> float:
    """Heat rate that the valve is asked to let into the network, W; inf: all that is useful."""
    return {
        Mode.LOCAL: 0.0,
        Mode.REMOTE: float(control.setpoint_w),
        Mode.NETWORK: inf,
    }[control.mode]
