"""No answer of a device crashes the reader, whatever it holds."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.redfish import parse, polled, redfish_readings, sensing_interval_s, wanted

STAMP = Stamp(sensor="bmc", loop="rack", event_ns=7, boot_ns=5)
PATHS = ("/redfish/v1", "/redfish/v1/Chassis/1", "/redfish/v1/Chassis/1/Sensors/a", "#", "")
NAMES = (
    *("@odata.id", "@odata.type", "Members", "Members@odata.count", "Members@odata.nextLink"),
    *("Chassis", "Links", "ContainedBy", "EnvironmentMetrics", "Power", "PowerControl", "Sensors"),
    *("PowerSupplies", "Metrics", "PowerWatts", "PowerConsumedWatts", "Reading", "ReadingType"),
    *("DataSourceUri", "PhysicalContext", "PhysicalSubContext", "ReadingUnits", "Accuracy"),
    *("Status", "State", "Health", "LeakDetectorGroups", "Detectors", "DetectorState", "Id"),
    *("PumpSpeedPercent", "FlowLitersPerMinute", "SupplyTemperatureCelsius", "Coolant", "Oem"),
    *("ReturnTemperatureCelsius", "HeatRemovedkW", "SupplyPressurekPa", "ReturnPressurekPa"),
    *("InputPowerWatts", "OutputPowerWatts", "EnergykWh", "EnergyJoules", "PowerCapacityWatts"),
    *("InputRanges", "Sensor", "SensingInterval", "ReadingAccuracy", "EfficiencyPercent"),
    *("PowerInputWatts", "PowerOutputWatts", "PrimaryCoolantConnectors", "ProcessorType"),
)
KINDS = (
    *("Sensor", "Chassis", "EnvironmentMetrics", "Power", "PowerSupply", "PowerSupplyMetrics"),
    *("CoolantConnector", "CoolingUnit", "Pump", "LeakDetection", "LeakDetector", "Control"),
    *("Processor", "PowerDistributionMetrics", "Outlet", "Fan"),
)
WORDS = (
    *("Power", "EnergykWh", "EnergyJoules", "Temperature", "W", "kW", "J", "kW.h", "Cel", "12.5"),
    *("Input", "Output", "PowerSupply", "CPU", "Intake", "Absent", "OK", "PT5S", "1e-9999999"),
    *("energy_in", "energy_out", "total_power_in", "total_power_in_A"),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
    | st.sampled_from(PATHS)
    | st.sampled_from([f"#{kind}.v1_0_0.{kind}" for kind in KINDS])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
bodies = st.builds(
    lambda kind, body: {**body, "@odata.type": f"#{kind}.v1_0_0.{kind}"},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=8),
)


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_an_object_or_refused(answer: bytes) -> None:
    try:
        document = parse(answer, "/redfish/v1")
    except WireError:
        return
    assert isinstance(document, dict)
    wanted("/redfish/v1", document)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(PATHS), bodies | st.dictionaries(st.text(), values)))
def test_any_documents_are_read_without_an_exception(documents: dict[str, Any]) -> None:
    for path, document in documents.items():
        links = wanted(path, document)
        assert all(link.startswith("/redfish") for link in links)
    assert set(polled(documents)) <= set(documents)
    span_s = sensing_interval_s(documents)
    assert span_s is None or span_s > 0
    readings = redfish_readings(documents, STAMP)
    keys = [(r.channel, r.quantity) for r in readings if r.quantity != "rated_w"]
    assert len(keys) == len(set(keys))
