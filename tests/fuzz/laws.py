"""The law of every decoder: any bytes are decoded, or refused with the error that is declared.

One function per decoder, named as in `DECODERS`: it takes bytes, and raises only where the law is
broken. The tests here and the fuzzer that is run by hand, `run.py`, hold the same functions.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import cache
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from fuzz import laws_wire

from heatpool.errors import ConfigError, SensorError, StoreError, WireError
from heatpool.process import settings
from heatpool_agent import config as agent_config
from heatpool_agent import wire_identity
from heatpool_agent.assembly import open_sensors
from heatpool_agent.commands.replay import replay
from heatpool_agent.core import (
    certificate,
    ipmi,
    ipmi_sdr,
    mbus,
    mbus_document,
    mbus_hide,
    redfish,
    smi_xml,
)
from heatpool_agent.core.decode import Stamp, heat_readings, map_readings
from heatpool_agent.core.device_map import Block, DeviceMap, pieces, requests
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.mbus_frames import long_frame
from heatpool_agent.core.mqtt_newest import Message, Newest, unpacked
from heatpool_agent.core.mqtt_rules import Point, mistakes
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.torn import guarded
from heatpool_agent.enrol import files, mark
from heatpool_agent.fieldbus.maps import SHELF, read_map
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import host, hwmon, rapl
from heatpool_agent.tapes.lines import MANIFEST
from heatpool_agent.tapes.play import Recording, load
from heatpool_aggregator.core.enrolment import JoinRefused
from heatpool_aggregator.core.principal import is_name
from heatpool_aggregator.identity import requests as signing
from heatpool_aggregator.identity.tokens import JOIN_PATTERN
from heatpool_aggregator.web.join import wish_of
from heatpool_aggregator.web.problem import Refused

Decoder = Callable[[bytes], None]

NOW_NS = laws_wire.NOW_NS
STAMP = Stamp(sensor="s", loop="rack", event_ns=NOW_NS, boot_ns=NOW_NS)
# Between the files of one input.
CUT = laws_wire.CUT
FILES = (
    "sys/class/powercap/intel-rapl:0/name",
    "sys/class/powercap/intel-rapl:0/energy_uj",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
    "sys/class/powercap/intel-rapl:0/constraint_0_max_power_uw",
    "sys/class/powercap/intel-rapl:0:0/name",
    "sys/bus/event_source/devices/power/cpumask",
    "sys/bus/event_source/devices/power/type",
    "sys/bus/event_source/devices/power/events/energy-pkg",
    "sys/bus/event_source/devices/power/events/energy-pkg.scale",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/power1_input",
    "sys/class/hwmon/hwmon0/power1_label",
    "sys/class/hwmon/hwmon1/in0_input",
    "sys/class/hwmon/hwmon1/curr0_input",
    "proc/stat",
    "proc/cpuinfo",
    "proc/sys/kernel/random/boot_id",
)


class Clock:
    """A clock that stands."""

    def event_ns(self) -> int:
        return NOW_NS

    def boot_ns(self) -> int:
        return NOW_NS


def sound(readings: Iterable[Reading]) -> None:
    """Every reading is a finite number with a finite uncertainty, and can be sent."""
    for reading in readings:
        assert isinstance(reading.value, float) and isfinite(reading.value), reading
        assert reading.u is None or (isfinite(reading.u) and reading.u >= 0), reading
        assert reading.modulus is None or reading.modulus > 0, reading
        if reading.kind is ReadingKind.COUNTER and reading.raw is not None:
            assert isinstance(reading.raw, int), reading
        for text in (reading.channel, reading.label, reading.generation, reading.meter_id):
            text.encode()


def mbus_telegram(data: bytes) -> None:
    """A telegram, and what of it is kept without its numbers, is read or refused."""
    for frame in (data, mbus_hide.hidden(data, key=b"k")):
        try:
            telegram = mbus.decode(frame)
        except (WireError, SensorError) as refusal:
            assert str(refusal)
            continue
        sound(heat_readings(mbus.heat_view(telegram), STAMP))


def mbus_body(data: bytes) -> None:
    """The same inside a frame whose lengths and checksum are right."""
    mbus_telegram(long_frame(0x08, 1, data[:252]))


def mbus_stream(data: bytes) -> None:
    """A file of telegrams becomes a document of plain JSON, every byte accounted for."""
    document = mbus_document.document(data)
    json.dumps(document, allow_nan=False)
    assert all(row["ok"] or row["reason"] for row in document["telegrams"])


@cache
def _maps() -> tuple[DeviceMap, ...]:
    return tuple(read_map(path.stem) for path in sorted(SHELF.glob("*.toml")))


def _read_words(device: DeviceMap, words: bytes) -> None:
    blocks = requests(device)
    need = 2 * sum(block.count for block in blocks)
    cells = (words * (need // max(len(words), 1) + 1) or bytes(need))[:need]
    answers: dict[Block, list[int]] = {}
    at = 0
    for block in blocks:
        part = cells[at : at + 2 * block.count]
        answers[block] = [int.from_bytes(part[i : i + 2], "big") for i in range(0, len(part), 2)]
        at += 2 * block.count
    sound(map_readings(device, answers, STAMP, primary_loop="facility"))
    likely_word_order(device, answers)
    guarded(device)
    for block in blocks:
        pieces(block, device)


def modbus_words(data: bytes) -> None:
    """Any words behind any map that comes along are finite numbers, or none."""
    device = _maps()[data[0] % len(_maps())] if data else _maps()[0]
    _read_words(device, data[1:])


def modbus_map(data: bytes) -> None:
    """A text is a map that any words can be read with, or every mistake in it is told."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "device.toml")
        path.write_bytes(data)
        try:
            device = read_map(str(path))
        except ConfigError as error:
            assert error.mistakes
            return
    for words in (b"", b"\xff", b"\x7f\x7f\xff\xff", b"\x12\x34\x80"):
        _read_words(device, words)


def redfish_json(data: bytes) -> None:
    """An answer of a service is refused, or read alone and as several documents."""
    try:
        body = redfish.parse(data, "/redfish/v1")
    except WireError as refusal:
        assert str(refusal)
        return
    documents: dict[str, redfish.Document] = {"/redfish/v1/Chassis/1/Power": body}
    for path, inner in body.items():
        if isinstance(inner, dict) and path.isascii():
            documents[path] = inner
    for path, document in documents.items():
        redfish.wanted(path, document)
    redfish.polled(documents)
    span_s = redfish.sensing_interval_s(documents)
    assert span_s is None or span_s > 0
    sound(redfish.redfish_readings(documents, STAMP, primary_loop="facility"))


_POINTS = (
    Point(topic="t", quantity="power", unit="kW"),
    Point(topic="t", quantity="heat", unit="GJ", path="a", time="t", text=True, scale=1e30),
    Point(topic="t", quantity="energy", unit="MWh", path="a[0].b", kind=ReadingKind.COUNTER,
          decimals=3, digits=18),
    Point(topic="t", quantity="temperature", unit="degC", path="b", text=True, decimal=",",
          pipe="hot", absent=(-999.0,), u=0.1),
    Point(topic="t", quantity="runs", path="s", kind=ReadingKind.STATE, states={"on": 1.0}),
)  # fmt: skip


def mqtt_payload(data: bytes) -> None:
    """A message gives readings or reasons, retained, repeated or alive."""
    newest = Newest(_POINTS, node=Node.CDU, availability_topic="s", payload_offline="off")
    rows = [
        Message(topic=topic, payload=data, is_retained=bool(flags & 1), is_dup=bool(flags & 2))
        for topic in ("t", "s")
        for flags in range(4)
    ]
    newest.take(rows, STAMP)
    sound(newest.readings(STAMP))
    assert all(newest.reasons.values())
    with suppress(WireError):
        unpacked(data)


def ipmi_words(data: bytes) -> None:
    """Bytes of a BMC and lines of ipmitool are a power, or one of our errors."""
    for meaning in (ipmi.power, ipmi.power_in_text):
        with suppress(WireError, SensorError):
            assert 0 <= ipmi.present_w(meaning(data)) < 10**9
    with suppress(WireError, SensorError):
        ipmi.measures_power(data)
    assert all(isfinite(one.power_w) for one in ipmi_sdr.sensors(data))


def smi_text(data: bytes) -> None:
    """What nvidia-smi prints is cards, or refused; also without its numbers."""
    for text in (data, smi_xml.without_identity(data)):
        try:
            found = smi_xml.cards(text)
        except WireError as refusal:
            assert str(refusal)
            continue
        assert all(card.power_w is None or isfinite(card.power_w) for card in found.values())


def kernel_files(data: bytes) -> None:
    """Files of /sys and /proc are readings, or a reason why there are none."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in zip(FILES, data.split(CUT), strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        roots = Roots(sys=folder / "sys", proc=folder / "proc", nvml=str(folder / "none.so"))
        for module in (rapl, hwmon, host):
            with suppress(SensorError):
                sound(asyncio.run(_sensed(module, roots)))


async def _sensed(module: Any, roots: Roots) -> Sequence[Reading]:
    kind = module.__name__.rpartition(".")[2]
    async with module.open(module.Config(id="s", kind=kind), roots, Clock()) as sensor:
        await sensor.probe()
        return [*await sensor.read(), *await sensor.read()]


def recording(data: bytes) -> None:
    """A recording plays, or it is refused; damage in it is told."""
    manifest, _, lines = data.partition(CUT)
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / MANIFEST).write_bytes(manifest)
        (folder / "s.jsonl").write_bytes(lines)
        with suppress(ConfigError):
            found = load(folder)
            if not _is_short(found):
                return
            document = asyncio.run(replay(found, folder))
            json.dumps(document, allow_nan=False)


def _is_short(found: Recording) -> bool:
    """Whether few ticks lie between its passes: a day of them, which may be, takes long."""
    every = [one for passes in found.passes.values() for one in passes]
    moments = [at for one in every for at in (one.begin.boot_ns, one.end.boot_ns)]
    period_s = found.manifest.sampling.get("period_s", 1.0)
    is_coarse = not isinstance(period_s, int | float) or not period_s < 0.1
    return is_coarse and (not moments or max(moments) - min(moments) < 60 * 10**9)


def settings_text(data: bytes) -> None:
    """Settings hold, or every mistake is told; drivers check their own blocks as they open."""
    with TemporaryDirectory() as place:
        path = Path(place, "agent.toml")
        path.write_bytes(data)
        with suppress(ConfigError):
            config = agent_config.load(path, {})
            assert all(agent_config.mistakes(config))
            asyncio.run(_opened(config))


async def _opened(config: agent_config.Config) -> None:
    found: list[str] = []
    async with AsyncExitStack() as stack:
        await open_sensors(config, Clock(), stack, found)
    assert all(found)


class _Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    point: tuple[Point, ...] = ()


def mqtt_points(data: bytes) -> None:
    """Points of a text are mistakes, or any payload can be read with them."""
    with TemporaryDirectory() as place:
        path = Path(place, "points.toml")
        path.write_bytes(data)
        try:
            tree = settings.read_toml(path)
            points = settings.convert(tree, _Points).point
        except ConfigError:
            return
    if list(mistakes(points)):
        return
    newest = Newest(points, node=Node.CDU)
    for payload in (b"1e30", b"-7.5", b"on", b'{"a": 3}', b"[1, 2]", b'"0,5"'):
        newest.take([Message(topic=p.topic, payload=payload) for p in points], STAMP)
        sound(newest.readings(STAMP))


def signing_request(data: bytes) -> None:
    """A stranger's request for a certificate, in either form: a key we sign for, or refused."""
    for read in (signing.read_der, signing.read_pem):
        with suppress(JoinRefused):
            assert len(signing.key_sha256(read(data, uri="spiffe://heatpool/site/e1"))) == 32


def join_body(data: bytes) -> None:
    """What a newcomer posts: a wish of the right shape, or refused without its token."""
    try:
        wish = wish_of(data)
    except Refused as refused:
        assert "0123456789abcdef" not in str(refused)
    else:
        assert re.fullmatch(JOIN_PATTERN, wish.token) and is_name(wish.site_id)


def site_certificate(data: bytes) -> None:
    """Anybody's certificate, DER or PEM: read, or refused."""
    for read in (certificate.read, lambda data: certificate.first(data.decode("latin-1"))):
        with suppress(WireError):
            found = read(data)
            assert len(found.key_sha256) == len(found.fingerprint) == 64


def identity_files(data: bytes) -> None:
    """A site's own files, however they were spoilt: an identity, or what mends it."""
    with TemporaryDirectory() as name:
        folder = files.make_folder(Path(name))
        for file, content in zip(mark.NAMES, data.split(CUT), strict=False):
            (folder / file).write_bytes(content)
        with suppress(StoreError):
            files.load(Path(name))
        (folder / mark.WHOLE).write_bytes(data)
        with suppress(StoreError):
            files.load(Path(name))


def renewed_certificate(data: bytes) -> None:
    """The answer to a renewal: read, or refused."""
    with suppress(WireError):
        assert wire_identity.renewed(data).chain_pem


DECODERS: dict[str, Decoder] = {
    one.__name__: one
    for one in (
        mbus_telegram,
        mbus_body,
        mbus_stream,
        modbus_words,
        modbus_map,
        redfish_json,
        mqtt_payload,
        mqtt_points,
        ipmi_words,
        smi_text,
        kernel_files,
        recording,
        settings_text,
        signing_request,
        join_body,
        site_certificate,
        identity_files,
        renewed_certificate,
        laws_wire.stream_message,
        laws_wire.bulk_batches,
        laws_wire.zlib_payload,
        laws_wire.order_requests,
        laws_wire.spooled_frames,
        laws_wire.aggregator_words,
        laws_wire.kept_orders,
    )
}
