"""BMCs: the kernel's own door to one, and over the network login, free slots and clock."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone, WireError
from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.sensors.redfish.bmc import BmcTree, bmc_tree
from heatpool_agent.sensors.redfish.settings import Config

# With the 4 s that leaving may take this ends before the family's own limit.
_MOST_S = 4.5
# Events of a BMC are matched with ours by its clock.
_MOST_OFFSET_S = 5.0
# BMCs allow few sessions, some only four; each login of a person needs one.
MANY_SESSIONS = 8
_ROOT = "/redfish/v1/"


@dataclass(frozen=True, slots=True, kw_only=True)
class BmcSeen:
    """What one BMC told; None: it did not."""

    name: str
    has_login: bool = True
    refusal: str = ""
    fix: str = ""
    is_slow: bool = False
    sessions_count: int | None = None
    offset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSeen:
    """The kernel's device of the local BMC."""

    path: str
    is_there: bool
    may_use: bool
    is_wanted: bool


def door(seen: DoorSeen) -> Verdict:
    """Whether the local BMC can be asked through the kernel."""
    if not seen.is_there:
        if not seen.is_wanted:
            return skip("ipmi_device", f"no {seen.path}")
        return fail(
            "ipmi_device",
            f"no {seen.path}",
            why="an ipmi sensor without a host is read through it",
            fix="modprobe -a ipmi_si ipmi_devintf (as root), and list both in "
            "/etc/modules-load.d/heatpool.conf",
        )
    if seen.may_use:
        return ok("ipmi_device", f"{seen.path} may be used")
    make = fail if seen.is_wanted else warn
    return make(
        "ipmi_device",
        f"{seen.path}: permission denied",
        why="the BMC knows what the whole server draws",
        fix='echo \'KERNEL=="ipmi*", GROUP="heatpool", MODE="0660"\' > '
        "/etc/udev/rules.d/60-heatpool.rules && udevadm control --reload && udevadm trigger "
        "(as root)",
    )


def local_door(place: Place) -> Verdict:
    """The same, looked at; blocking."""
    path = place.roots.dev / "ipmi0"
    wants = any(not (block.get("url") or block.get("host")) for block in place.named("ipmi"))
    return door(
        DoorSeen(
            path=str(path),
            is_there=path.exists(),
            may_use=os.access(path, os.R_OK | os.W_OK),
            is_wanted=wants,
        )
    )


async def families(place: Place) -> Sequence[Verdict]:
    """The kernel's door, and three verdicts for each BMC on the network."""
    found = [await asyncio.to_thread(local_door, place)]
    blocks = [b for b in place.named("redfish") if not str(b.get("url")).startswith("file:")]
    if not blocks:
        none = "no BMC on the network in the settings"
        return (*found, *(skip(name, none) for name in ("bmc_login", "bmc_slots", "bmc_clock")))
    seen = await asyncio.gather(*(_ask(block, place) for block in blocks))
    return (*found, *(verdict for one in seen for verdict in (login(one), slots(one), clock(one))))


def login(seen: BmcSeen) -> Verdict:
    """Whether we are let in."""
    name = f"bmc_login:{seen.name}"
    if seen.refusal:
        fix = seen.fix or "check url, user and password_file; call who looks after the server"
        return fail(name, seen.refusal, why="without a login its power is not read", fix=fix)
    if not seen.has_login:
        return warn(
            name,
            "asked without a login",
            why="most BMCs show their sensors only to a user",
            fix="make a read-only user on the BMC; set user and password_file (mode 0600)",
        )
    return ok(name, "let in, and too slow to tell all of this" if seen.is_slow else "let in")


def slots(seen: BmcSeen) -> Verdict:
    """Whether the BMC has sessions to spare."""
    name = f"bmc_slots:{seen.name}"
    if seen.refusal or seen.sessions_count is None:
        return skip(name, "it does not tell its sessions")
    if seen.sessions_count >= MANY_SESSIONS:
        return warn(
            name,
            f"{seen.sessions_count} sessions are open",
            why="a BMC with no slot left lets nobody in, people neither",
            fix="close stale ones in the BMC's own page (Sessions); call who looks after it",
        )
    return ok(name, f"{seen.sessions_count} sessions open, one of them this check's")


def clock(seen: BmcSeen) -> Verdict:
    """How far the BMC's clock is from ours."""
    name = f"bmc_clock:{seen.name}"
    if seen.refusal or seen.offset_s is None:
        return skip(name, "it does not tell its time")
    if abs(seen.offset_s) > _MOST_OFFSET_S:
        return warn(
            name,
            f"{seen.offset_s:+.0f} s from ours",
            why="its event log cannot be matched with our figures",
            fix="set its NTP servers in the BMC's own page (Managers, NetworkProtocol, NTP)",
        )
    return ok(name, f"{seen.offset_s:+.1f} s from ours")


async def _ask(block: Mapping[str, Any], place: Place) -> BmcSeen:
    name = str(block.get("id"))
    config = msgspec.convert({**block, "timeout_s": _MOST_S}, Config)
    try:
        tree = bmc_tree(config, place.roots, place.clock)
    except ConfigError as error:
        return BmcSeen(name=name, refusal=str(error))
    told = _Told()
    refusal = fix = ""
    is_slow = False
    try:
        async with asyncio.timeout(_MOST_S):
            await _ask_all(tree, told, config, place)
    except TimeoutError:
        # A slow one that let us in has told what it has told.
        is_slow = True
        refusal = "" if told.is_in else f"{config.base}: no answer within {_MOST_S:g} s"
    except SensorGone as error:
        refusal, fix = error.reason, error.fix
    except (SensorBusy, WireError, OSError) as error:
        refusal = str(error)
    finally:
        await tree.close()
    return BmcSeen(
        name=name,
        has_login=config.has_login,
        refusal=refusal,
        fix=fix,
        is_slow=is_slow,
        sessions_count=told.sessions_count,
        offset_s=told.offset_s,
    )


@dataclass(slots=True)
class _Told:
    """What came so far."""

    is_in: bool = False
    sessions_count: int | None = None
    offset_s: float | None = None


async def _ask_all(tree: BmcTree, told: _Told, config: Config, place: Place) -> None:
    root = await _document(tree, _ROOT)
    told.is_in = True
    links = root.get("Links")
    sessions = links.get("Sessions") if isinstance(links, dict) else None
    held = await _document(tree, _link(sessions)) if config.has_login else {}
    count = held.get("Members@odata.count")
    told.sessions_count = count if isinstance(count, int) else None
    members = (await _document(tree, _link(root.get("Managers")))).get("Members")
    first = members[0] if isinstance(members, list) and members else None
    shown = (await _document(tree, _link(first))).get("DateTime")
    told.offset_s = _offset_s(shown, place.clock.event_ns())


def _link(value: object) -> str:
    path = value.get("@odata.id") if isinstance(value, dict) else None
    return path if isinstance(path, str) else ""


async def _document(tree: BmcTree, path: str) -> dict[str, Any]:
    """A document; empty where there is none or it is not shown to us."""
    if not path:
        return {}
    answer = await tree.get(path)
    found: Any = None
    if answer.status == 200:
        with suppress(ValueError, RecursionError):
            found = json.loads(answer.body)
    return found if isinstance(found, dict) else {}


def _offset_s(told: object, now_ns: int) -> float | None:
    """How far a Redfish time lies from ours, s; None if it is no time with a zone."""
    if not isinstance(told, str):
        return None
    try:
        at = datetime.fromisoformat(told)
    except ValueError:
        return None
    return None if at.tzinfo is None else at.timestamp() - now_ns / 1e9
