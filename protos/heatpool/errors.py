"""The error tree: every leaf says what its catcher does.

    HeatpoolError
    ├─ ConfigError      every mistake at once; the program does not start (exit 2)
    ├─ SensorError
    │  ├─ SensorBusy    again at the next tick or later, counted
    │  └─ SensorGone    retire the driver, say so once, look again later
    ├─ ActuatorError    release: the site rejects heat locally
    ├─ WireError        refuse the batch, keep it aside; never drop in silence
    ├─ UplinkError      the line is down: keep the spool, come back later
    ├─ LogError         do not acknowledge
    │  └─ LogDamaged    stop: no patience mends the file, a person does
    ├─ StoreError       do not acknowledge
    └─ LedgerError      stop settling this period; money is never guessed

Anything outside this tree is a bug and is loud.
"""

from collections.abc import Sequence


class HeatpoolError(Exception):
    """A failure that heatpool expects and has an answer to."""


class ConfigError(HeatpoolError):
    """A configuration that cannot be used; `mistakes` lists every one of them."""

    def __init__(self, mistakes: Sequence[str], *, file: str = "") -> None:
        self.mistakes = tuple(mistakes)
        self.file = file
        where = f"{file}: " if file else ""
        super().__init__("\n".join(f"{where}{mistake}" for mistake in self.mistakes))


class SensorError(HeatpoolError):
    """A sensor that gave no reading this time."""


class SensorBusy(SensorError):
    """The device asks for patience: read again after `wait_s`."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class SensorGone(SensorError):
    """The device does not answer or may not be read: `reason`, and what mends it, `fix`."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"{reason}; {fix}" if fix else reason)


class ActuatorError(HeatpoolError):
    """A command that did not arrive at the device: release it."""


class WireError(HeatpoolError):
    """Bytes that cannot be read: `reason`, and the byte `offset` where known."""

    def __init__(self, reason: str, *, offset: int | None = None) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason if offset is None else f"{reason} (byte {offset})")


class UplinkError(HeatpoolError):
    """The aggregator cannot be reached or refused us; `wait_s` if it said when to return."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class LogError(HeatpoolError):
    """The durable inbox did not take the frames: nothing may be acknowledged."""


class LogDamaged(LogError):
    """The durable inbox cannot be read any more, however often it is tried."""


class StoreError(HeatpoolError):
    """The history did not take the change."""


class LedgerError(HeatpoolError):
    """Accounts that do not add up: settling stops for this period."""
