"""When to try again: nobody gives up, nobody marches in step, the other end's word counts first."""

import hashlib

from heatpool_agent.core.line import LineBusy, LineRefused, LineReplaced

RETRY_LEAST_S = 1.0
RETRY_MOST_S = 300.0
# Who is refused must be let in by a person; to ask more often is only a load.
REFUSED_S = 300.0
# A line that held less long than this was no line: the next try comes later still.
HELD_LEAST_S = 10.0
SPREAD_S = 300.0
# Whoever takes our place has our identity, and comes back as we do: each time longer apart.
REPLACED_LEAST_S = 15.0
REPLACED_MOST_S = 3_600.0
# No word of the other end may silence a site for longer.
NAMED_MOST_S = 3_600.0
# An overloaded aggregator is left alone as if three more tries had failed.
_BUSY_TRIES = 3
_TRIES_MOST = 16


class Patience:
    """Full jitter below a bound that doubles from try to try, for ever.

    `draw` is a random number from 0 to 1: randomness is the caller's.
    """

    def __init__(self) -> None:
        self._tries = self._replaced = 0

    def held(self, held_s: float) -> None:
        """A line was open so long, s: one that was good lets us begin anew."""
        if held_s >= HELD_LEAST_S:
            self._tries = 0
        # Held for less, it may be that only the other one was waiting.
        if held_s >= 2 * REPLACED_MOST_S:
            self._replaced = 0

    def wait_s(self, error: Exception, draw: float) -> float:
        """How long to wait after a failure, s."""
        if isinstance(error, LineRefused):
            return REFUSED_S * (0.9 + 0.2 * draw)
        if isinstance(error, LineReplaced):
            self._replaced = min(_TRIES_MOST, self._replaced + 1)
            most_s = min(REPLACED_MOST_S, REPLACED_LEAST_S * 2.0 ** (self._replaced - 1))
            return most_s * (0.5 + 0.5 * draw)
        named_s: float | None = getattr(error, "wait_s", None)
        if named_s == 0.0:  # our own wish
            return 0.0
        self._tries = min(
            _TRIES_MOST, self._tries + (_BUSY_TRIES if isinstance(error, LineBusy) else 1)
        )
        if named_s is not None:
            # Never earlier than told, and not all at the same moment.
            return min(max(named_s, 0.0), NAMED_MOST_S) * (1.0 + 0.1 * draw)
        return draw * min(RETRY_MOST_S, RETRY_LEAST_S * 2.0 ** (self._tries - 1))


def spread_s(site_id: str) -> float:
    """When a site connects after its start, s: sites that start together come one by one."""
    digest = hashlib.sha256(site_id.encode()).digest()
    return SPREAD_S * int.from_bytes(digest[:8], "big") / 2**64
