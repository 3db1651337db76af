"""What may go wrong, by name; faults of physics act in the plant, faults of speech in a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Pipe = Literal["hot", "cold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a fault is unless told otherwise, and within which bounds it may be set."""

    usual: float
    least: float
    most: float
    unit: str


# Truth changes: energy goes another way, and none is lost.
TRUTH = frozenset({"job_end", "leak", "pump_trip", "air_in_loop", "wrong_fluid"})
# Truth stays: a sensor of the coolant unit, or the power meter, tells it wrong.
GAUGES = frozenset(
    {
        "sensor_swap",
        "temperature_stuck",
        "temperature_drift",
        "pair_offset",
        "fouling",
        "power_meter_low",
        "flow_stuck",
        "flow_unit",
        "meter_dead",
        "wrong_sensor_side",
    }
)
PLANT = TRUTH | GAUGES
# Usual sizes: physics.md 9. A fault that is not here is there or not.
SIZES = {
    "air_in_loop": Size(usual=0.15, least=0.0, most=0.5, unit="share of the captured heat"),
    "power_meter_low": Size(usual=0.10, least=-0.5, most=0.9, unit="share of the reading"),
    "fouling": Size(usual=0.05, least=0.0, most=0.9, unit="share of the flow"),
    "temperature_drift": Size(usual=0.1, least=-50.0, most=50.0, unit="K a day"),
    "pair_offset": Size(usual=0.3, least=-10.0, most=10.0, unit="K"),
    "flow_unit": Size(usual=1000.0 / 60.0, least=1e-4, most=1e4, unit="factor of the flow"),
}
# Those that sit in one pipe.
PIPED = frozenset({"temperature_stuck", "temperature_drift", "pair_offset"})
SPEECH = frozenset(
    {
        "offline",
        "cdu_offline",
        "meter_offline",
        "checksum_wrong",
        "busy",
        "meter_collision",
        "meter_frozen",
        "meter_sensor_broken",
        "meter_too_many_readouts",
        "torn_pair",
        "swapped_words",
        "off_by_one",
    }
)
REDFISH = frozenset(
    {
        "redfish_401",
        "redfish_503",
        "redfish_slow",
        "redfish_half_json",
        "redfish_html",
        "redfish_empty",
        "redfish_no_slot",
        "redfish_wrong_clock",
        "redfish_link_loop",
        "redfish_foreign_link",
        "redfish_rating_as_input",
        "redfish_count_wrong",
    }
)
IPMI = frozenset(
    {"ipmi_not_activated", "ipmi_mw_mix", "ipmi_wrong_clock", "ipmi_slow", "ipmi_garbled"}
)
MQTT = frozenset({"mqtt_retained_old", "mqtt_duplicate", "mqtt_text", "mqtt_will"})
# One device is pulled, the others stay; Modbus and M-Bus know theirs among SPEECH.
OFFLINE = "offline"
PULLED = {
    "redfish_cdu_offline": "redfish_cdu",
    "redfish_bmc_offline": "redfish_bmc",
    "ipmi_bmc_offline": "ipmi_bmc",
    "mqtt_cdu_offline": "mqtt_cdu",
}
# What the files of a machine, and the library of its cards, may do.
MACHINE = frozenset(
    {
        "machine_unreadable",
        "machine_masked",
        "machine_frozen",
        "machine_asleep",
        "machine_garbled",
        "gpu_lost",
        "gpu_frozen",
        "gpu_hang",
        "gpu_refuse",
        "gpu_remove",
    }
)
EVENTS = frozenset({"meter_exchange", "register_rollover", "machine_reset", "machine_wrap_near"})
ALL = PLANT | SPEECH | REDFISH | IPMI | MQTT | PULLED.keys() | MACHINE | EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault `id` at a site, `at_s` seconds after the start, for `length_s` (events: once).

    `size` is for those in SIZES (None: the usual one), `pipe` for those in PIPED.
    """

    id: str
    site_id: str
    at_s: float
    length_s: float = 0.0
    size: float | None = None
    pipe: Pipe = "hot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """A fault while it lasts: how large it is, for how long it has been there, in which pipe."""

    size: float = 0.0
    for_s: float = 0.0
    pipe: Pipe = "hot"


def lasting(faults: Sequence[Fault], *, since_start_s: float) -> dict[str, Lasting]:
    """The faults that last at this moment, by name; of two with one name, the later in the list."""
    return {
        fault.id: Lasting(
            size=size(fault), for_s=max(since_start_s - fault.at_s, 0.0), pipe=fault.pipe
        )
        for fault in faults
        if fault.id not in EVENTS and 0 <= since_start_s - fault.at_s < fault.length_s
    }


def size(fault: Fault) -> float:
    """How large this fault is, in the unit that SIZES names; 0 where none is meant."""
    if fault.size is not None:
        return fault.size
    return SIZES[fault.id].usual if fault.id in SIZES else 0.0


def mistakes(fault: Fault) -> list[str]:
    """What is wrong with a planned fault: its name, its length, its size."""
    if fault.id not in ALL:
        return [f"fault {fault.id!r} is unknown; known: {', '.join(sorted(ALL))}"]
    found = []
    if fault.id not in EVENTS and not fault.length_s:
        found.append(f"fault {fault.id!r} at {fault.site_id!r}: length_s is missing")
    if fault.size is not None and fault.id not in SIZES:
        sized = ", ".join(sorted(SIZES))
        found.append(f"fault {fault.id!r} takes no size; those that do: {sized}")
    bounds = SIZES.get(fault.id)
    if bounds and fault.size is not None and not bounds.least <= fault.size <= bounds.most:
        found.append(
            f"fault {fault.id!r}: size {fault.size:g} is outside "
            f"{bounds.least:g}..{bounds.most:g} ({bounds.unit})"
        )
    if fault.pipe != "hot" and fault.id not in PIPED:
        found.append(f"fault {fault.id!r} takes no pipe; those that do: {', '.join(sorted(PIPED))}")
    return found


def due(faults: tuple[Fault, ...], *, after_s: float, until_s: float) -> tuple[str, ...]:
    """Names of the events that fall into (after, until]."""
    return tuple(
        fault.id for fault in faults if fault.id in EVENTS and after_s < fault.at_s <= until_s
    )
