"""What the devices of a fleet remember over a power cut: registers, ports, the loop's warmth."""

import os
from pathlib import Path

import msgspec

from heatpool.errors import ConfigError


class SavedSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One site: its meter as it stood, its loop's warmth, and the ports of its devices.

    `ahead_wh` is what the meter may have counted after this was saved, if the end came by a kill:
    a real register never falls, so a restarted one begins behind that. `electric_j` and `unit_j`
    are saved as far ahead.
    """

    meter_number: int
    register_wh: int
    ahead_wh: int = 0
    remainder_wh: float
    register_l: int
    remainder_l: float
    hot_c: float
    held_j: float
    electric_j: float = 0.0
    unit_j: float = 0.0
    ports: dict[str, int] = {}
    # Of files from before there were more devices than two.
    cdu_port: int = 0
    meter_port: int = 0

    def port(self, device: str) -> int:
        """Where the device was reached; 0 if it was not there."""
        before = {"modbus_cdu": self.cdu_port, "mbus_meter": self.meter_port}
        return self.ports.get(device) or before.get(device, 0)


class SavedFleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fleet, by its name."""

    fleet: str
    sites: dict[str, SavedSite]


def load(path: Path, *, fleet: str) -> SavedFleet:
    """The saved fleet; one without sites if nothing was saved yet.

    Raises:
        ConfigError: the file cannot be read or belongs to another fleet.
    """
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=SavedFleet)
    except FileNotFoundError:
        return SavedFleet(fleet=fleet, sites={})
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], file=str(path)) from error
    except msgspec.DecodeError as error:
        text = f"is no saved fleet: {error}; remove it to start anew"
        raise ConfigError([text], file=str(path)) from error
    if saved.fleet != fleet:
        text = f"was saved by fleet {saved.fleet!r}, not {fleet!r}; name another file"
        raise ConfigError([text], file=str(path))
    return saved


def save(path: Path, saved: SavedFleet) -> None:
    """Writes the fleet aside and renames it: the file is whole at every instant."""
    aside = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(saved), indent=1))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
