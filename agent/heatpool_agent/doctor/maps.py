"""Maps of Modbus devices: proven on what, and do their words make sense."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from heatpool.errors import ConfigError
from heatpool_agent.core.device_map import DeviceMap
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.words import WordOrder
from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.fieldbus import line
from heatpool_agent.fieldbus.asked import asked
from heatpool_agent.fieldbus.maps import read_map

_MOST_S = 3.0


async def families(place: Place) -> Sequence[Verdict]:
    """Two verdicts per Modbus sensor."""
    blocks = place.named("modbus")
    if not blocks:
        return (skip("map", "no sensor has a map"), skip("word_order", "no sensor has a map"))
    found = await asyncio.gather(*(_of(block, place) for block in blocks))
    return [verdict for pair in found for verdict in pair]


def verified(name: str, map_name: str, device: DeviceMap, *, file: str) -> Verdict:
    """How far the map was proven."""
    if device.verified == "manual":
        return warn(
            f"map:{name}",
            f"{map_name}: written from its manual, compared with no device",
            why="manuals are wrong about addresses, scales and word order often enough",
            fix=f"heatpool-agent once --config {file}, compare each figure of {name!r} with the "
            f'device\'s own display, then set verified = "field" in a copy of the map',
        )
    return ok(f"map:{name}", f"{map_name}: proven by {device.verified}")


def word_order(
    name: str, device: DeviceMap, order: WordOrder | None, *, words: int, map_name: str
) -> Verdict:
    """Whether another word order makes more sense; `words` is how many were seen."""
    if not words:
        return skip(f"word_order:{name}", "the device gave no words to judge by")
    if order is None:
        return ok(f"word_order:{name}", f"{words} words make sense in order {device.word_order}")
    return fail(
        f"word_order:{name}",
        f"figures are absurd in order {device.word_order}, and fewer are in {order}",
        why="numbers of two words are put together the wrong way round",
        fix=f'set word_order = "{order}" in the map {map_name} (copy it to a file of your own '
        "and name that file as map), then compare with the device's display",
    )


async def _of(block: Mapping[str, Any], place: Place) -> tuple[Verdict, Verdict]:
    name, map_name = str(block.get("id")), str(block.get("map"))
    try:
        device = await asyncio.to_thread(read_map, map_name)
    except ConfigError as error:
        why, fix = "the sensor cannot be opened", "mend the map, or name another"
        bad = fail(f"map:{name}", str(error), why=why, fix=fix)
        return bad, skip(f"word_order:{name}", "the map cannot be read")
    unit_id = int(block.get("unit_id", 1))
    held = await line.hold(str(block.get("url")), unit_id=unit_id)
    try:
        found = await asked(device, held, unit_id=unit_id, most_s=_MOST_S)
    finally:
        held.release()
    return (
        verified(name, map_name, device, file=str(place.path or "FILE")),
        word_order(
            name,
            device,
            likely_word_order(device, found.answers),
            words=found.words_count,
            map_name=map_name,
        ),
    )
