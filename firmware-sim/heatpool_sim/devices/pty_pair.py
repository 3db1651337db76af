"""Two pseudo terminals joined end to end: a serial cable between an agent and a device.

Both ends are paths that any program may open, close and open again, as with a real cable.
"""

import asyncio
import os
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CHUNK_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """The paths of the two ends."""

    near: str
    far: str


@contextmanager
def cable(*, heard: Callable[[bytes], bytes] = bytes) -> Iterator[Cable]:
    """A cable that lies as long as the context is open, inside a running event loop.

    `heard` sees what goes from the far end to the near one and says what arrives there.
    """
    near, near_slave = _terminal()
    far, far_slave = _terminal()
    loop = asyncio.get_running_loop()
    loop.add_reader(near, lambda: _passed(os.read(near, _CHUNK_BYTES), far))
    loop.add_reader(far, lambda: _passed(heard(os.read(far, _CHUNK_BYTES)), near))
    try:
        yield Cable(near=os.ttyname(near_slave), far=os.ttyname(far_slave))
    finally:
        for end in (near, far):
            loop.remove_reader(end)
        # The slaves stayed open here: a pseudo terminal that nobody holds has no other end.
        for end in (near, near_slave, far, far_slave):
            os.close(end)


def _passed(data: bytes, end: int) -> None:
    if data:
        os.write(end, data)


def _terminal() -> tuple[int, int]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave
