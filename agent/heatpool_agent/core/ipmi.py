"""IPMI's bytes for the power that a BMC measures by DCMI, and what `ipmitool` prints of it.

Only the present watts are used: least, most and mean may cover days. The BMC's clock is not read
at all, it is often years off. Sensors of the BMC's own list are `ipmi_sdr`.
"""

import re
import struct
from dataclasses import dataclass

from heatpool.errors import SensorBusy, SensorError, SensorGone, WireError

DCMI_NETFN = 0x2C
DCMI_GROUP = 0xDC
_CAPABILITIES = 0x01
_POWER_READING = 0x02
# Group, four powers of 16 bits, seconds, milliseconds, state; what follows is of no use.
_POWER = struct.Struct("<B4HIIB")
_IS_ACTIVE = 0x40
_MEASURES_POWER = 0x01
_BUSY_S = 10.0

# Completion codes (IPMI 2.0, table 5-2) that time alone mends.
_AGAIN = {
    0xC0: "is busy",
    0xC3: "did not find the answer in time",
    0xCE: "cannot answer now",
    0xD0: "updates its list of sensors",
    0xD1: "updates its firmware",
    0xD2: "is starting",
    0xD3: "does not reach the part that measures",
    0xD5: "cannot answer in its present state",
}
# Those that say the command is unknown, as a whole or with these bytes.
UNSUPPORTED = frozenset({0xC1, 0xC2, 0xC7, 0xC8, 0xC9, 0xCB, 0xCC, 0xD6})
_NOT_ALLOWED = 0xD4

_NO_DCMI_FIX = "read this BMC by kind redfish, or set sdr = true for its own sensors"
_INACTIVE_FIX = "switch power measurement on in the BMC's own pages; some stop it with the server"
# No machine draws a gigawatt: more digits are no figure, and Python refuses to read thousands.
_WATTS = re.compile(r"(\d{1,9}) Watts", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command to a BMC."""

    netfn: int
    command: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What the BMC says of the server's power; `power_w` means nothing unless it is active."""

    power_w: int
    is_active: bool


# Mode 1: the system's power statistics; two bytes that belong to other modes.
POWER_REQUEST = Request(
    netfn=DCMI_NETFN, command=_POWER_READING, data=bytes((DCMI_GROUP, 0x01, 0, 0))
)
# Parameter 1: which parts of DCMI are there.
CAPABILITIES_REQUEST = Request(
    netfn=DCMI_NETFN, command=_CAPABILITIES, data=bytes((DCMI_GROUP, 0x01))
)


def power(answer: bytes) -> Power:
    """The power, W, in an answer that begins with its completion code.

    Raises:
        SensorBusy: the BMC asks for patience.
        SensorGone: it has no such command, or not for this account.
        WireError: an answer that is none.

    Source: DCMI 1.5, table 6-16.
    """
    body = _body(answer)
    if len(body) < _POWER.size:
        raise WireError(f"ipmi: a power reading of {len(body)} bytes, not {_POWER.size}")
    _, now_w, _, _, _, _, _, state = _POWER.unpack_from(body)
    return Power(power_w=now_w, is_active=bool(state & _IS_ACTIVE))


def measures_power(answer: bytes) -> bool:
    """Whether the BMC claims to measure power, in its answer on capabilities.

    Raises as `power` does.

    Source: DCMI 1.5, table 6-3, parameter 1, byte 2.
    """
    body = _body(answer)
    # Group, version (2), revision of the parameter, a reserved byte, then what is there.
    if len(body) < 6:
        raise WireError(f"ipmi: capabilities of {len(body)} bytes, not 6")
    return bool(body[5] & _MEASURES_POWER)


def power_in_text(text: bytes) -> Power:
    """The power, W, that `ipmitool dcmi power reading` printed.

    Raises:
        WireError: a text without watts or without a state.
    """
    parts = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    told = {key.strip().lower(): value.strip() for key, _, value in parts}
    watts = _WATTS.fullmatch(told.get("instantaneous power reading", ""))
    state = told.get("power reading state is")
    if watts is None or not state:
        raise WireError("ipmi: ipmitool printed no power reading")
    return Power(power_w=int(watts[1]), is_active=state.lower() == "activated")


def present_w(told: Power) -> float:
    """The power now, W.

    Raises:
        SensorGone: the BMC does not measure at the moment.
    """
    if not told.is_active:
        raise SensorGone("ipmi: power measurement is not activated", fix=_INACTIVE_FIX)
    return float(told.power_w)


def refusal(code: int) -> SensorError:
    """What a completion code other than 0 means for us."""
    name = f"completion code 0x{code:02X}"
    if code in _AGAIN:
        return SensorBusy(f"ipmi: the BMC {_AGAIN[code]} ({name})", wait_s=_BUSY_S)
    if code in UNSUPPORTED:
        return SensorGone(f"ipmi: no DCMI power reading ({name})", fix=_NO_DCMI_FIX)
    if code == _NOT_ALLOWED:
        return SensorGone(
            f"ipmi: the account may not read power ({name})",
            fix="give the account the privilege that `privilege` names, or raise both",
        )
    return SensorGone(f"ipmi: the BMC refuses ({name})", fix="update or restart the BMC's firmware")


def _body(answer: bytes) -> bytes:
    if not answer:
        raise WireError("ipmi: an answer without a completion code")
    if answer[0] != 0:
        raise refusal(answer[0])
    if len(answer) < 2 or answer[1] != DCMI_GROUP:
        raise WireError("ipmi: the answer is not DCMI's", offset=1)
    return answer[1:]
