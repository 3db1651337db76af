"""The answer of one check: its status, what was seen, why it matters, and what mends it."""

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How a check ended; SKIP: the box has no such thing."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One check; `fix` is a command, a line for the settings, or a person to call."""

    id: str
    status: Status
    found: str
    why: str = ""
    fix: str = ""


def ok(id: str, found: str) -> Verdict:
    """All is well."""
    return Verdict(id=id, status=Status.OK, found=found)


def skip(id: str, found: str) -> Verdict:
    """There is no such thing here."""
    return Verdict(id=id, status=Status.SKIP, found=found)


def warn(id: str, found: str, *, why: str, fix: str) -> Verdict:
    """The agent works, and something is worth a person's time."""
    return Verdict(id=id, status=Status.WARN, found=found, why=why, fix=fix)


def fail(id: str, found: str, *, why: str, fix: str) -> Verdict:
    """Something that the settings ask for does not work."""
    return Verdict(id=id, status=Status.FAIL, found=found, why=why, fix=fix)
