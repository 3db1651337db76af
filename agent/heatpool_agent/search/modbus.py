"""Which map fits a Modbus device, judged by whether its figures make sense."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from heatpool_agent.core import plausible
from heatpool_agent.core.decode import Stamp, map_readings
from heatpool_agent.core.device_map import DeviceMap, is_meter_number
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.reading import Reading, ReadingKind
from heatpool_agent.fieldbus import line
from heatpool_agent.fieldbus.asked import Asked, asked
from heatpool_agent.fieldbus.maps import SHELF, read_map
from heatpool_agent.search.found import Found, name_of

# Each map is a few requests; a device that is slow to refuse must not be kept for minutes.
_MAP_S, _ALL_S = 1.5, 10.0
UNIT_ID = 1
# So many of a map's figures must be there, make sense, and not all be nought.
_THERE_FRAC, _SENSE_FRAC, _MOVED_FRAC = 0.8, 0.9, 0.3
_ZERO_FLOAT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well a map fits: the share of its figures that are there and make sense."""

    name: str
    score_frac: float
    figures: Sequence[str]


async def modbus(host: str, port: int) -> Found | None:
    """The device at this port with the map that fits best; None if it speaks no Modbus."""
    # What answers in another language is nothing to warn of here.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    held = await line.hold(url, unit_id=UNIT_ID)
    try:
        fits = await _fits(held)
    finally:
        held.release()
    if fits is None:
        return None
    return _found(f"{host}:{port}", url, host, port, fits)


async def _fits(held: line.Hold) -> list[Fit] | None:
    """Maps that fit, best first; None if the first question was not answered."""
    found: list[Fit] = []
    until_s = asyncio.get_running_loop().time() + _ALL_S
    for number, name in enumerate(await asyncio.to_thread(_map_names)):
        if asyncio.get_running_loop().time() > until_s:
            break
        device = await asyncio.to_thread(read_map, name)
        told = await asked(device, held, unit_id=UNIT_ID, most_s=_MAP_S)
        if not told.replies_count and not number:
            return None
        if fit := fitting(name, device, told):
            found.append(fit)
    return sorted(found, key=lambda fit: -fit.score_frac)


def _map_names() -> list[str]:
    return sorted(path.stem for path in SHELF.glob("*.toml"))


def fitting(name: str, device: DeviceMap, told: Asked) -> Fit | None:
    """How well the answers fit a map; None if they do not."""
    figures = [p for p in device.point if not p.bits and not is_meter_number(p)]
    stamp = Stamp(sensor=name, loop="", event_ns=0, boot_ns=0)
    readings = [
        reading
        for reading in map_readings(device, told.answers, stamp, meter_id="any")
        if reading.kind is not ReadingKind.STATE
    ]
    if not figures or not readings or likely_word_order(device, told.answers) is not None:
        return None
    there = len(readings) / len(figures)
    sense = sum(map(_makes_sense, readings)) / len(readings)
    moved = sum(abs(reading.value) > _ZERO_FLOAT for reading in readings) / len(readings)
    if there < _THERE_FRAC or sense < _SENSE_FRAC or moved < _MOVED_FRAC:
        return None
    shown = [f"{reading.quantity} {reading.value:.6g}" for reading in readings[:4]]
    # A map with more figures that all make sense says more than one with few.
    weight = 1 - 0.5 ** len(readings)
    return Fit(name=name, score_frac=there * sense * moved * weight, figures=shown)


def _makes_sense(reading: Reading) -> bool:
    low, high = plausible.RANGES.get(reading.quantity, (float("-inf"), float("inf")))
    return low <= reading.value <= high and reading.value not in plausible.SENTINELS


def _found(place: str, url: str, host: str, port: int, fits: Sequence[Fit]) -> Found:
    block = {"id": name_of("modbus", host, port), "kind": "modbus", "url": url, "unit_id": UNIT_ID}
    if not fits:
        return Found(
            place=place,
            kind="modbus",
            seen=(f"Modbus TCP answers as unit {UNIT_ID}; none of our maps makes sense there",),
            block={**block, "map": "generic-cdu"},
            missing="name the device's map or write one (docs/drivers/modbus.md)",
        )
    best, *others = fits
    seen = [f"Modbus TCP, unit {UNIT_ID}; map {best.name} fits: {', '.join(best.figures)}"]
    seen += [f"map {fit.name} could be meant, too" for fit in others[:3]]
    seen.append("compare with the device's own display before you trust it")
    return Found(place=place, kind="modbus", seen=seen, block={**block, "map": best.name})
