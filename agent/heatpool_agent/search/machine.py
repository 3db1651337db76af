"""What the machine itself has: each local kind is probed once; serial ports are only listed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heatpool_agent.config import Config
from heatpool_agent.looks import Look, look_at_all
from heatpool_agent.ports import Clock
from heatpool_agent.search.found import Found

_HERE = "this machine"
# What a person plugs in to reach meters and cooling units.
_ADAPTERS = ("ttyUSB*", "ttyACM*")


async def own_sensors(config: Config, clock: Clock) -> list[Found]:
    """One finding per local kind that is here, and one line on those that are not."""
    seen = await look_at_all(Config(roots=config.roots), clock)
    absent = [look.kind for look in seen.looks if look.state == "absent"]
    found = [_found(look) for look in seen.looks if look.state != "absent"]
    if absent:
        said = f"nothing here for {', '.join(absent)}"
        found.append(Found(place=_HERE, kind="absent", seen=(said,)))
    return found


def _found(look: Look) -> Found:
    if look.state != "up":
        return Found(
            place=_HERE,
            kind=look.kind,
            seen=(f"{look.kind} is here and cannot be read: {look.detail}",),
            block={"id": look.id, "kind": look.kind},
            missing=look.fix or "make it readable",
        )
    return Found(
        place=_HERE,
        kind=look.kind,
        seen=(_channels(look),),
        block={"id": look.id, "kind": look.kind},
    )


def _channels(look: Look) -> str:
    count = len({reading.channel for reading in look.readings})
    nodes = Counter(
        node for _, node in {(reading.channel, reading.node.value) for reading in look.readings}
    )
    shown = ", ".join(f"{number} {node}" for node, number in sorted(nodes.items()))
    return f"{look.kind}, {count} channels: {shown}"


def serial_ports(dev: Path) -> list[Found]:
    """Adapters, listed and not opened; blocking."""
    ports = sorted(path for pattern in _ADAPTERS for path in dev.glob(pattern))
    if not ports:
        return []
    names = {path.resolve(): path for path in (dev / "serial/by-id").glob("*")}
    return [_port(path, names.get(path.resolve(), path)) for path in ports]


def _port(path: Path, lasting: Path) -> Found:
    same: Sequence[str] = () if lasting == path else (f"its lasting name is {lasting}",)
    return Found(
        place=str(path),
        kind="serial",
        seen=("a serial port, not opened", *same),
        block={
            "id": f"line-{path.name}",
            "kind": "mbus",
            "url": f"serial:{lasting}?baud=2400",
            "address": 1,
        },
        missing='say what hangs on it (Modbus: kind = "modbus", map and '
        'url = "rtu:...?baud=9600&parity=even&stop=1"), its address,',
    )
