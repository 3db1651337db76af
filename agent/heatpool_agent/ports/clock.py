"""The door to time."""

from typing import Protocol


class Clock(Protocol):
    """The only source of time; passed in, so that tests own it."""

    def event_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def boot_ns(self) -> int:
        """Nanoseconds since boot, running on through suspend; no clock step touches it."""
        ...
