"""NVIDIA's command in place of its library: texts of every driver, a fork that must not stay."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turns import cancelled

from heatpool.errors import SensorBusy, SensorGone, WireError
from heatpool_agent.core import smi_xml
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.sensors import nvml
from heatpool_agent.sensors.child import Children

ADDRESS = "0000:3b:00.0"
WRONG = "Requested functionality has been deprecated"


def text(gpu: str, *, head: str = '<?xml version="1.0" ?>\n') -> bytes:
    card = f'<gpu id="00000000:3B:00.0"><product_name>Some</product_name>{gpu}</gpu>'
    return (
        f"{head}<nvidia_smi_log><driver_version>1</driver_version>{card}</nvidia_smi_log>".encode()
    )


def script(folder: Path, body: str) -> str:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def plug(machine: Any, status: str) -> None:
    place = f"sys/bus/pci/devices/{ADDRESS}"
    machine.write(place, {"vendor": "0x10de", "class": "0x030200"})
    machine.write(f"{place}/power", {"runtime_status": status})


@pytest.mark.parametrize(
    ("section", "tags", "power_w", "source"),
    [
        ("power_readings", {"power_draw": "26.78 W"}, 26.78, "power_draw"),
        ("gpu_power_readings", {"power_draw": "67.03 W"}, 67.03, "power_draw"),
        (
            "gpu_power_readings",
            {"instant_power_draw": "142.33 W", "average_power_draw": "139.62 W"},
            139.62,
            "average_power_draw",
        ),
        ("gpu_power_readings", {"average_power_draw": "N/A", "instant_power_draw": "8.44 W"},
         8.44, "instant_power_draw"),
        ("power_readings", {"power_draw": "N/A"}, None, ""),
        ("power_readings", {"power_draw": "[Not Supported]"}, None, ""),
        ("power_readings", {"power_draw": WRONG}, None, ""),
        ("power_readings", {"power_draw": "nan W"}, None, ""),
        ("power_readings", {"power_draw": "-1 W"}, None, ""),
        ("power_readings", {"power_draw": "67 mW"}, None, ""),
        ("gpu_memory_power_readings", {"average_power_draw": "3.00 W"}, None, ""),
        ("no_such_readings", {"power_draw": "3.00 W"}, None, ""),
    ],
)  # fmt: skip
def test_power_is_found_under_the_tags_of_every_driver(
    section: str, tags: dict[str, str], power_w: float | None, source: str
) -> None:
    inner = "".join(f"<{tag}>{told}</{tag}>" for tag, told in tags.items())
    [(address, card)] = smi_xml.cards(text(f"<{section}>{inner}</{section}>")).items()
    assert address == ADDRESS
    assert (card.name, card.power_w, card.power_source) == ("Some", power_w, source)
    assert not card.is_module


def test_the_module_counts_only_where_the_gpu_tells_nothing() -> None:
    module = "<module_power_readings><power_draw>300.00 W</power_draw></module_power_readings>"
    gpu = "<gpu_power_readings><power_draw>{}</power_draw></gpu_power_readings>"
    [alone] = smi_xml.cards(text(gpu.format("N/A") + module)).values()
    [both] = smi_xml.cards(text(gpu.format("90.00 W") + module)).values()
    assert (alone.power_w, alone.is_module) == (300.0, True)
    assert (both.power_w, both.is_module) == (90.0, False)


def test_parts_of_a_divided_card_are_not_asked() -> None:
    part = "<mig_devices><mig_device><power_readings><power_draw>9.00 W</power_draw>" \
        "</power_readings></mig_device></mig_devices>"  # fmt: skip
    [card] = smi_xml.cards(text(part)).values()
    assert card.power_w is None


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY b "ha">]>',
        '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;"><!ENTITY d "&c;&c;">]>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % b SYSTEM "http://127.0.0.1/x"> %b;]>',
    ],
)
def test_a_text_that_declares_entities_is_refused(head: str) -> None:
    with pytest.raises(WireError, match="entities"):
        smi_xml.cards(text("<uuid>&b;</uuid>", head=head))


def test_nvidias_own_document_type_is_no_harm() -> None:
    head = '<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">'
    assert list(smi_xml.cards(text("", head=head))) == [ADDRESS]


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"", "no element"),
        (b"NVIDIA-SMI has failed", "syntax error"),
        (b"<html></html>", "begins with <html>"),
        (text("")[:-9], "unclosed token|no element"),
        (b"<nvidia_smi_log>" * 200, "nested too deeply"),
    ],
)
def test_another_text_is_refused_with_its_reason(garbage: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        smi_xml.cards(garbage)


@given(st.binary(max_size=200) | st.text(alphabet='<>/gpu id="0:W', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(garbage: bytes) -> None:
    try:
        smi_xml.cards(garbage)
    except WireError:
        return


def test_what_is_kept_has_no_serial_numbers() -> None:
    told = text("<uuid>GPU-1</uuid><serial>165</serial><power_readings/><serial>7</serial>")
    kept = smi_xml.without_identity(told)
    assert b"GPU-1" not in kept and b"165" not in kept and b"<serial>-</serial>" in kept
    assert smi_xml.cards(kept) == smi_xml.cards(told)


async def test_a_file_takes_the_commands_place(machine: Any) -> None:
    path = machine.folder / "smi.xml"
    limit = "<max_power_limit>70.00 W</max_power_limit>"
    inner = f"<power_draw>26.78 W</power_draw>{limit}"
    path.write_bytes(text(f"<power_readings>{inner}</power_readings>"))
    power, rated = await machine.sense(nvml, "nvml", file=str(path))
    assert (power.channel, power.node, power.label) == (f"nvml/{ADDRESS}", Node.GPU, "Some")
    assert (power.quantity, power.value, power.flags) == ("power_w", 26.78, ("power_draw",))
    assert (rated.quantity, rated.value, rated.kind) == ("rated_w", 70.0, ReadingKind.STATE)


async def test_a_missing_file_is_told(machine: Any) -> None:
    with pytest.raises(SensorGone, match="No such file"):
        await machine.sense(nvml, "nvml", file=str(machine.folder / "none.xml"))


async def test_the_command_is_run_where_the_library_does_not_load(
    machine: Any, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(
        text("<power_readings><power_draw>5.00 W</power_draw></power_readings>")
    )
    smi = script(tmp_path, f'[ "$1 $2" = "-q -x" ] && cat {tmp_path}/out')
    [power] = await machine.sense(nvml, "nvml", via="smi", smi=smi)
    assert power.value == 5.0


async def test_automatic_choice_takes_the_command_second(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").write_bytes(
        text("<power_readings><power_draw>5.00 W</power_draw></power_readings>")
    )
    script(tmp_path, f"cat {tmp_path}/out")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-none.so.1")
    plug(machine, "active")
    [power] = await machine.sense(nvml, "nvml")
    assert (power.value, power.flags) == (5.0, ("power_draw",))


@pytest.mark.parametrize(
    ("body", "reason"),
    [("exit 9", "ended with 9"), ("echo no driver", "syntax error"), ("yes", "without end")],
)
async def test_a_command_that_fails_is_told(
    machine: Any, tmp_path: Path, body: str, reason: str
) -> None:
    with pytest.raises(SensorGone, match=reason) as caught:
        await machine.sense(nvml, "nvml", via="smi", smi=script(tmp_path, body))
    assert caught.value.fix


async def test_a_command_that_is_missing_is_told(machine: Any, tmp_path: Path) -> None:
    with pytest.raises(SensorGone, match="No such file"):
        await machine.sense(nvml, "nvml", via="smi", smi=str(tmp_path / "none"))


async def test_while_a_card_sleeps_the_command_is_not_run(machine: Any, tmp_path: Path) -> None:
    plug(machine, "suspended")
    smi = script(tmp_path, f"touch {tmp_path}/ran")
    readings = await machine.sense(nvml, "nvml", via="smi", smi=smi)
    assert [(r.quantity, r.channel) for r in readings] == [("is_suspended", f"nvml/{ADDRESS}")]
    assert not (tmp_path / "ran").exists()


async def test_a_cancelled_pass_leaves_no_child_behind(machine: Any, tmp_path: Path) -> None:
    smi = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 300")
    config = nvml.Config(id="g", kind="nvml", via="smi", smi=smi, timeout_s=60)
    async with nvml.open(config, machine.roots(), machine) as sensor:
        await cancelled(await begun(sensor, tmp_path / "pid"))
    pid = int((tmp_path / "pid").read_text(encoding="ascii"))
    async with asyncio.timeout(60):
        # It is dead; on a busy machine it is reaped later.
        while is_there(pid):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def begun(sensor: Any, told: Path) -> asyncio.Task[Any]:
    """A pass whose command runs, as it told in a file."""
    task = asyncio.create_task(sensor.probe())
    async with asyncio.timeout(60):
        while not has_begun(told):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    return task


def has_begun(told: Path) -> bool:
    return told.exists() and told.read_text(encoding="ascii").endswith("\n")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_the_command_started_and_left_holds_no_pass_up(
    machine: Any, tmp_path: Path
) -> None:
    smi = script(tmp_path, f"setsid sleep 90 & echo $! > {tmp_path}/pid; exec sleep 90")
    config = nvml.Config(id="g", kind="nvml", via="smi", smi=smi, timeout_s=60)
    async with nvml.open(config, machine.roots(), machine) as sensor:
        await cancelled(await begun(sensor, tmp_path / "pid"))
    os.kill(int((tmp_path / "pid").read_text(encoding="ascii")), signal.SIGKILL)


async def test_beside_a_child_that_cannot_be_ended_no_second_one_is_started() -> None:
    let_go: list[bool] = []
    stuck: Any = SimpleNamespace(
        pid=2**22 + 1,
        stdout=None,
        returncode=None,
        wait=asyncio.Event().wait,
        _transport=SimpleNamespace(close=lambda: let_go.append(True)),
    )
    children = Children("nvidia-smi")
    await children.end(stuck)
    assert let_go == [True]
    with pytest.raises(SensorBusy, match="hangs in the kernel") as caught:
        children.check()
    assert caught.value.wait_s == 60
    stuck.returncode = -9
    children.check()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "power_w", "source"),
    [
        # Divided by MIG, its module not measured.
        ("a100-sxm4-v12", 67.03, "power_draw"),
        ("a10g", 25.58, "power_draw"),
        ("tesla-t4", 26.78, "power_draw"),
        ("rtx-3080-v13", 139.62, "average_power_draw"),
        ("rtx-4000-sff-ada-v13", 8.81, "average_power_draw"),
        ("gtx-1070-ti", None, ""),
        ("quadro-p400", None, ""),
    ],
)
async def test_published_texts_of_the_command(
    machine: Any, realdata: Path, name: str, power_w: float | None, source: str
) -> None:
    path = realdata / f"01_gpu/nvidia_smi_xml/{name}.xml"
    config = nvml.Config(id="g", kind="nvml", file=str(path))
    async with nvml.open(config, machine.roots(), machine) as sensor:
        assert len(await sensor.probe()) == 1
        readings = [r for r in await sensor.read() if r.quantity == "power_w"]
    found = [(r.value, r.flags, r.node) for r in readings]
    assert found == [(power_w, (source,), Node.GPU)] * (power_w is not None)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "instant_w", "most_w"),
    [("rtx-3080-v13", 142.33, 336.0), ("rtx-4000-sff-ada-v13", 8.44, 70.0)],
)
def test_published_texts_tell_the_moment_and_the_limit_too(
    realdata: Path, name: str, instant_w: float, most_w: float
) -> None:
    told = (realdata / f"01_gpu/nvidia_smi_xml/{name}.xml").read_bytes()
    [now] = smi_xml.cards(told.replace(b"average_power_draw", b"other")).values()
    assert (now.power_w, now.power_source) == (instant_w, "instant_power_draw")
    assert now.power_most_w == most_w
