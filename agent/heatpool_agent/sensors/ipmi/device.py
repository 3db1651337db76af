"""This machine's own BMC through the kernel's `/dev/ipmi0`: one command, one answer, no fork.

The layouts are those of <linux/ipmi.h>. The device is opened for each command, so that an answer
that came too late ends with it.
"""

import ctypes
import errno
import fcntl
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heatpool.errors import WireError
from heatpool_agent.core.ipmi import Request

# How kernels of different ages name it, below /dev.
NAMES = ("ipmi0", "ipmi/0", "ipmidev/0")
SYSTEM_INTERFACE = 0x0C
BMC_CHANNEL = 0x0F
_RESPONSE = 1
_MAGIC = ord("i")
# IPMI_MAX_MSG_LENGTH: more than any message has.
_MOST_BYTES = 272
_MSG_ID = 1

# What stands for fcntl.ioctl(descriptor, number, structure).
Ioctl = Callable[[int, int, Any], object]


class Address(ctypes.Structure):
    """struct ipmi_system_interface_addr"""

    _fields_ = (
        ("addr_type", ctypes.c_int),
        ("channel", ctypes.c_short),
        ("lun", ctypes.c_ubyte),
    )


class Message(ctypes.Structure):
    """struct ipmi_msg"""

    _fields_ = (
        ("netfn", ctypes.c_ubyte),
        ("cmd", ctypes.c_ubyte),
        ("data_len", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    )


class Sent(ctypes.Structure):
    """struct ipmi_req"""

    _fields_ = (
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", Message),
    )


class Received(ctypes.Structure):
    """struct ipmi_recv"""

    _fields_ = (
        ("recv_type", ctypes.c_int),
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", Message),
    )


def _number(direction: int, command: int, size_bytes: int) -> int:
    # _IOC of <asm-generic/ioctl.h>: direction, size, magic, command.
    return direction << 30 | size_bytes << 16 | _MAGIC << 8 | command


# _IOR(13) and _IOWR(11): the kernel names them from the program's side the other way round.
SEND = _number(2, 13, ctypes.sizeof(Sent))
RECEIVE = _number(3, 11, ctypes.sizeof(Received))


def device(dev: Path) -> Path | None:
    """The BMC's device; None where the kernel has none."""
    return next((dev / name for name in NAMES if (dev / name).exists()), None)


def answer(
    path: Path, request: Request, *, timeout_s: float, wake: int, ioctl: Ioctl = fcntl.ioctl
) -> bytes:
    """The BMC's answer from its completion code on; blocks, until `wake` becomes readable.

    Raises:
        OSError: no such device, no right to it, or woken (ECANCELED).
        TimeoutError: no answer in time.
        WireError: an answer that is longer than any.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _send(descriptor, request, ioctl)
        ends_s = time.monotonic() + timeout_s
        while True:
            _wait(descriptor, wake, ends_s - time.monotonic())
            if (found := _received(descriptor, ioctl)) is not None:
                return found
    finally:
        os.close(descriptor)


def _send(descriptor: int, request: Request, ioctl: Ioctl) -> None:
    data = ctypes.create_string_buffer(request.data, len(request.data))
    address = Address(addr_type=SYSTEM_INTERFACE, channel=BMC_CHANNEL, lun=0)
    sent = Sent(
        addr=ctypes.addressof(address),
        addr_len=ctypes.sizeof(address),
        msgid=_MSG_ID,
        msg=Message(
            netfn=request.netfn,
            cmd=request.command,
            data_len=len(request.data),
            data=ctypes.addressof(data),
        ),
    )
    ioctl(descriptor, SEND, sent)


def _wait(descriptor: int, wake: int, left_s: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(wake, select.POLLIN)
    ready = dict(poll.poll(max(left_s, 0.0) * 1000.0))
    if wake in ready:
        raise OSError(errno.ECANCELED, "nobody waits for the answer any more")
    if not ready:
        raise TimeoutError


def _received(descriptor: int, ioctl: Ioctl) -> bytes | None:
    """An answer's data; None where what came is no answer, or not here yet."""
    data = ctypes.create_string_buffer(_MOST_BYTES)
    address = ctypes.create_string_buffer(64)
    found = Received(
        addr=ctypes.addressof(address),
        addr_len=len(address),
        msg=Message(data=ctypes.addressof(data), data_len=_MOST_BYTES),
    )
    try:
        ioctl(descriptor, RECEIVE, found)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            raise WireError("ipmi: an answer longer than any message") from error
        raise
    if found.recv_type != _RESPONSE or found.msgid != _MSG_ID:
        return None
    return data.raw[: found.msg.data_len]
