"""What `mbus decode` says of a stream of frames, as one document of plain values.

A figure that is absent is left out of a telegram's heat; in a record it is null, since that a
meter sends "no value" is itself something it says.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from heatpool.errors import SensorBusy, WireError
from heatpool_agent.core.mbus import HeatView, Record, Telegram, decode, heat_view
from heatpool_agent.core.mbus_frames import frame_name, is_response
from heatpool_agent.core.mbus_stream import Piece, bytes_of, pieces

SCHEMA = "heatpool.mbus/1"
_HEAT = (
    *("energy_wh", "volume_m3", "mass_kg", "hot_c", "cold_c", "heat_rate_w", "volume_flow_m3_h"),
    *("mass_flow_kg_s", "sensor_side", "k_kwh_m3_k"),
)
# An application error stands behind start, lengths, control, address and CI field.
_ERROR_CODE_AT = 7


def document(content: bytes) -> dict[str, Any]:
    """Every telegram in the bytes of a file, hex text or binary, in the order found."""
    try:
        data = bytes_of(content)
    except WireError as refusal:
        return {"schema": SCHEMA, "telegrams": [_refused(refusal, start=0)]}
    return {"schema": SCHEMA, "telegrams": [_telegram(piece) for piece in pieces(data)]}


def is_all_good(document: Mapping[str, Any]) -> bool:
    """Whether nothing was refused and at least one telegram carries data."""
    telegrams = document["telegrams"]
    return all(one["ok"] for one in telegrams) and any("records" in one for one in telegrams)


def _telegram(piece: Piece) -> dict[str, Any]:
    if piece.refusal is not None:
        return _refused(piece.refusal, start=piece.offset)
    frame = piece.data
    if not is_response(frame):
        return _sound(frame, piece.offset)
    try:
        telegram = decode(frame)
    except SensorBusy as refusal:
        at = piece.offset + _ERROR_CODE_AT
        row = _refused(WireError(str(refusal), offset=at), start=piece.offset)
        return row | {"frame": frame_name(frame), "wait_s": refusal.wait_s}
    except WireError as refusal:
        at = piece.offset + (refusal.offset or 0)
        row = _refused(WireError(refusal.reason, offset=at), start=piece.offset)
        return row | {"frame": frame_name(frame)}
    return _read(telegram, frame, start=piece.offset)


def _sound(frame: bytes, start: int) -> dict[str, Any]:
    place = {"ok": True, "reason": None, "offset": start, "start": start}
    return place | {"frame": frame_name(frame)}


def _refused(refusal: WireError, *, start: int) -> dict[str, Any]:
    """`offset` of the row is the byte that shows why; `start` is where the telegram begins."""
    at = start if refusal.offset is None else refusal.offset
    return {"ok": False, "reason": refusal.reason, "offset": at, "start": start}


def _read(telegram: Telegram, frame: bytes, *, start: int) -> dict[str, Any]:
    return _sound(frame, start) | {
        "address": telegram.address,
        "ci": telegram.ci,
        "more_follows": telegram.more_follows,
        "header": asdict(telegram.header) if telegram.header is not None else None,
        "records": [_record(record) for record in telegram.records],
        "heat": _heat(heat_view(telegram)),
    }


def _record(record: Record) -> dict[str, Any]:
    row = asdict(record)
    return row | {"qualifiers": list(record.qualifiers)}


def _heat(view: HeatView) -> dict[str, Any]:
    figures = {name: getattr(view, name) for name in _HEAT}
    known = {name: value for name, value in figures.items() if value is not None}
    return known | {"meter_id": view.meter_id, "flags": list(view.flags)}
