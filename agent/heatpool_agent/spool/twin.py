"""Each file notes how far the other one is: so a file that is lost whole still leaves a trace."""

import json
import sqlite3

from heatpool.sample import BootId, SpoolKind
from heatpool_agent.ports import Seq, SpoolMark
from heatpool_agent.spool.file import put_note

TWIN = "twin"


def put(db: sqlite3.Connection, mark: SpoolMark) -> None:
    """Writes how far the other queue is, within the caller's transaction."""
    put_note(db, TWIN, json.dumps([mark.boot_id, mark.next_seq, mark.durable_seq]))


def mark_of(text: str, kind: SpoolKind) -> SpoolMark | None:
    """How far the other queue was at least; None where it was not noted or cannot be read."""
    try:
        boot_id, next_seq, durable_seq = json.loads(text or "null")
        return SpoolMark(
            kind=kind,
            boot_id=BootId(str(boot_id)),
            first_seq=Seq(int(durable_seq) + 1),
            next_seq=Seq(int(next_seq)),
            durable_seq=Seq(int(durable_seq)),
        )
    except (TypeError, ValueError):
        return None
