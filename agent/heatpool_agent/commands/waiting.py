"""Says on a terminal which sensors a look still waits for; without one it says nothing."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_EVERY_S = 2.0
_MOST_NAMES = 6


@contextmanager
def told_waiting(
    waited: set[str], stream: TextIO | None = None, *, every_s: float = _EVERY_S
) -> Iterator[None]:
    """Overwrites one line every two seconds while `waited` holds names; clears it at the end."""
    out = stream or sys.stderr
    if not out.isatty():
        yield
        return
    line = _Line(waited, out, every_s)
    line.begin()
    try:
        yield
    finally:
        line.end()


class _Line:
    def __init__(self, waited: set[str], out: TextIO, every_s: float) -> None:
        self._waited = waited
        self._out = out
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._next: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Looks again after a while."""
        self._next = self._loop.call_later(self._every_s, self._tell)

    def end(self) -> None:
        """Leaves an empty line."""
        if self._next is not None:
            self._next.cancel()
        self._out.write("\r\x1b[K")
        self._out.flush()

    def _tell(self) -> None:
        if self._waited:
            self._out.write(f"\r\x1b[K{self._sentence()}")
            self._out.flush()
        self.begin()

    def _sentence(self) -> str:
        names = sorted(self._waited)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        since_s = self._loop.time() - self._begun_s
        return f"{since_s:.0f} s: waiting for {', '.join(names[:_MOST_NAMES])}{more}"
