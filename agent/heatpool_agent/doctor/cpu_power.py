"""Power counters of the CPU: which zones there are, who may read them, and what hides them."""

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.core import powercap
from heatpool_agent.core.reading import Node
from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn

_POWERCAP = "class/powercap"
_EVENTS = "bus/event_source/devices/power/events"
# Bits of a set of capabilities (capability.h): CAP_SYS_ADMIN 21, CAP_PERFMON 38.
_PERF_CAPABILITIES = 1 << 21 | 1 << 38
_GROUP = "heatpool"
# Two packages at work never count the same to this share.
_ALIKE_FRAC = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSeen:
    """One zone: its count, uJ, or the error number of what refused it."""

    zone: powercap.Zone
    energy_uj: int | None = None
    refusal: int = 0
    is_root_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSeen:
    """All that is looked at."""

    folder: str
    zones: Sequence[ZoneSeen] = ()
    is_wanted: bool = True
    is_container: bool = False
    is_virtual: bool | None = None
    has_events: bool = False
    paranoid: int | None = None
    may_perf: bool = False

    @property
    def refused(self) -> Sequence[ZoneSeen]:
        """Zones that are there and may not be read."""
        return [seen for seen in self.zones if seen.refusal]

    @property
    def readable(self) -> Sequence[ZoneSeen]:
        """Zones that show a count."""
        return [seen for seen in self.zones if seen.energy_uj is not None]


def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room; blocking."""
    seen = _seen(place)
    return (
        readable(seen),
        twins(seen),
        container_mask(seen),
        virtual_machine(seen),
        perf_events(seen),
    )


def readable(seen: CpuSeen) -> Verdict:
    """Whether the counters of the CPU may be read."""
    if not seen.zones:
        return skip("rapl_readable", f"no power zone in {seen.folder}")
    refused = [one for one in seen.refused if one.refusal in (errno.EACCES, errno.EPERM)]
    if refused and not seen.may_perf:
        return _denied(seen, len(refused))
    root_only = [one for one in seen.zones if one.is_root_only]
    if root_only and os.geteuid() == 0:
        return warn(
            "rapl_readable",
            f"{len(root_only)} of {len(seen.zones)} zones are for root alone, and this is root",
            why=f"the service runs as user {_GROUP} and will be refused",
            fix=_open_to_group(seen.folder),
        )
    if not seen.readable and not seen.may_perf:
        return warn(
            "rapl_readable",
            f"{len(seen.zones)} zones, none with a number",
            why="zones are listed and do not count, as in some virtual machines",
            fix=f"cat {seen.folder}/intel-rapl:0/energy_uj as root; if it stays empty, read the "
            "host's PDU, BMC or heat meter in place of it",
        )
    return ok("rapl_readable", f"{len(seen.readable)} of {len(seen.zones)} zones show a count")


def _denied(seen: CpuSeen, count: int) -> Verdict:
    found = f"{count} of {len(seen.zones)} zones: permission denied"
    why = "energy_uj is for root alone since kernel 5.10; without it the CPU's power is a guess"
    make = fail if seen.is_wanted else warn
    return make("rapl_readable", found, why=why, fix=_open_to_group(seen.folder))


def _open_to_group(folder: str) -> str:
    files = f"{folder}/intel-rapl*/energy_uj"
    return (
        f"echo 'z {files} 0440 root {_GROUP} - -' > /etc/tmpfiles.d/heatpool.conf && "
        f"chgrp {_GROUP} {files} && chmod 0440 {files} (as root)"
    )


def twins(seen: CpuSeen) -> Verdict:
    """Zones that show one thing twice: by another door, or by packages that count alike."""
    doors = [one for one in seen.zones if powercap.TWIN in one.zone.flags]
    alike = list(_alike(seen.readable))
    if alike:
        return warn(
            "rapl_twins",
            f"packages {' and '.join(alike)} show one and the same count",
            why="dies that each count the whole package would be added up to twice its power",
            fix="nothing to set: the agent leaves the second out once both agreed for 30 reads; "
            "lscpu | grep Socket says how many packages there really are",
        )
    if doors:
        return ok("rapl_twins", f"{len(doors)} zones are twins by mmio; marked, never added")
    if not seen.zones:
        return skip("rapl_twins", "no power zone")
    return ok("rapl_twins", "no zone shows another one's energy")


def _alike(zones: Sequence[ZoneSeen]) -> Iterator[str]:
    packages = [
        (one.zone.label, one.energy_uj)
        for one in zones
        if one.zone.node is Node.PACKAGE and powercap.TWIN not in one.zone.flags
    ]
    if len(packages) < 2:
        return
    (first, first_uj), *others = packages
    for label, energy_uj in others:
        if first_uj and energy_uj and abs(energy_uj - first_uj) <= _ALIKE_FRAC * first_uj:
            yield from (first, label)
            return


def container_mask(seen: CpuSeen) -> Verdict:
    """Whether a container hides the counters of its host."""
    if not seen.is_container:
        return skip("container_mask", "this is no container")
    is_masked = not seen.zones or any(one.refusal == errno.ENOENT for one in seen.zones)
    if is_masked and seen.is_virtual is not True:
        return warn(
            "container_mask",
            f"a container, and {seen.folder} shows no count",
            why="container runtimes mask the power zones, so the host's CPU stays unseen",
            fix="start it with -v /sys/devices/virtual/powercap:/host/powercap:ro and set "
            "roots.sys to where it lies, or run the agent on the host",
        )
    none = "a container of a virtual machine, which has no zones to hide"
    return ok("container_mask", "a container that hides no zone" if seen.zones else none)


def virtual_machine(seen: CpuSeen) -> Verdict:
    """Whether this is a virtual machine, which seldom has counters."""
    if seen.is_virtual is None:
        return skip("virtual_machine", "the CPU does not say whether it is virtual")
    if not seen.is_virtual:
        return ok("virtual_machine", "the CPU is no virtual one")
    if seen.readable:
        return ok("virtual_machine", "virtual, and its host passes counters on")
    return warn(
        "virtual_machine",
        "a virtual machine without power counters",
        why="its power is modelled from load (class E), off by a third or more",
        fix="run the agent on the host, or name what measures it from outside: "
        "heatpool-agent detect HOST (its PDU, BMC, coolant unit or heat meter)",
    )


def perf_events(seen: CpuSeen) -> Verdict:
    """Whether the kernel's perf events of power may be opened."""
    if not seen.has_events:
        return skip("perf_event_paranoid", "the kernel has no perf events of power")
    found = f"kernel.perf_event_paranoid is {seen.paranoid}"
    if seen.may_perf or (seen.paranoid is not None and seen.paranoid < 1):
        return ok("perf_event_paranoid", f"{found}; events may be opened")
    if seen.readable:
        return ok("perf_event_paranoid", f"{found}; powercap is read in place of events")
    return warn(
        "perf_event_paranoid",
        found,
        why="neither perf events nor powercap zones may be read by this user",
        fix="printf '[Service]\\nAmbientCapabilities=CAP_PERFMON\\n"
        "CapabilityBoundingSet=CAP_PERFMON\\nPrivateUsers=no\\n"
        "SystemCallFilter=perf_event_open\\n' | "
        "systemctl edit --stdin heatpool-agent && systemctl restart heatpool-agent",
    )


def _seen(place: Place) -> CpuSeen:
    roots = place.roots
    folder = roots.sys / _POWERCAP
    names = os.listdir(folder) if folder.is_dir() else []
    labels = {name: _text(folder / name / "name") or "" for name in names}
    text = _text(roots.proc / "cpuinfo")
    return CpuSeen(
        folder=str(folder),
        zones=tuple(_zone(folder, zone) for zone in powercap.zones(labels)),
        is_wanted=place.wants("rapl"),
        is_container=_is_container(),
        is_virtual=None if text is None else " hypervisor" in text,
        has_events=(roots.sys / _EVENTS).is_dir(),
        paranoid=_number(roots.proc / "sys/kernel/perf_event_paranoid"),
        may_perf=bool(_capabilities() & _PERF_CAPABILITIES) and (roots.sys / _EVENTS).is_dir(),
    )


def _zone(folder: Path, zone: powercap.Zone) -> ZoneSeen:
    path = folder / zone.folder / "energy_uj"
    try:
        is_root_only = not path.stat().st_mode & 0o044
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        return ZoneSeen(zone=zone, refusal=error.errno or errno.EIO)
    energy_uj = int(text) if text.isdecimal() else None
    return ZoneSeen(zone=zone, energy_uj=energy_uj, is_root_only=is_root_only)


def _is_container() -> bool:
    return any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))


def _capabilities() -> int:
    for line in (_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _number(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
