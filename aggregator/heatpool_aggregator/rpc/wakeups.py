"""The event loop that hears of gRPC's events once, however many there are.

For each event grpc.aio writes a byte into a socket, and each time the loop calls its handler it
takes one byte out, but all events: under load nine of ten turns of the loop would find nothing.
"""

import asyncio
import fcntl
import functools
import socket
import termios
from array import array
from collections.abc import Callable
from typing import Any, TypeVarTuple

Told = TypeVarTuple("Told")

# Of grpc._cython.cygrpc.PollerCompletionQueue; under any other name the loop is asyncio's own.
_HANDLER = "_handle_events"


class EventLoop(asyncio.SelectorEventLoop):
    """The loop of asyncio, but that gRPC's own socket is emptied at once."""

    def add_reader(self, fd: Any, callback: Callable[[*Told], Any], *args: *Told) -> None:
        """Calls back whenever there is something to read."""
        if isinstance(fd, socket.socket) and _is_of_grpc(callback):
            super().add_reader(fd, _at_once, fd, array("i", [0]), callback, *args)
        else:
            super().add_reader(fd, callback, *args)


def _is_of_grpc(callback: Any) -> bool:
    handler = callback.func if isinstance(callback, functools.partial) else callback
    return getattr(handler, "__name__", "") == _HANDLER


def _at_once(
    told: socket.socket, waiting: "array[int]", callback: Callable[[*Told], Any], *args: *Told
) -> None:
    # An event is in its queue before its byte is written: of a byte dropped here it is found there.
    fcntl.ioctl(told, termios.FIONREAD, waiting)
    if waiting[0] > 1:
        told.recv(waiting[0] - 1)
    callback(*args)
