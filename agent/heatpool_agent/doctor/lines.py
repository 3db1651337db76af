"""Devices at the end of a line: does each answer, how fast, and who else holds its port."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.doctor.place import Place, is_agent_running, is_locked, user_name
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.looks import Look

_LOCAL = ("rapl", "hwmon", "nvml", "host")
# Slower than this a device cannot be read at the usual pace of a tick.
SLOW_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSeen:
    """One serial port; `is_named` says that the settings use it."""

    path: str
    is_named: bool
    is_there: bool = True
    is_open_to_us: bool = True
    is_locked: bool = False


def families(place: Place) -> Sequence[Verdict]:
    """The ports and the agent that may run beside us; blocking."""
    runs = is_agent_running(place.folder)
    return (serial_ports(_ports(place), user=user_name(), is_agent=runs), beside(place, runs=runs))


def beside(place: Place, *, runs: bool) -> Verdict:
    """Whether an agent runs on this site's spool now."""
    has_lines = any(block.get("kind") not in _LOCAL for block in place.config.sensor)
    if not runs:
        return ok("agent_beside", "no other agent holds this site's spool")
    if not has_lines:
        return ok("agent_beside", "an agent runs; both read the machine's own files without harm")
    listen = place.config.http.listen
    page = f"look at what it sees: curl http://{listen}/v1/status; or " if listen else ""
    return warn(
        "agent_beside",
        "an agent runs on this site, and its devices are asked by both",
        why="a device that allows one connection refuses us or drops the agent for a moment",
        fix=f"{page}stop it for this check: systemctl stop heatpool-agent",
    )


def serial_ports(ports: Sequence[PortSeen], *, user: str, is_agent: bool) -> Verdict:
    """Whether serial ports are there, open to us, and held by nobody else."""
    named = [port for port in ports if port.is_named]
    for port in named:
        if not port.is_there:
            return fail(
                "serial_ports",
                f"{port.path} is not there",
                why="a sensor in the settings is read through it",
                fix="plug the adapter in; ls -l /dev/serial/by-id/ shows names that stay the same",
            )
        if not port.is_open_to_us:
            return fail(
                "serial_ports",
                f"{port.path} may not be opened by {user}",
                why="serial ports belong to the group dialout",
                fix=f"usermod -aG dialout {user} (as root), then log in anew",
            )
    held = [port for port in named if port.is_locked]
    if held:
        who = "the running agent" if is_agent else "another program"
        return warn(
            "serial_ports",
            f"{held[0].path} is locked by {who}",
            why="two masters on one line spoil each other's telegrams",
            fix=f"fuser -v {held[0].path} says who it is; stop it, or leave the port to it",
        )
    return _unnamed(ports, named, user)


def _unnamed(ports: Sequence[PortSeen], named: Sequence[PortSeen], user: str) -> Verdict:
    if not ports:
        return skip("serial_ports", "no serial port")
    free = ", ".join(port.path for port in ports)
    if named:
        return ok("serial_ports", f"{', '.join(port.path for port in named)}: open to {user}")
    return ok("serial_ports", f"{free}: there, none is named in the settings")


def endpoints(looks: Sequence[Look], *, named: Sequence[str], is_agent: bool) -> Iterator[Verdict]:
    """One verdict per sensor."""
    for look in looks:
        yield endpoint(look, is_named=look.id in named, is_agent=is_agent)


def endpoint(look: Look, *, is_named: bool, is_agent: bool) -> Verdict:
    """Whether one sensor answers, and how fast."""
    name = f"sensor:{look.id}" if look.kind in _LOCAL else f"endpoint:{look.id}"
    if look.state == "absent":
        return _absent(name, look, is_named=is_named)
    if look.state == "busy":
        return warn(
            name,
            look.detail,
            why="the device needs longer than this look, or asked for patience",
            fix="run doctor again in a minute; if it stays, give the sensor a longer period_s",
        )
    if look.state == "gone":
        return _gone(name, look, is_agent=is_agent)
    return _fast(name, look)


def _absent(name: str, look: Look, *, is_named: bool) -> Verdict:
    if not is_named:
        return skip(name, look.detail)
    return fail(
        name,
        look.detail,
        why="the settings name this sensor",
        fix=look.fix
        or f"take the [[sensor]] block {look.id!r} out, or look why it is missing: "
        "heatpool-agent detect",
    )


def _gone(name: str, look: Look, *, is_agent: bool) -> Verdict:
    fix = look.fix or "check power, wiring and network, and call who looks after the device"
    if is_agent and look.kind not in _LOCAL:
        return warn(
            name,
            look.detail,
            why="the running agent may hold the only connection that the device allows",
            fix="see sensors in the agent's own page, or stop it first: "
            f"systemctl stop heatpool-agent; if it is not that: {fix}",
        )
    return fail(name, look.detail, why="nothing of it is measured", fix=fix)


def _fast(name: str, look: Look) -> Verdict:
    answer_s = look.read_s if look.read_s is not None else look.first_s or 0.0
    found = f"{len(look.readings)} readings in {1000 * answer_s:.0f} ms"
    if look.read_s is not None and look.first_s is not None and look.kind not in _LOCAL:
        found += f" (connecting and first answer {1000 * look.first_s:.0f} ms)"
    is_slow = answer_s > SLOW_S and look.kind not in (*_LOCAL, "mbus", "redfish", "ipmi")
    if not is_slow:
        return ok(name, found)
    return warn(
        name,
        found,
        why="it answers more slowly than the agent ticks",
        fix=f"give sensor {look.id!r} a period_s of at least {max(2, round(2 * answer_s))}, "
        "and look for other masters on its line",
    )


def _ports(place: Place) -> list[PortSeen]:
    named = {path for block in place.config.sensor if (path := _port_of(block.get("url")))}
    dev = place.roots.dev
    found = {str(path) for pattern in ("ttyUSB*", "ttyACM*") for path in dev.glob(pattern)}
    return [_port(path, is_named=path in named) for path in sorted(found | named)]


def _port_of(url: object) -> str:
    """The path of a serial port in a url such as `rtu:/dev/ttyUSB0?baud=9600`."""
    if not isinstance(url, str):
        return ""
    scheme, _, rest = url.partition(":")
    return rest.partition("?")[0] if scheme in ("rtu", "serial") else ""


def _port(name: str, *, is_named: bool) -> PortSeen:
    path = Path(name)
    if not path.exists():
        return PortSeen(path=name, is_named=is_named, is_there=False)
    lock_file = Path("/var/lock") / f"LCK..{path.name}"
    return PortSeen(
        path=name,
        is_named=is_named,
        is_open_to_us=os.access(path, os.R_OK | os.W_OK),
        is_locked=is_locked(path) or lock_file.exists(),
    )
