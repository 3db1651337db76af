"""The sensor kind `replay`: a recording in place of a device, in the present."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.benches import modbus as modbus_bench
from ports.machine_bench import MachineBench

from heatpool.errors import ConfigError, SensorGone
from heatpool_agent import sensors
from heatpool_agent.commands.record import record
from heatpool_agent.config import Config
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots
from heatpool_agent.tapes.play import load

EVENT_NS, BOOT_NS = 1_750_000_000_000_000_000, 7_000_000_000


class _Clock:
    """Stands still until it is stepped."""

    def __init__(self) -> None:
        self.passed_ns = 0

    def event_ns(self) -> int:
        return EVENT_NS + self.passed_ns

    def boot_ns(self) -> int:
        return BOOT_NS + self.passed_ns

    def step(self, step_s: float) -> None:
        self.passed_ns += round(step_s * 1e9)


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A recording of a machine's energy counters, which counted on, and of a coolant unit."""
    (tmp_path / "unit").mkdir()
    bench = MachineBench(tmp_path, "rapl", frozenset())
    async with modbus_bench.opened(tmp_path / "unit") as unit:
        tree = {
            "sampling": {"period_s": 0.2, "report_period_s": 1.0, "message_period_s": 5.0},
            "roots": {"sys": str(bench.roots.sys), "proc": str(bench.roots.proc)},
            "sensor": [{"id": "cpu", "kind": "rapl"}, {"id": "cdu", **unit.settings}],
        }
        stepping = asyncio.create_task(_step(bench), name="machine")
        await record(msgspec.convert(tree, Config), tmp_path / "r", span_s=1.5)
        stepping.cancel()
    return tmp_path / "r"


async def _step(bench: MachineBench) -> None:
    while True:
        bench.tree.step(100.0, 0.1)
        await asyncio.sleep(0.1)


def _opened(folder: Path, clock: _Clock, **more: Any) -> Any:
    module: Any = sensors.driver("replay")
    block = {"id": "s", "kind": "replay", "dir": str(folder), "sensor": "cpu", **more}
    return module.open(msgspec.convert(block, module.Config), Roots(), clock)


async def test_it_reads_the_present_in_the_name_of_its_own_block(
    folder: Path, clock: _Clock
) -> None:
    async with _opened(folder, clock, sensor="cdu", loop="rack") as sensor:
        channels = await sensor.probe()
        readings = await sensor.read()
        clock.step(0.5)
        later = await sensor.read()
    assert {r.channel for r in readings} <= {*channels}
    assert {(r.sensor, r.loop) for r in readings} == {("s", "rack")}
    values = {r.quantity: r.value for r in readings}
    assert values["volume_flow_m3_h"] == pytest.approx(5.123)
    assert all(0 <= BOOT_NS + 500_000_000 - r.boot_ns <= 400_000_000 for r in later)
    assert all(r.event_ns - r.boot_ns == EVENT_NS - BOOT_NS for r in later)


async def test_it_counts_on_as_it_did_and_begins_anew_in_another_life(
    folder: Path, clock: _Clock
) -> None:
    rows: list[Reading] = []
    async with _opened(folder, clock) as sensor:
        while not rows or rows[-1].generation == rows[0].generation:
            assert len(rows) < 60, "the recording of 1.5 s never began anew"
            rows += [r for r in await sensor.read() if r.quantity == "energy_j"][:1]
            clock.step(0.2)
    *first, anew = [r.value for r in rows]
    assert first == sorted(first)
    assert first[-1] > first[0]
    assert first[0] <= anew < first[-1]


async def test_once_is_once(folder: Path, clock: _Clock) -> None:
    async with _opened(folder, clock, repeat=False) as sensor:
        assert await sensor.read()
        clock.step(3600.0)
        with pytest.raises(SensorGone, match="is over") as caught:
            await sensor.read()
    assert caught.value.fix


async def test_an_error_that_was_is_an_error_again(folder: Path, clock: _Clock) -> None:
    path = folder / "cpu.jsonl"
    lines = await asyncio.to_thread(path.read_text)
    whole = lines.splitlines(keepends=True)
    ends = [at for at, line in enumerate(whole) if '"line":"end"' in line]
    gone = '{"line":"end","event_ns":9,"boot_ns":9,"error":{"kind":"gone","text":"was off"}}\n'
    begin = next(line for line in whole if '"do":"read"' in line)
    await asyncio.to_thread(path.write_text, "".join([*whole[: ends[1] + 1], begin, gone]))
    (_, _, last) = (await asyncio.to_thread(load, folder)).passes["cpu"]
    assert last.end.error is not None
    async with _opened(folder, clock) as sensor:
        assert await sensor.read()
        clock.step(0.5)
        with pytest.raises(SensorGone, match="was off"):
            await sensor.read()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"sensor": "gpu"}, r"sensor: is 'gpu'.*cpu, cdu"),
        ({"dir": "/nowhere"}, r"manifest\.json"),
        ({"role": "billing"}, "role"),
    ],
)
async def test_what_cannot_be_played_is_refused(
    folder: Path, clock: _Clock, more: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        async with _opened(folder, clock, **more):
            pass


async def test_a_clock_that_skips_many_rounds_skips_them(folder: Path, clock: _Clock) -> None:
    async with _opened(folder, clock) as sensor:
        before = await sensor.read()
        clock.step(1_000_000.0)
        after = await sensor.read()
    assert {r.channel for r in after} == {r.channel for r in before}
    assert all(r.boot_ns > BOOT_NS for r in after)
