"""One M-Bus frame as a telegram: header, records, and the answers that carry no data.

Source: EN 13757-3.
"""

from dataclasses import dataclass, replace

from heatpool.errors import SensorBusy, WireError
from heatpool_agent.core.mbus_frames import LONG_START, is_response, split_frame
from heatpool_agent.core.mbus_records import (
    FILLER,
    Record,
    counter_record,
    manufacturer_record,
    record_at,
)
from heatpool_agent.core.mbus_units import (
    APPLICATION_ERRORS,
    BUSY,
    FIXED_MEDIA,
    FIXED_SAME_BUT_HISTORIC,
    FIXED_UNITS,
    MEDIA,
    TOO_MANY_READOUTS,
)
from heatpool_agent.core.mbus_values import Order

FIXED_SIZE = 16
# Modes of the signature field that encrypt what follows, 16 bytes a block (EN 13757-7).
ENCRYPTED_MODES = (5, 7)
PLAIN_START = bytes((FILLER, FILLER))
TOO_MANY_READOUTS_WAIT_S = 86400.0  # battery meters count their readouts by the day


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Who answers. A field the telegram does not carry is None."""

    id: str | None
    manufacturer: str | None
    version: int | None
    medium: int | None
    medium_name: str
    access: int
    status: int
    signature: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Telegram:
    """One response of a meter, record by record in the order sent."""

    header: Header | None
    records: tuple[Record, ...]
    more_follows: bool
    control: int
    address: int
    ci: int


def decode(frame: bytes) -> Telegram:
    """One long frame as a telegram.

    Raises: SensorBusy if the meter asks for patience, WireError for anything else that carries
    no readable data.
    """
    _check_response(frame)
    end, ci = len(frame) - 2, frame[6]
    if ci == 0x70:
        raise _application_error(frame, end)
    header: Header | None
    if ci in (0x73, 0x77):
        header, records = _fixed(frame, end, "little" if ci == 0x73 else "big")
        more_follows = False
    else:
        order: Order = "big" if ci == 0x76 else "little"
        header, at = _header(frame, end, ci=ci, order=order)
        if header is not None:
            _check_plain(header, frame[at:end], at)
        records, more_follows = _records(frame, at, end=end, order=order)
    return Telegram(
        header=header,
        records=records,
        more_follows=more_follows,
        control=frame[4],
        address=frame[5],
        ci=ci,
    )


def _check_response(frame: bytes) -> None:
    whole, rest = split_frame(frame)
    if whole is None:
        raise WireError(f"frame is cut short after {len(frame)} bytes", offset=len(frame))
    if rest:
        raise WireError(f"{len(rest)} bytes after the frame", offset=len(whole))
    if whole[0] != LONG_START:
        raise WireError("an acknowledgement or a short frame carries no data", offset=0)
    if not is_response(whole):
        raise WireError(f"control byte {whole[4]:02X} is not a response of a meter", offset=4)


def _application_error(frame: bytes, end: int) -> WireError | SensorBusy:
    if end == 7:
        return WireError("the meter reports an error without a code", offset=6)
    code = frame[7]
    text = APPLICATION_ERRORS[code] if code < len(APPLICATION_ERRORS) else "unknown"
    reason = f"the meter reports error {code}: {text}"
    if code == BUSY:
        return SensorBusy(reason)
    if code == TOO_MANY_READOUTS:
        return SensorBusy(reason, wait_s=TOO_MANY_READOUTS_WAIT_S)
    return WireError(reason, offset=7)


def _header(frame: bytes, end: int, *, ci: int, order: Order) -> tuple[Header | None, int]:
    """The header and the position of the first record."""
    if ci == 0x78:
        return None, 7
    if ci not in (0x72, 0x76, 0x7A):
        raise WireError(f"CI field {ci:02X} is no response we can read", offset=6)
    at = 7 + (4 if ci == 0x7A else 12)
    if at > end:
        raise WireError("telegram ends inside its header", offset=end)
    if ci == 0x7A:
        return _short_header(frame[7], frame[8], int.from_bytes(frame[9:11], order)), at
    letters = int.from_bytes(frame[11:13], order)
    header = Header(
        id=_identity(frame[7:11], order),
        manufacturer="".join(chr(64 + (letters >> shift & 0x1F)) for shift in (10, 5, 0)),
        version=frame[13],
        medium=frame[14],
        medium_name=MEDIA.get(frame[14], "reserved"),
        access=frame[15],
        status=frame[16],
        signature=int.from_bytes(frame[17:19], order),
    )
    return header, at


def _check_plain(header: Header, data: bytes, at: int) -> None:
    """Raises WireError if the records are encrypted; once decrypted they begin with fillers.

    Old meters put other things into the field, so that a mode alone proves nothing.
    """
    mode, blocks = header.signature >> 8 & 0x1F, header.signature >> 4 & 0x0F
    is_marked = mode in ENCRYPTED_MODES and 0 < 16 * blocks <= len(data)
    if is_marked and not data.startswith(PLAIN_START):
        raise WireError(f"the records are encrypted (mode {mode}); we hold no key", offset=at)


def _short_header(access: int, status: int, signature: int) -> Header:
    return Header(
        id=None,
        manufacturer=None,
        version=None,
        medium=None,
        medium_name="",
        access=access,
        status=status,
        signature=signature,
    )


def _identity(data: bytes, order: Order) -> str:
    return (data[::-1] if order == "little" else data).hex().upper()


def _records(frame: bytes, at: int, *, end: int, order: Order) -> tuple[tuple[Record, ...], bool]:
    """All records, and whether another telegram follows."""
    records: list[Record] = []
    while at < end:
        dif = frame[at]
        if dif == FILLER:
            at += 1
        elif dif & 0x0F != 0x0F:
            record, at = record_at(frame, at, end=end, order=order)
            records.append(record)
        elif dif in (0x0F, 0x1F):
            if at + 1 < end:
                records.append(manufacturer_record(frame[at + 1 : end]))
            return tuple(records), dif == 0x1F
        else:
            raise WireError(f"special function {dif:02X} is not for responses", offset=at)
    return tuple(records), False


def _fixed(frame: bytes, end: int, order: Order) -> tuple[Header, tuple[Record, ...]]:
    """Header and the two counters of the fixed structure that old meters send."""
    if end - 7 != FIXED_SIZE:
        reason = f"fixed structure has {end - 7} bytes, not {FIXED_SIZE}"
        raise WireError(reason, offset=min(end, 7 + FIXED_SIZE))
    status, first, second = frame[12], frame[13], frame[14]
    medium = FIXED_MEDIA[first >> 6 | second >> 6 << 2]
    name = "heat" if medium == 0x04 else MEDIA[medium]
    header = replace(
        _short_header(frame[11], status, 0),
        id=_identity(frame[7:11], order),
        medium=medium,
        medium_name=name,
    )
    # Status bit 0: binary, not BCD; bit 1: both values were stored at a fixed date.
    stored = status >> 1 & 1
    is_historic = second & 0x3F == FIXED_SAME_BUT_HISTORIC
    units = (first & 0x3F, (first if is_historic else second) & 0x3F)
    records = tuple(
        counter_record(
            frame[at : at + 4],
            FIXED_UNITS[unit],
            is_binary=bool(status & 1),
            order=order,
            storage=storage,
        )
        for at, unit, storage in (
            (15, units[0], stored),
            (19, units[1], 1 if is_historic else stored),
        )
    )
    return header, records
