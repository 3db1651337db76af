"""What may go wrong, by name; faults of physics act in the plant, faults of speech in a device."""

from dataclasses import dataclass

PLANT = frozenset({"job_end", "sensor_swap", "leak", "pump_trip"})
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
MQTT = frozenset({"mqtt_retained_old", "mqtt_duplicate", "mqtt_text", "mqtt_will"})
EVENTS = frozenset({"meter_exchange", "register_rollover", "machine_reset", "machine_wrap_near"})
ALL = PLANT | SPEECH | REDFISH | IPMI | MQTT | PULLED.keys() | MACHINE | MQTT | EVENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault `id` at a site, `at_s` seconds after the start, for `length_s` (events: once)."""

    id: str
    site_id: str
    at_s: float
    length_s: float = 0.0


def active(faults: tuple[Fault, ...], *, since_start_s: float) -> frozenset[str]:
    """Names of the faults that last at this moment."""
    return frozenset(
        fault.id
        for fault in faults
        if fault.id not in EVENTS and 0 <= since_start_s - fault.at_s < fault.length_s
    )


def due(faults: tuple[Fault, ...], *, after_s: float, until_s: float) -> tuple[str, ...]:
    """Names of the events that fall into (after, until]."""
    return tuple(
        fault.id for fault in faults if fault.id in EVENTS and after_s < fault.at_s <= until_s
    )
