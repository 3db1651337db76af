"""The local operator's word that stands above every order, for as long as was asked and no longer.

It runs on the boot clock. On disk its end is a wall time, since no other clock outlives a machine;
a wall clock that was set back lets it run at most for the whole time that was asked.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from heatpool.units import NS_PER_S
from heatpool_agent.core.safety import Override

# Longer than this is a change of the settings, not an override.
MOST_S = 7 * 86_400.0
REASON_SIGNS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideAsk:
    """What was asked, as it lies on disk: wall times, ns."""

    asked_ns: int
    until_ns: int
    reason: str


def ask_mistake(for_s: float, reason: str) -> str:
    """What is wrong with a wish for an override; empty: nothing."""
    if not (math.isfinite(for_s) and 0 < for_s <= MOST_S):
        return f"for_s is {for_s:,.0f}: must be above 0 and at most {MOST_S:,.0f} (7 days)"
    if not reason.strip():
        return "reason is missing: say why, for those who wonder where the heat is"
    if len(reason) > REASON_SIGNS or not reason.isprintable():
        return f"reason: must be one line of at most {REASON_SIGNS} signs"
    return ""


def asked(for_s: float, reason: str, *, event_ns: int) -> OverrideAsk:
    """An override from now on."""
    until_ns = event_ns + round(for_s * NS_PER_S)
    return OverrideAsk(asked_ns=event_ns, until_ns=until_ns, reason=reason.strip())


def begun(ask: OverrideAsk, *, boot_ns: int, event_ns: int) -> Override | None:
    """What the override is at this moment, all heat rejected here; None: its time is over."""
    asked_ns = min(ask.until_ns - ask.asked_ns, round(MOST_S * NS_PER_S))
    left_ns = min(ask.until_ns - event_ns, asked_ns)
    if left_ns <= 0:
        return None
    return Override(
        heat_rate_w=None,
        ends_boot_ns=boot_ns + left_ns,
        reason=f"local override until {_utc(event_ns + left_ns)}: {ask.reason}",
    )


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
