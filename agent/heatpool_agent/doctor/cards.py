"""GPUs: the driver's library, what it tells, and who sleeps. A sleeping card is not touched."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.doctor.place import Place
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.looks import Look

_NVIDIA, _DISPLAY = "0x10de", "0x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSeen:
    """One NVIDIA card as the kernel shows it, without asking the card."""

    address: str
    status: str = ""
    control: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardsSeen:
    """All of them, and the version of the kernel's driver; empty where it is not loaded."""

    cards: Sequence[CardSeen] = ()
    driver: str = ""
    is_wanted: bool = True


def gather(place: Place) -> CardsSeen:
    """What the kernel says; blocking, wakes nothing."""
    devices = place.roots.sys / "bus/pci/devices"
    found = [path for path in sorted(devices.glob("*")) if _is_card(path)]
    version = _text(place.roots.proc / "driver/nvidia/version").partition("\n")[0]
    return CardsSeen(
        cards=tuple(
            CardSeen(
                address=path.name,
                status=_text(path / "power/runtime_status"),
                control=_text(path / "power/control"),
            )
            for path in found
        ),
        driver=version,
        is_wanted=place.wants("nvml"),
    )


def library(seen: CardsSeen, looks: Sequence[Look]) -> Verdict:
    """Whether NVIDIA's library loads, and whether the cards count energy."""
    if not seen.is_wanted and seen.cards:
        return warn(
            "nvml",
            f"{len(seen.cards)} NVIDIA cards that no sensor reads",
            why="their power is missing in this site's heat",
            fix='add to the settings:\n[[sensor]]\nid = "gpu"\nkind = "nvml"',
        )
    gone = [look for look in looks if look.state in ("gone", "busy")]
    if gone:
        why = "cards are here and cannot be read" if seen.cards else "it is named in the settings"
        fix = gone[0].fix or "dmesg | grep -i nvrm, and call who looks after the driver"
        return fail("nvml", gone[0].detail, why=why, fix=fix)
    up = [look for look in looks if look.state == "up"]
    if not up:
        return skip("nvml", "no NVIDIA card")
    return _fields(seen, up)


def _fields(seen: CardsSeen, up: Sequence[Look]) -> Verdict:
    readings = [reading for look in up for reading in look.readings]
    counting = {r.channel for r in readings if r.quantity == "energy_j"}
    awake = {r.channel for r in readings if r.quantity in ("energy_j", "power_w")}
    found = f"{len(awake)} cards awake, {len(counting)} count energy"
    found += f"; {seen.driver}" if seen.driver else ""
    silent = [card.address for card in seen.cards if _is_silent(card, awake)]
    if silent:
        return warn(
            "nvml",
            f"{found}; nothing from {', '.join(silent)}",
            why="the kernel says that it is awake: its power is missing in the sum of the cards",
            fix=f"dmesg | grep -i -e nvrm -e xid; nvidia-smi -q -i {silent[0]}; a card that fell "
            "off the bus comes back with a restart of the machine",
        )
    if awake - counting:
        return warn(
            "nvml",
            found,
            why="without an energy counter power between two reads is a guess",
            fix="nothing to set for cards before Volta; else update the driver "
            "(nvidia-smi --query-gpu=name,driver_version --format=csv)",
        )
    return ok("nvml", found)


def _is_silent(card: CardSeen, awake: Collection[str]) -> bool:
    return card.status == "active" and not any(card.address in channel for channel in awake)


def power_state(seen: CardsSeen) -> Verdict:
    """Who sleeps; sleeping cards are counted as sleeping and left alone."""
    if not seen.cards:
        return skip("gpu_power_state", "no NVIDIA card")
    states = [f"{card.address} {card.status or 'unknown'}" for card in seen.cards]
    if any(card.status == "error" for card in seen.cards):
        return warn(
            "gpu_power_state",
            ", ".join(states),
            why="the kernel could not put a card to sleep or wake it",
            fix="dmesg | grep -i -e nvrm -e pcieport, then restart the machine",
        )
    return ok("gpu_power_state", f"{', '.join(states)}; none was woken")


def _is_card(path: Path) -> bool:
    return _text(path / "vendor") == _NVIDIA and _text(path / "class").startswith(_DISPLAY)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
