"""The audit log's chain: each entry carries a hash over its predecessor's hash and itself.

Whoever changes, removes or inserts an entry has to write all later ones anew; whoever noted the
newest hash elsewhere sees that, and sees a cut-off end.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

START_SHA256 = bytes(32)
_INT_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that was done: by whom, what, to what, why; `detail` is JSON."""

    at_ns: int
    who: str
    action: str
    subject: str
    reason: str = ""
    detail: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A deed in its place; `number` counts from 1."""

    number: int
    at_ns: int
    who: str
    action: str
    subject: str
    reason: str
    detail: str
    chain_sha256: bytes


def chained(previous: AuditEntry | None, deed: Deed) -> AuditEntry:
    """The deed as the entry behind `previous`, the newest so far."""
    number = previous.number + 1 if previous else 1
    before = previous.chain_sha256 if previous else START_SHA256
    return AuditEntry(
        number=number,
        at_ns=deed.at_ns,
        who=deed.who,
        action=deed.action,
        subject=deed.subject,
        reason=deed.reason,
        detail=deed.detail,
        chain_sha256=_digest(before, number, deed),
    )


def first_break(entries: Iterable[AuditEntry], *, before: AuditEntry | None = None) -> int | None:
    """Number of the first entry, oldest first, that does not follow; None: the chain holds."""
    previous = before
    for entry in entries:
        if chained(previous, _deed(entry)) != entry:
            return previous.number + 1 if previous else 1
        previous = entry
    return None


def _deed(entry: AuditEntry) -> Deed:
    return Deed(
        at_ns=entry.at_ns,
        who=entry.who,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        detail=entry.detail,
    )


def _digest(before: bytes, number: int, deed: Deed) -> bytes:
    """Each text is led by its length, so that no two entries have the same bytes."""
    parts = [before, _int(number), _int(deed.at_ns)]
    for text in (deed.who, deed.action, deed.subject, deed.reason, deed.detail):
        data = text.encode()
        parts += (_int(len(data)), data)
    return hashlib.sha256(b"".join(parts)).digest()


def _int(value: int) -> bytes:
    return value.to_bytes(_INT_BYTES, "big", signed=True)
