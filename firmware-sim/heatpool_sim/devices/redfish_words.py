"""Figures as Redfish writes them: units, time, states, and who a simulated device is."""

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

MINUTES_PER_HOUR = 60.0


def rounded(value: float, digits: int) -> float:
    """The value with so many digits; never the minus zero that looks like a fault."""
    return round(value, digits) + 0.0


def celsius(value: float) -> float:
    """A temperature, degC, as such sensors resolve it."""
    return rounded(value, 2)


def litres(volume_flow_m3_h: float) -> float:
    """A volume flow in L/min."""
    return rounded(volume_flow_m3_h * 1000.0 / MINUTES_PER_HOUR, 2)


def kilowatts(heat_rate_w: float) -> float:
    """A heat rate in kW."""
    return rounded(heat_rate_w / 1000.0, 3)


def share(frac: float) -> float:
    """A fraction as per cent."""
    return rounded(frac * 100.0, 1)


def clock(at_ns: int) -> str:
    """An instant as Redfish writes it."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def state(health: str = "OK", *, name: str = "Enabled") -> dict[str, str]:
    """A resource's status."""
    return {"State": name, "Health": health}


def identity(kind: str, *, site_id: str, user: str) -> dict[str, Any]:
    """Who the device is; the same site and kind give the same ids at every start."""
    where = f"https://heatpool.example/sim/{site_id}/{kind}"
    return {
        "site_id": site_id,
        "user": user or "anybody",
        "serial": str(uuid5(NAMESPACE_URL, where))[:8].upper(),
        "service_uuid": str(uuid5(NAMESPACE_URL, where)),
        "manager_uuid": str(uuid5(NAMESPACE_URL, f"{where}/manager")),
        "chassis_uuid": str(uuid5(NAMESPACE_URL, f"{where}/chassis")),
        "host_name": f"{kind}-{site_id}",
        "host_fqdn": f"{kind}-{site_id}.example",
    }
