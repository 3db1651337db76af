"""The look of `spool stat` as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from heatpool_agent.http.figures import due, stamp

_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60
_REASONS = {
    "rolled_up": "rolled up into coarser rows",
    "dropped": "dropped for room",
    "damaged": "damaged on disk",
}
_BAR = 30


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The document for people."""
    state = "an agent is running" if document["is_running"] else "no agent is running"
    yield f"spool in {document['folder']}: {state}"
    if not document["queues"]:
        yield "no spool yet; the first run makes it"
    for queue in document["queues"]:
        yield ""
        yield from _queue(queue)
    yield ""
    yield from _room(document["room"], is_made=bool(document["queues"]))
    if document["line"] is not None:
        yield from _line(document["line"])
    elif document["is_running"]:
        yield "line       unknown: the agent's page cannot be asked; http.listen with a port of its"
        yield "           own (127.0.0.1:9188) shows the line here, and how far a backlog has come"


def _queue(queue: Mapping[str, Any]) -> Iterator[str]:
    yield f"{queue['kind']}  {size(queue['size_bytes'])}, boot id {queue['boot_id']}"
    yield f"  numbers    held from {queue['first_seq']:,}, next is {queue['next_seq']:,}"
    yield f"  durable    up to {queue['durable_seq']:,} at the aggregator"
    backlog = queue["backlog"]
    if backlog["frames_count"]:
        yield (
            f"  waiting    {_counted(backlog['frames_count'], 'batch', 'batches')},"
            f" {_counted(backlog['rows_count'], 'row', 'rows')}, {size(backlog['size_bytes'])}"
        )
        yield f"  oldest     {stamp(backlog['start_ns'])}, {span(backlog['age_s'])} ago"
    else:
        yield "  waiting    nothing"
    for reason, count in queue["lost"].items():
        if reason == "unused":
            yield f"  left out   {count:,} numbers, to give none twice: nothing is lost under them"
        else:
            yield f"  lost       {count:,} batches {_REASONS.get(reason, reason)}"
    if queue["untold_count"]:
        yield f"             {queue['untold_count']:,} of these losses are still to be told"
    coarse = {step: count for step, count in queue["rows_by_step_s"].items() if step != "0"}
    if coarse:
        told = ", ".join(f"{count:,} of {span(float(step))}" for step, count in coarse.items())
        yield f"  coarse     {told}; {queue['rows_by_step_s'].get('0', 0):,} as written"


def _room(room: Mapping[str, Any], *, is_made: bool) -> Iterator[str]:
    yield f"room       {size(room['left_bytes'])} of {size(room['max_bytes'])} left for telemetry"
    if room["disk_free_bytes"] is not None:
        yield f"disk       {size(room['disk_free_bytes'])} free"
    if is_made and not room["is_reserve_held"]:
        yield "reserve    freed for billing; made again when the disk has room"


def _line(line: Mapping[str, Any]) -> Iterator[str]:
    detail = f": {line['detail']}" if line["detail"] else ""
    yield f"line       {line['state']}{detail}"
    # An agent of an older release says nothing of it.
    if line.get("next_try_s") is not None and line.get("next_try_ns") is not None:
        yield f"next try   {due(line['next_try_s'], line['next_try_ns'])}"
    backlog = line["backlog"]
    if not backlog or not backlog["start_frames_count"]:
        return
    done = min(1.0, max(0.0, backlog["done_frac"]))
    bar = "#" * round(done * _BAR)
    of = _counted(backlog["start_frames_count"], "batch", "batches")
    if done >= 1.0:
        yield f"drained    the backlog of {of} is at the aggregator"
        return
    yield f"draining   [{bar:<{_BAR}}] {100 * done:.1f} % of {of}"
    if line["state"] != "connected":
        yield "           goes on when the line is back"
        return
    # A backlog that was gone at once had no rate to be told.
    if backlog["left_s"] is not None and backlog["frames_s"] is not None:
        yield f"           {span(backlog['left_s'])} left at {backlog['frames_s']:.1f} batches/s"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def size(count_bytes: float) -> str:
    """Bytes in the unit that suits."""
    for unit in ("B", "kB", "MB"):
        if count_bytes < 1_000:
            return f"{count_bytes:,.0f} {unit}" if unit == "B" else f"{count_bytes:,.1f} {unit}"
        count_bytes /= 1_000
    return f"{count_bytes:,.1f} GB"


def span(length_s: float) -> str:
    """A length of time in the unit that suits."""
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if abs(length_s) >= 2 * unit_s:
            return f"{length_s / unit_s:.1f} {unit}"
    return f"{length_s:.0f} s"
