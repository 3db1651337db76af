"""What a driver hands over: one value of one channel, and its fate after admission.

A driver translates units and names; it does not judge. Judging is `plausible`.
"""

from dataclasses import dataclass
from enum import Enum


class ReadingKind(Enum):
    """How a value behaves over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    STATE = "state"


class Node(Enum):
    """Where in the power and heat tree a reading was taken (`physics.md` 5.1)."""

    HEAT_METER = "heat_meter"
    CDU = "cdu"
    SITE_METER = "site_meter"
    PDU = "pdu"
    # What a BMC says of its whole server; its supplies are inside.
    CHASSIS = "chassis"
    PSU_IN = "psu_in"
    PSU_OUT = "psu_out"
    PSYS = "psys"
    PACKAGE = "package"
    CORE = "core"
    UNCORE = "uncore"
    DRAM = "dram"
    GPU = "gpu"
    # CPU and GPU on one board, as on Grace Hopper: both are inside.
    MODULE = "module"
    FAN = "fan"
    DRIVE = "drive"
    CHIP = "chip"
    BOARD = "board"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of one channel at one instant.

    `channel` is a stable path such as `powercap/intel-rapl:0`, never a label; `quantity` carries
    the unit. Counters carry `raw` (value = raw * 10**exponent), `modulus` of the raw count (None:
    unknown) and `generation`, the life in which differences make sense. `u` is standard, absent
    where the device states none. `holds_s` is how long a published value stands until its source
    speaks again; None for what is asked for each time.
    """

    sensor: str
    channel: str
    quantity: str
    kind: ReadingKind
    value: float
    event_ns: int
    boot_ns: int
    node: Node
    u: float | None = None
    label: str = ""
    loop: str = ""
    flags: tuple[str, ...] = ()
    raw: int | None = None
    exponent: int = 0
    modulus: int | None = None
    generation: str = ""
    meter_id: str = ""
    sensor_side: str = ""
    status_bits: int = 0
    meter_ns: int | None = None
    holds_s: float | None = None
