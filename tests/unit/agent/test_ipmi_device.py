"""IPMI: the kernel's device, its layouts and its answers."""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.agent.ipmi_rig import ANSWER, CAN, Kernel

from heatpool.errors import WireError
from heatpool_agent.core.ipmi import POWER_REQUEST
from heatpool_agent.sensors.ipmi import device


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    kernel = Kernel(tmp_path / "dev")
    kernel.answers = {2: [ANSWER], 1: [CAN]}
    return kernel


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0)
    yield descriptor
    os.close(descriptor)


def test_the_layouts_are_the_kernel_s(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/ipmi.h").exists():
        pytest.skip("no gcc or no <linux/ipmi.h> here to compare with")
    source = tmp_path / "layout.c"
    source.write_text(
        """
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        #include <linux/ipmi.h>
        int main(void) {
            printf("%lu %lu %zu %zu %zu %zu %zu %zu %zu %zu %d %d %d\\n",
                (unsigned long)IPMICTL_SEND_COMMAND, (unsigned long)IPMICTL_RECEIVE_MSG_TRUNC,
                sizeof(struct ipmi_req), offsetof(struct ipmi_req, msg),
                offsetof(struct ipmi_req, msgid), offsetof(struct ipmi_msg, data),
                sizeof(struct ipmi_recv), offsetof(struct ipmi_recv, msg),
                offsetof(struct ipmi_recv, addr),
                offsetof(struct ipmi_system_interface_addr, lun),
                IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IPMI_BMC_CHANNEL, IPMI_RESPONSE_RECV_TYPE);
        }
        """,
        encoding="ascii",
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, source, "-o", program], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert [int(number) for number in told.split()] == [
        device.SEND, device.RECEIVE,
        ctypes.sizeof(device.Sent), device.Sent.msg.offset,
        device.Sent.msgid.offset, device.Message.data.offset,
        ctypes.sizeof(device.Received), device.Received.msg.offset,
        device.Received.addr.offset, device.Address.lun.offset,
        device.SYSTEM_INTERFACE, device.BMC_CHANNEL, 1,
    ]  # fmt: skip


def test_a_command_goes_in_and_its_answer_comes_out(kernel: Kernel, wake: int) -> None:
    told = device.answer(kernel.path, POWER_REQUEST, timeout_s=60, wake=wake, ioctl=kernel.ioctl)
    assert told == ANSWER
    assert kernel.asked == [(0x2C, 0x02, b"\xdc\x01\x00\x00")]


def test_events_and_answers_to_others_are_passed_over(kernel: Kernel, wake: int) -> None:
    kernel.strays = [(2, 1), (1, 99)]
    told = device.answer(kernel.path, POWER_REQUEST, timeout_s=60, wake=wake, ioctl=kernel.ioctl)
    assert told == ANSWER


def test_silence_ends_in_time(kernel: Kernel, wake: int) -> None:
    kernel.answers = {}
    with pytest.raises(TimeoutError):
        device.answer(kernel.path, POWER_REQUEST, timeout_s=0.01, wake=wake, ioctl=kernel.ioctl)


def test_a_thread_that_nobody_waits_for_is_woken(kernel: Kernel, wake: int) -> None:
    kernel.answers = {}
    os.eventfd_write(wake, 1)
    with pytest.raises(OSError, match="nobody waits") as caught:
        device.answer(kernel.path, POWER_REQUEST, timeout_s=30, wake=wake, ioctl=kernel.ioctl)
    assert caught.value.errno == errno.ECANCELED


def test_an_endless_answer_is_refused(kernel: Kernel, wake: int) -> None:
    kernel.answers = {2: [bytes(400)]}
    with pytest.raises(WireError, match="longer"):
        device.answer(kernel.path, POWER_REQUEST, timeout_s=60, wake=wake, ioctl=kernel.ioctl)


@pytest.mark.parametrize("name", device.NAMES)
def test_every_name_of_the_device_is_known(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert device.device(tmp_path) == path
