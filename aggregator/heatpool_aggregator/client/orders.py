"""Orders and the audit log: questions to an aggregator, and answers as text or JSON values."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from heatpool_aggregator.client.calls import ask
from heatpool_aggregator.client.line import Place
from heatpool_aggregator.client.tables import ABSENT, kilo, plain, table, when
from heatpool_aggregator.core.audit import AuditEntry, first_break
from heatpool_aggregator.core.orders import Ask, Commanded, Step
from heatpool_aggregator.wire import command as wire

PAGE = wire.LIMIT_MOST
_NS = 10**9


def give(place: Place, order: Ask) -> Commanded:
    """Where a new order stands."""
    path = f"{wire.SERVICE}/SetSetpoint"
    return ask(place, path, order, wire.ask_to_bytes, wire.set_from_bytes)


def end(place: Place, site_id: str, reason: str) -> Commanded | None:
    """What was taken back; None: there was nothing."""
    path = f"{wire.SERVICE}/EndSetpoint"
    return ask(
        place, path, site_id, lambda one: wire.end_to_bytes(one, reason), wire.ended_from_bytes
    )


def listed(place: Place, site_id: str, limit: int) -> tuple[Commanded, ...]:
    """Orders, newest first."""
    path = f"{wire.SERVICE}/ListSetpoints"
    return ask(
        place, path, site_id, lambda one: wire.list_to_bytes(one, limit), wire.listed_from_bytes
    )


def audit(place: Place, limit: int, *, before_number: int = 0) -> tuple[AuditEntry, ...]:
    """Entries of the audit log, newest first."""
    path = f"{wire.SERVICE}/ListAudit"
    return ask(
        place,
        path,
        before_number,
        lambda before: wire.audit_to_bytes(limit, before),
        wire.entries_from_bytes,
    )


def whole_audit(place: Place) -> Iterator[AuditEntry]:
    """Every entry, newest first."""
    before_number = 0
    while entries := audit(place, PAGE, before_number=before_number):
        yield from entries
        before_number = entries[-1].number
        if before_number <= 1:
            return


def verdict(newest_first: Iterable[AuditEntry]) -> dict[str, Any]:
    """Whether the chain holds from its first entry, and its newest hash, to be noted elsewhere."""
    entries = list(newest_first)[::-1]
    broken = first_break(entries)
    return {
        "schema": "heatpool.audit_verdict/1",
        "entries_count": len(entries),
        "holds": broken is None,
        "first_break": broken,
        "chain_sha256": entries[-1].chain_sha256.hex() if entries else "",
    }


def verdict_text(found: dict[str, Any]) -> str:
    """The verdict in one line."""
    if not found["holds"]:
        return f"broken: entry {found['first_break']} does not follow; it was changed afterwards"
    newest = found["chain_sha256"] or ABSENT
    return f"whole: {found['entries_count']} entries, newest hash {newest}"


def order_text(row: Commanded) -> str:
    """One order with each step on a line of its own."""
    head = f"{plain(row.site_id)}: {kilo(row.heat_rate_w, digits=3)} kW, seq {row.setpoint_seq}"
    parts = [head + (" (dry run)" if row.dry_run else "")]
    return "\n".join([*parts, *(f"  {step_text(step)}" for step in row.steps)])


def given_text(row: Commanded) -> str:
    """A new order, and where the rest of its life is told."""
    what = "what the site answers" if row.dry_run else "what becomes of it"
    told = f"{what}: heatpool setpoints --site {plain(row.site_id)}; --watch would have shown it"
    return f"{order_text(row)}\n{told}"


def step_text(step: Step) -> str:
    """A step with when it was and how long it took us to hear of it."""
    late_s = (step.received_ns - step.event_ns) / _NS
    heard = f" (heard {late_s:+.1f} s)" if abs(late_s) >= 1 else ""
    state = step.state.name.lower().replace("_", " ")
    return f"{when(step.event_ns)}  {state:<11}  {plain(step.detail)}{heard}".rstrip()


def orders_table(rows: Sequence[Commanded]) -> str:
    """A line per order."""
    figures = ("site", "loop", "asked kW", "applied kW", "lease s")
    header = (*figures, "state", "since", "by", "reason", "told")
    cells = [
        (
            row.site_id,
            row.loop_id or ABSENT,
            kilo(row.heat_rate_w, digits=3),
            kilo(row.applied_heat_rate_w, digits=3),
            f"{row.lease_s:.0f}" if row.lease_s else ABSENT,
            _state(row),
            when(row.newest.event_ns if row.newest else None),
            row.asked_by,
            row.reason or ABSENT,
            _told(row),
        )
        for row in rows
    ]
    return table(header, cells, empty="nothing was ordered yet")


def audit_table(entries: Sequence[AuditEntry]) -> str:
    """A line per entry; the JSON of its detail and its hash are in `audit_json`."""
    header = ("number", "when", "who", "what", "to", "why")
    cells = [
        (
            str(entry.number),
            when(entry.at_ns),
            entry.who,
            entry.action,
            entry.subject,
            entry.reason or ABSENT,
        )
        for entry in entries
    ]
    return table(header, cells, empty="nothing was done yet")


def order_json(row: Commanded | None) -> dict[str, Any]:
    """One order as a document."""
    return {"schema": "heatpool.setpoint/1", "setpoint": None if row is None else _row_json(row)}


def orders_json(rows: Iterable[Commanded]) -> dict[str, Any]:
    """Orders as one document."""
    return {"schema": "heatpool.setpoints/1", "setpoints": [_row_json(row) for row in rows]}


def step_json(step: Step) -> dict[str, Any]:
    """A step as values."""
    return {
        "state": step.state.name.lower(),
        "event_ns": step.event_ns,
        "received_ns": step.received_ns,
        "detail": step.detail,
    }


def audit_json(entries: Iterable[AuditEntry]) -> dict[str, Any]:
    """Entries of the audit log as one document."""
    return {
        "schema": "heatpool.audit/1",
        "entries": [
            {
                "number": entry.number,
                "at_ns": entry.at_ns,
                "who": entry.who,
                "action": entry.action,
                "subject": entry.subject,
                "reason": entry.reason,
                "detail": entry.detail,
                "chain_sha256": entry.chain_sha256.hex(),
            }
            for entry in entries
        ],
    }


def _told(row: Commanded) -> str:
    """What the newest step says beside its name; why a site refused stands here."""
    told = row.newest.detail if row.newest else ""
    return told if told and told != row.reason else ABSENT


def _state(row: Commanded) -> str:
    if row.newest is None:
        return ABSENT
    state = row.newest.state.name.lower().replace("_", " ")
    return f"{state}, dry run" if row.dry_run else state


def _row_json(row: Commanded) -> dict[str, Any]:
    newest = row.newest
    return {
        "site_id": row.site_id,
        "loop_id": row.loop_id,
        "setpoint_seq": row.setpoint_seq,
        "heat_rate_w": row.heat_rate_w,
        "lease_s": row.lease_s,
        "asked_by": row.asked_by,
        "reason": row.reason,
        "dry_run": row.dry_run,
        "state": None if newest is None else newest.state.name.lower(),
        "detail": "" if newest is None else newest.detail,
        "applied_heat_rate_w": row.applied_heat_rate_w,
        "steps": [step_json(step) for step in row.steps],
    }
