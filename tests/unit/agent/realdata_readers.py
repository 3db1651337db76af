"""A reader for every real file of the sensors' folders: a file in, what became of it out."""

import csv
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heatpool.errors import ConfigError, WireError
from heatpool.process import settings
from heatpool_agent.core import ipmi, ipmi_sdr, redfish, smi_xml, totals
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.device_map import DeviceMap, mistakes, requests
from heatpool_agent.core.mbus_document import document
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.words import width
from heatpool_agent.ports import Roots
from heatpool_agent.sensors.kernel_file import KernelTree

STAMP = Stamp(sensor="s", loop="rack", event_ns=7, boot_ns=5)


def sound(readings: Iterable[Reading]) -> Sequence[Reading]:
    """The same, each a finite number."""
    found = list(readings)
    assert all(math.isfinite(reading.value) for reading in found)
    return found


@dataclass(frozen=True, slots=True)
class Load:
    """One step of load: mean power of one die's counter and of the wall plug, and how long."""

    die_w: float
    wall_w: float
    span_s: float


def loads(path: Path) -> list[Load]:
    with path.open(encoding="utf-8", newline="") as file:
        columns = ("rapl_power", "tapo_power", "duration")
        return [Load(*(float(row[name]) for name in columns)) for row in csv.DictReader(file)]


def counter_of(path: Path, channel: str = "powercap/intel-rapl:0") -> list[Reading]:
    """A die's counter, in uJ, at the ends of its steps."""
    readings = [_count(channel, 0, 0)]
    for load in loads(path):
        spent_uj = round(load.die_w * load.span_s * 1e6)
        before = readings[-1]
        readings.append(
            _count(channel, (before.raw or 0) + spent_uj, before.boot_ns + round(load.span_s * 1e9))
        )
    return readings


def _count(channel: str, raw: int, boot_ns: int) -> Reading:
    return Reading(
        sensor="rapl",
        channel=channel,
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=raw / 1e6,
        event_ns=boot_ns,
        boot_ns=boot_ns,
        node=Node.PACKAGE,
        raw=raw,
        exponent=-6,
        modulus=65_532_610_987,
    )


def powers_w(readings: Sequence[Reading]) -> list[float]:
    """Mean power of each step, counted as a running agent does."""
    state, found = None, []
    for reading in readings:
        state, step = totals.advance(state, reading)
        if step.power_w is not None:
            found.append(step.power_w)
    return found


def load_steps(path: Path) -> str:
    assert powers_w(counter_of(path)) == pytest.approx(
        [load.die_w for load in loads(path)], rel=1e-6
    )
    return "steps of load"


def telegram(path: Path) -> str:
    (row,) = document(path.read_bytes())["telegrams"]
    json.dumps(row, allow_nan=False)
    assert row["ok"] or row["reason"]
    return "telegram" if row["ok"] else "refused"


def not_hex(path: Path) -> str:
    rows = document(path.read_bytes())["telegrams"]
    assert rows and not any(row["ok"] for row in rows)
    return "what another decoder said: no telegram"


def answer(path: Path) -> str:
    place = f"/redfish/v1/{path.name}"
    try:
        body = redfish.parse(path.read_bytes(), place)
    except WireError as refusal:
        return refused_answer(refusal.reason)
    redfish.wanted(place, body)
    redfish.polled({place: body})
    sound(redfish.redfish_readings({place: body}, STAMP))
    return "resource"


def no_answer(path: Path) -> str:
    """Schemas, prose and what else lies beside the answers."""
    with pytest.raises(WireError):
        redfish.parse(path.read_bytes(), path.name)
    return "no answer of a service: refused"


def refused_answer(reason: str) -> str:
    return "error message" if "an error instead" in reason else "broken"


def cards(path: Path) -> str:
    (card,) = smi_xml.cards(path.read_bytes()).values()
    return "card with power" if card.power_w is not None else "card without power"


def dcmi(path: Path) -> str:
    return f"{ipmi.present_w(ipmi.power_in_text(path.read_bytes())):.0f} W"


def sensor_list(path: Path) -> str:
    with pytest.raises(WireError, match="no power reading"):
        ipmi.power_in_text(path.read_bytes())
    found = ipmi_sdr.sensors(path.read_bytes())
    return f"{len(found)} sensors with watts"


def kernel(path: Path) -> str:
    tree = KernelTree(Roots(sys=path.parent, proc=path.parent))
    text = tree.text(path)
    assert text is not None
    number = tree.number(path)
    return "number" if number is not None else "text"


def unit_map(path: Path) -> str:
    listed = json.loads(path.read_text(encoding="utf-8"))["registers"]
    return mapped([{"quantity": row["field"], "address": row["addr"]} for row in listed])


def configuration(path: Path) -> str:
    """Fields of another program as points of ours: both find the same ones at fault."""
    plugin = tomllib.loads(path.read_text(encoding="utf-8"))["inputs"]["modbus"][0]
    devices: dict[str, list[dict[str, Any]]] = {}
    for request in [*plugin.get("request", ()), *plugin.get("metric", ())]:
        device = f"{request.get('slave_id')} {request.get('tags')}"
        devices.setdefault(device, []).extend(point(field, request) for field in request["fields"])
    is_faulty = any(not mapped(points).startswith("map of") for points in devices.values())
    for field in plugin.get("holding_registers", ()):
        # Their format tells the words one by one, ours by the type alone.
        is_faulty |= len(field["address"]) != width(field["data_type"].lower())
    assert is_faulty == (path.parent / "init.err").is_file()
    return "configuration refused" if is_faulty else "configuration read"


def point(field: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    told = field.get("register", request.get("register", "holding"))
    place = field.get("measurement", request.get("measurement", ""))
    return {
        "quantity": "f_" + re.sub(r"\W", "_", f"{place}_{field.get('name', '')}".lower()),
        "function": 3 if told == "holding" else 4,
        "address": field["address"],
        "type": field.get("type", "int16").lower(),
    }


def excerpt(path: Path) -> str:
    """Rows of a manual as points; whether a map of ours agrees is tested beside the maps."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    points = [
        {
            "quantity": f"q{number}",
            "address": int(row.get("address") or row.get("input_register") or row.get("offset")
                           or row["holding_register"]),
            "type": {1: "uint16", 2: "uint32", 4: "uint64"}.get(words_of(row), "uint16"),
        }
        for number, row in enumerate(rows)
    ]  # fmt: skip
    return f"{len(rows)} rows: {mapped(points)}"


def words_of(row: dict[str, Any]) -> int:
    told = row.get("length") or row.get("n_registers")
    return int(told) if told else int(re.sub(r"\D", "", row["type"])) // 16


def mapped(points: Sequence[dict[str, Any]]) -> str:
    whole = [{"function": 4, "type": "int16", **point} for point in points]
    device = msgspec.convert({"name": "x", "point": whole}, DeviceMap)
    if found := mistakes(device):
        return found[0]
    return f"map of {len(points)} points in {len(requests(device))} requests"


def no_settings(path: Path) -> str:
    """A template of another program is text to us, and is refused as settings."""
    assert path.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="is not TOML"):
        settings.read_toml(path)
    return "template of another program: no TOML"


def values_of(path: Path) -> str:
    """Figures of cards: the library is made to tell them, in the tests of machine files."""
    told = re.findall(r"(?:power|Power)\w*[^\n]*?(-?\d+(?:\.\d+)?)", path.read_text())
    assert told
    return "figures for the library"


def archive(path: Path) -> str:
    names = re.findall(r"^(?:Path|Directory): ", path.read_text(encoding="utf-8"), re.M)
    return f"archive of {len(names)} places"


def reason(why: str) -> Callable[[Path], str]:
    def told(path: Path) -> str:
        assert path.is_file()
        return why

    return told


# The first pattern that fits counts. A star also stands for folders.
READERS: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("01_cpu/*.csv", load_steps),
    ("01_gpu/nvidia_smi_xml/*.xml", cards),
    ("01_gpu/nvidia_gpu_exporter/*.metrics", values_of),
    ("01_gpu/nvml_mock_profiles/*.yaml", values_of),
    ("01_gpu/amd_rocm_smi/*.json", values_of),
    ("01_gpu/dcgm_exporter/*.csv", reason("names of another exporter's fields, no figures")),
    ("01_ipmi/*_dcmi_power_reading.txt", dcmi),
    ("01_ipmi/*_sdr_*.txt", sensor_list),
    ("01_sysfs/node_exporter/sys.ttar", archive),
    ("01_sysfs/node_exporter/udev.ttar", reason("names of devices, which no driver reads")),
    ("01_sysfs/node_exporter/e2e-output.txt", reason("what another exporter says of sys.ttar")),
    ("01_sysfs/kepler/*/.gitkeep", reason("holds a folder open")),
    ("01_sysfs/kepler/sys/*", kernel),
    ("02_redfish/*.json", answer),
    ("02_redfish/*", no_answer),
    ("03_mbus/libmbus/*.hex", telegram),
    ("03_mbus/libmbus/*.xml", not_hex),
    ("04_modbus/densewatch_cdu/profiles/*.json", unit_map),
    ("04_modbus/telegraf_cases/*/telegraf.conf", configuration),
    ("04_modbus/telegraf_cases/*", reason("what another program said to its configuration")),
    ("04_modbus/vendor_excerpts/*.csv", excerpt),
    ("04_modbus/evcc/*.yaml", no_settings),
)


def outcome(shown: str, path: Path) -> str:
    found = next((read for pattern, read in READERS if fnmatchcase(shown, pattern)), None)
    return found(path) if found else f"NO READER: {shown}"
