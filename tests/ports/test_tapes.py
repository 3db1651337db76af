"""What every driver owes to the tape: a recording of its passes plays the same readings again."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.bench import Bench
from ports.benches import mbus as mbus_bench
from ports.sensor_rig import TIMEOUT_S

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent import sensors
from heatpool_agent.assembly import SystemClock
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.tapes.keep import KeptSensor, Recorder
from heatpool_agent.tapes.lines import Manifest
from heatpool_agent.tapes.play import Player, PlayingTape, load
from heatpool_agent.tapes.redaction import Redaction

NUMBER = f"{mbus_bench.METER.number:08d}"
BENCHES = Path(__file__).parent / "benches"
KINDS = sorted(path.stem for path in BENCHES.glob("*.py") if path.stem != "__init__")
ERRORS = (SensorBusy, SensorGone, TimeoutError)
# What became of one pass: channels, readings, or the kind and words of an error.
Fate = tuple[Any, ...]


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    room = importlib.import_module(f"ports.benches.{request.param}")
    (tmp_path / "bench").mkdir()
    async with room.opened(tmp_path / "bench") as opened:
        yield opened


def _of_error(error: Exception, redaction: Redaction | None = None) -> Fate:
    text = str(error) if redaction is None else redaction.text(str(error))
    kind = next(kind for kind in ERRORS if isinstance(error, kind))
    return kind.__name__, text, getattr(error, "wait_s", None)


def _of_readings(readings: Sequence[Reading]) -> Fate:
    # The number of a meter, and the life that is named by it, are others in a recording.
    return tuple(
        replace(reading, meter_id="some", generation="some") if reading.meter_id else reading
        for reading in readings
    )


@dataclass
class _Rig:
    """A driver on its bench, recorded; `fates` is what became of its passes."""

    sensor: Sensor
    redaction: Redaction
    timeout_s: float
    fates: list[Fate] = field(default_factory=list)

    async def passes(self, *what: str) -> None:
        for one in what:
            try:
                async with asyncio.timeout(4 * self.timeout_s):
                    found: Any = await getattr(self.sensor, one)()
                self.fates.append(tuple(found) if one == "probe" else _of_readings(found))
            except ERRORS as error:
                self.fates.append(_of_error(error, self.redaction))


@asynccontextmanager
async def _recorded(bench: Bench, folder: Path, *, timeout_s: float) -> AsyncIterator[_Rig]:
    await asyncio.to_thread(folder.mkdir)
    block = {**bench.settings, "id": "s", "timeout_s": timeout_s}
    redaction, clock = Redaction([block]), SystemClock()
    manifest = Manifest(
        heatpool="0",
        begun_ns=clock.event_ns(),
        sampling={},
        roots={},
        loop=[],
        sensor=redaction.blocks,
    )
    recorder = Recorder(folder, manifest, redaction, clock=clock, max_bytes=10_000_000)
    recorder.begin()
    tape = recorder.tape("s")
    module: Any = sensors.driver(str(block["kind"]))
    config = msgspec.convert(block, module.Config)
    try:
        async with module.open(config, replace(bench.roots, tape=tape), tape) as sensor:
            yield _Rig(KeptSensor(sensor, tape), redaction, timeout_s)
            recorder.is_ending = True
        recorder.end()
    finally:
        recorder.shut()


async def _played(folder: Path, roots: Roots) -> list[Fate]:
    recording = load(folder)
    (block,) = recording.manifest.sensor
    tape = PlayingTape(recording.passes["s"])
    module: Any = sensors.driver(block["kind"])
    config = msgspec.convert(block, module.Config)
    fates: list[Fate] = []
    async with module.open(config, replace(roots, state=None, tape=tape), tape) as sensor:
        player = Player(sensor, tape)
        for one in recording.passes["s"]:
            try:
                if one.do == "probe":
                    fates.append(tuple(await player.probe(one)))
                else:
                    fates.append(_of_readings(await player.read(one)))
            except ERRORS as error:
                fates.append(_of_error(error))
    return fates


async def test_a_recording_plays_the_same_readings_and_errors_again(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "recording"
    async with _recorded(bench, folder, timeout_s=2.0) as rig:
        await rig.passes("probe", "read", "read", "read")
        await bench.pull()
        await rig.passes("read", "probe")
        await bench.heal()
        await rig.passes("probe", "read", "read")
    assert any(rig.fates[1:4])
    asked = bench.exchanges
    played = await _played(folder, bench.roots)
    assert played == rig.fates
    assert await _played(folder, bench.roots) == played
    assert bench.exchanges == asked, "a device was asked while a recording played"


@pytest.mark.parametrize("fault", ["slow", "garble"])
async def test_a_recorded_fault_plays_again(bench: Bench, tmp_path: Path, fault: str) -> None:
    if fault not in bench.faults:
        pytest.skip(f"a device of this kind is never {fault}")
    folder = tmp_path / "recording"
    # Enough for a healthy device on a busy machine: what a late thread saw is recorded as well.
    timeout_s = TIMEOUT_S if fault == "slow" else 2.0
    async with _recorded(bench, folder, timeout_s=timeout_s) as rig:
        await rig.passes("probe", "read")
        await getattr(bench, fault)()
        await rig.passes("read", "read")
        await bench.heal()
        await rig.passes("read", "probe", "read")
    assert await _played(folder, bench.roots) == rig.fates


async def test_a_recording_holds_no_password(bench: Bench, tmp_path: Path) -> None:
    told = bench.settings.get("password_file")
    if told is None:
        pytest.skip("no login here")
    folder = tmp_path / "recording"
    async with _recorded(bench, folder, timeout_s=2.0) as rig:
        await rig.passes("probe", "read")
    secret = await asyncio.to_thread(Path(told).read_bytes)
    for path in folder.iterdir():
        assert secret not in await asyncio.to_thread(path.read_bytes)


class _BySecondary:
    """The meter's bench, its meter named by the number on its plate."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.roots = bench.roots

    @property
    def settings(self) -> Any:
        told = {key: value for key, value in self._bench.settings.items() if key != "address"}
        return {**told, "secondary": NUMBER, "meter_id": NUMBER}


async def test_a_meter_plays_without_its_number(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    folder = tmp_path / "recording"
    async with mbus_bench.opened(tmp_path / "bench") as opened:
        bench: Any = _BySecondary(opened)
        async with _recorded(bench, folder, timeout_s=2.0) as rig:
            await rig.passes("probe", "read")
            await opened.pull()
            await rig.passes("read")
    written = b"".join([await asyncio.to_thread(path.read_bytes) for path in folder.iterdir()])
    assert rig.fates[1]
    assert NUMBER.encode() not in written
    # As it travels: four bytes of decimal digits, the last two first.
    assert bytes.fromhex(NUMBER)[::-1].hex().encode() not in written
    assert await _played(folder, bench.roots) == rig.fates
