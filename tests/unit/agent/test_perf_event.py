"""Energy by the kernel's perf events: what its files say, whose count it is, what gives way."""

import errno
import os
import struct
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import SensorGone
from heatpool_agent.core import perf_event as core
from heatpool_agent.core import totals
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.sensors import perf_event, rapl
from heatpool_agent.sensors.perf_event import KernelEvent

UNIT = "sys/bus/event_source/devices/power"
SCALE = "2.3283064365386962890625e-10"
SOFTWARE, CPU_CLOCK = 1, 0


class FakeEvents:
    """Events of the kernel as numbers of ours, and which were opened and closed."""

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], int] = {}
        self.opened: list[tuple[int, int, int]] = []
        self.closed = 0
        self.refuse: int | None = None

    def __call__(self, kind: int, config: int, cpu: int) -> "FakeEvent":
        if self.refuse is not None and self.opened:
            raise OSError(self.refuse, os.strerror(self.refuse))
        self.opened.append((kind, config, cpu))
        return FakeEvent(self, (config, cpu))


class FakeEvent:
    def __init__(self, events: FakeEvents, key: tuple[int, int]) -> None:
        self._events, self._key = events, key

    def read(self) -> bytes:
        return struct.pack("=Q", self._events.counts.get(self._key, 0))

    def close(self) -> None:
        self._events.closed += 1


@pytest.fixture
def events(machine: Any) -> FakeEvents:
    """Two packages of four CPUs with energy of packages and memory."""
    machine.write(UNIT, {"type": 27, "cpumask": "0,4"})
    for name, config in (("energy-pkg", 2), ("energy-ram", 3)):
        machine.write(
            f"{UNIT}/events",
            {name: f"event=0x{config:02x}", f"{name}.scale": SCALE, f"{name}.unit": "Joules"},
        )
    for cpu in (0, 4):
        place = f"sys/devices/system/cpu/cpu{cpu}/topology"
        machine.write(place, {"physical_package_id": cpu // 4})
    return FakeEvents()


async def sense(machine: Any, events: FakeEvents, via: str = "auto") -> list[Reading]:
    config = rapl.Config(id="cpu", kind="rapl", via=via)  # type: ignore[arg-type]
    async with rapl.open(config, machine.roots(), machine, opener=events) as sensor:
        await sensor.probe()
        return list(await sensor.read())


def event(scale: str = SCALE) -> core.EnergyEvent:
    found = core.energy_event("energy-pkg", config="event=0x02", scale=scale, unit="Joules")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("mask", "cpus"),
    [
        ("0", (0,)),
        ("0,28", (0, 28)),
        ("0-1", (0, 1)),
        ("0-1,4,8-9", (0, 1, 4, 8, 9)),
        (" 0 , 2 ", (0, 2)),
        ("", ()),
        (None, ()),
        ("0-99999999", ()),
        ("0,a", ()),
        ("-1", ()),
        ("5-2", ()),
    ],
)
def test_a_list_of_cpus(mask: str | None, cpus: tuple[int, ...]) -> None:
    assert core.cpus(mask) == cpus


@pytest.mark.parametrize(
    ("config", "scale", "unit"),
    [
        ("event=0x02", None, "Joules"),
        ("event=0x02", "0", "Joules"),
        ("event=0x02", "nan", "Joules"),
        ("event=0x02", "1e-999999999", "Joules"),
        ("event=0x02", "1/3/3", "Joules"),
        ("event=0x02", SCALE, "Watts"),
        ("config=2", SCALE, "Joules"),
        ("event=0x02,umask=1", SCALE, "Joules"),
        (None, SCALE, "Joules"),
        ("event=-1", SCALE, "Joules"),
    ],
)
def test_an_event_that_is_not_understood_is_left_out(
    config: str | None, scale: str | None, unit: str | None
) -> None:
    assert core.energy_event("energy-pkg", config=config, scale=scale, unit=unit) is None


def test_a_count_of_the_kernels_unit_is_exact() -> None:
    assert event().unit_uj == Fraction(10**6, 2**32)
    assert event().energy_uj(2**32) == 1_000_000
    # 4.29 GJ until it begins anew, and that in whole uJ.
    assert event().modulus_uj == 2**32 * 10**6


@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_what_is_cut_off_is_not_lost(steps: list[int]) -> None:
    count, total_uj, last_uj = 0, 0, 0
    for step in steps:
        count += step
        total_uj += event().energy_uj(count) - last_uj
        last_uj = event().energy_uj(count)
    assert 0 <= Fraction(count * 10**6, 2**32) - total_uj < 1


async def test_each_cpu_of_the_mask_is_a_channel_of_each_event(
    machine: Any, events: FakeEvents
) -> None:
    events.counts = {(2, 0): 5 * 2**32, (2, 4): 7 * 2**32, (3, 0): 2**31}
    readings = await sense(machine, events)
    assert [(r.channel, r.node, r.raw, r.value) for r in readings] == [
        ("perf/energy-pkg/cpu0", Node.PACKAGE, 5_000_000, 5.0),
        ("perf/energy-pkg/cpu4", Node.PACKAGE, 7_000_000, 7.0),
        ("perf/energy-ram/cpu0", Node.DRAM, 500_000, 0.5),
        ("perf/energy-ram/cpu4", Node.DRAM, 0, 0.0),
    ]
    assert {r.kind for r in readings} == {ReadingKind.COUNTER}
    assert events.opened == [(27, 2, 0), (27, 2, 4), (27, 3, 0), (27, 3, 4)]
    assert events.closed == 4


async def test_zones_that_show_the_same_again_are_twins(machine: Any, events: FakeEvents) -> None:
    rated = {"constraint_0_max_power_uw": 205_000_000}
    machine.zone("intel-rapl:0", "package-0", 1, **rated)
    machine.zone("intel-rapl:0:0", "core", 1)
    machine.zone("intel-rapl:1", "package-1", 1, constraint_0_max_power_uw=105_000_000)
    readings = await sense(machine, events)
    counted = {r.channel: r.flags for r in readings if r.kind is ReadingKind.COUNTER}
    assert counted["perf/energy-pkg/cpu0"] == ()
    assert counted["powercap/intel-rapl:0"] == ("twin",)
    # No event shows the cores: their zone is their only witness.
    assert counted["powercap/intel-rapl:0/intel-rapl:0:0"] == ()
    ratings = {r.channel: r.value for r in readings if r.quantity == "rated_w"}
    assert ratings["perf/energy-pkg/cpu0"] == 205.0
    assert ratings["perf/energy-pkg/cpu4"] == 105.0


async def test_events_alone_are_enough_where_zones_may_not_be_read(
    machine: Any, events: FakeEvents, without_rights: Any
) -> None:
    (machine.zone("intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0)
    with without_rights():
        readings = await sense(machine, events)
    assert {r.channel.partition("/")[0] for r in readings} == {"perf"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL])
async def test_where_an_event_does_not_open_zones_are_read_and_none_stays_open(
    machine: Any, events: FakeEvents, code: int
) -> None:
    machine.zone("intel-rapl:0", "package-0", 7)
    events.refuse = code
    readings = await sense(machine, events)
    assert [(r.channel, r.flags) for r in readings] == [("powercap/intel-rapl:0", ())]
    assert events.closed == len(events.opened) == 1


async def test_events_that_were_asked_for_are_told_with_their_cure(
    machine: Any, events: FakeEvents
) -> None:
    events.refuse = errno.EACCES
    with pytest.raises(SensorGone, match="perf_event_open: Permission denied") as caught:
        await sense(machine, events, "perf")
    assert "CAP_PERFMON" in caught.value.fix


async def test_zones_that_were_asked_for_are_read_alone(machine: Any, events: FakeEvents) -> None:
    machine.zone("intel-rapl:0", "package-0", 7)
    readings = await sense(machine, events, "powercap")
    assert [r.channel for r in readings] == ["powercap/intel-rapl:0"]
    assert events.opened == []


async def test_a_machine_without_events_has_none(machine: Any) -> None:
    assert await sense(machine, FakeEvents(), "perf") == []


async def test_each_opening_is_a_life_of_its_own(machine: Any, events: FakeEvents) -> None:
    [first, *_] = await sense(machine, events)
    machine.pass_s(10.0)
    events.counts = {(2, 0): 2**32}
    [second, *_] = await sense(machine, events)
    assert first.generation != second.generation
    state, _ = totals.advance(None, first)
    _, step = totals.advance(state, second)
    assert step.kind is totals.StepKind.GAP


async def test_an_event_whose_cpu_went_offline_gives_no_reading(
    machine: Any, events: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEvent, "read", lambda self: b"" if self._key[1] else b"\x01" * 8)
    readings = await sense(machine, events)
    assert {r.channel.rpartition("/")[2] for r in readings} == {"cpu0"}


async def test_no_wrap_needs_watching_while_events_are_open(
    machine: Any, events: FakeEvents
) -> None:
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine, opener=events) as sensor:
        await sensor.probe()
        assert sensor.longest_period_s == 30.0


async def test_a_tape_plays_events_without_opening_any(
    machine: Any, events: FakeEvents, cassette: Any
) -> None:
    events.counts = {(2, 0): 5 * 2**32}
    recorded = await sense(machine, events)
    cassette.play()
    events.opened.clear()
    assert await sense(machine, events) == recorded
    assert events.opened == []


@pytest.fixture
def kernel_event() -> Callable[[int, int, int], KernelEvent]:
    try:
        KernelEvent(SOFTWARE, CPU_CLOCK, 0).close()
    except OSError as error:
        pytest.skip(f"this kernel opens no software event for us: {error.strerror}")
    return KernelEvent


@pytest.mark.skipif(sys.platform != "linux", reason="perf events are Linux's")
def test_the_call_counts_on_the_running_kernel(
    kernel_event: Callable[[int, int, int], KernelEvent],
) -> None:
    event = kernel_event(SOFTWARE, CPU_CLOCK, 0)
    [first] = struct.unpack("=Q", event.read())
    deadline_ns = time.monotonic_ns() + 5_000_000
    while time.monotonic_ns() < deadline_ns:
        pass
    [second] = struct.unpack("=Q", event.read())
    event.close()
    event.close()
    # Nanoseconds of a CPU's clock: it runs whoever works there.
    assert second - first >= 4_000_000


async def test_the_whole_driver_reads_an_event_of_the_running_kernel(
    machine: Any, kernel_event: Callable[[int, int, int], KernelEvent]
) -> None:
    machine.write(UNIT, {"type": SOFTWARE, "cpumask": "0"})
    machine.write(f"{UNIT}/events", {"energy-pkg": f"event={CPU_CLOCK}",
                                     "energy-pkg.scale": "1e-3"})  # fmt: skip
    config = rapl.Config(id="cpu", kind="rapl", via="perf")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        [first] = await sensor.read()
        [second] = await sensor.read()
    assert first.raw is not None and second.raw is not None
    assert second.raw > first.raw > 0


def test_an_event_that_no_kernel_has_is_refused_with_its_reason(
    kernel_event: Callable[[int, int, int], KernelEvent],
) -> None:
    with pytest.raises(OSError) as caught:
        perf_event.KernelEvent(0x7FFF_0000, 1, 0)
    assert caught.value.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EACCES)
