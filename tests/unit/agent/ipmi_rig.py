"""What the tests of IPMI share: answers, texts, and a stand-in for the kernel's device."""

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

from heatpool_agent.sensors.ipmi import device

# DCMI 1.5, table 6-16: 167 W now, 124 to 422 W, 156 W over 699,043 s; a clock of 2016; bit 6.
ANSWER = bytes.fromhex("00 dc a700 7c00 a601 9c00 fb9b9f57 b8aeaa29 40")
INACTIVE = ANSWER[:-1] + b"\x00"
# No command of that name.
UNKNOWN = b"\xc1"
CAN = bytes.fromhex("00 dc 0105 02 00 01 07")
CANNOT = bytes.fromhex("00 dc 0105 02 00 00 07")

TEXT = """
    Instantaneous power reading:                   {power:>3} Watts
    Minimum during sampling period:                 90 Watts
    Maximum during sampling period:                510 Watts
    Average power reading over sample period:      140 Watts
    IPMI timestamp:                        07/31/16 21:20:00 UTC    Sampling period:  9 Seconds.
    Power reading state is:                   {state}

"""

LIST = """\
SEL              | 72h | ns  |  7.1 | No Reading
Fan1             | 30h | ok  |  7.1 | 5040 RPM
Power Supply 1   | 03h | ok  | 10.1 | 95 Watts, Presence detected
Power Supply 2   | 04h | ok  | 10.2 | 0 Watts, Presence detected, Failure detected
Power Supply 3   | 05h | ns  | 10.3 | No Reading
PS Redundancy    | 06h | ok  | 10.4 | Fully Redundant
Pwr Consumption  | 77h | ok  |  7.1 | 112 Watts
Avg Power        | 78h | ok  |  7.1 | 99 Watts
CPU Power        | 79h | ok  |  3.1 | 60 Watts
"""


def printed(power_w: int = 234, state: str = "activated") -> bytes:
    return TEXT.format(power=power_w, state=state).encode()


def script(folder: Path, body: str) -> str:
    path = folder / "ipmitool"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


class Kernel:
    """What answers ioctl: looks at the caller's memory as the kernel does; a FIFO is the device."""

    def __init__(self, dev: Path) -> None:
        dev.mkdir(parents=True, exist_ok=True)
        self.path = dev / "ipmi0"
        os.mkfifo(self.path)
        self.answers: dict[int, list[bytes]] = {}
        self.asked: list[tuple[int, int, bytes]] = []
        # Answers that come before ours, with what is wrong with them.
        self.strays: list[tuple[int, int]] = []
        self._waiting: list[tuple[int, int, bytes]] = []
        self.error: int = 0

    def ioctl(self, descriptor: int, number: int, found: Any) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        if number == device.SEND:
            self._take(descriptor, found)
        else:
            self._give(descriptor, number, found)

    def _take(self, descriptor: int, sent: Any) -> None:
        address = ctypes.string_at(sent.addr, sent.addr_len)
        assert struct.unpack_from("=ihB", address) == (0x0C, 0x0F, 0)
        data = ctypes.string_at(sent.msg.data, sent.msg.data_len)
        self.asked.append((sent.msg.netfn, sent.msg.cmd, data))
        for kind, number in self.strays:
            self._queue(descriptor, kind, number, b"\x00stray")
        for answer in self.answers.get(sent.msg.cmd, []):
            self._queue(descriptor, 1, sent.msgid, answer)

    def _queue(self, descriptor: int, kind: int, number: int, answer: bytes) -> None:
        self._waiting.append((kind, number, answer))
        os.write(descriptor, b"x")

    def _give(self, descriptor: int, number: int, found: Any) -> None:
        assert number == device.RECEIVE
        os.read(descriptor, 1)
        found.recv_type, found.msgid, answer = self._waiting.pop(0)
        if len(answer) > found.msg.data_len:
            raise OSError(errno.EMSGSIZE, "too long")
        ctypes.memmove(found.msg.data, answer, len(answer))
        found.msg.data_len = len(answer)
