"""How fast all histories together may come in, so that no live row waits behind them.

What waited at sites for a week may come by and by, what is measured now may not wait: so a new
crowd of histories begins at a pace that any machine bears and goes faster for as long as live
frames do not wait and the log is applied as it comes.
"""

LOOK_NS = 2 * 10**9
SETTLE_NS = 4 * 10**9  # until what was asked of sites is seen here
REST_NS = 60 * 10**9  # without any history; the next crowd begins anew
# From the arrival of a live frame to its ack; a commit each 50 ms makes it a tenth of a second.
LIVE_WAIT_S, LIVE_CALM_S = 0.25, 0.15
# What people see is older by this; the shard reads the log each quarter of a second.
APPLY_WAIT_S, APPLY_CALM_S = 5.0, 2.0
# Where live frames wait for another reason, the least drains a week of a thousand sites in minutes.
START_BYTES_S, LEAST_BYTES_S, MOST_BYTES_S = 4e6, 1e6, 1e8
LESS, MORE = 0.6, 1.25
# Of one stream: less would be no drain, more is no limit to the line of a site.
STREAM_LEAST_BYTES_S, STREAM_MOST_BYTES_S = 200.0, 1e6
# A share is said anew once it differs by this.
TELL_FRAC = 0.2


class Pressure:
    """What was seen since the last look, and what it allows; bytes per second."""

    def __init__(self) -> None:
        self.budget_bytes_s = START_BYTES_S
        self._waits_s: list[float] = []
        self._n_bytes = 0
        self._apply_s = self._apply_before_s = 0.0
        self._looked_ns: int | None = None
        self._changed_ns = self._history_ns = 0

    def waited(self, wait_s: float) -> None:
        """The oldest live frame of a commit waited so long for its ack, s."""
        self._waits_s.append(wait_s)

    def applied_after(self, wait_s: float) -> None:
        """The oldest frame that is not yet applied came so long ago, s."""
        self._apply_s = wait_s

    def came(self, n_bytes: int) -> None:
        """So much history has gone into the log."""
        self._n_bytes += n_bytes

    def look(self, boot_ns: int) -> bool | None:
        """Whether live frames had to wait since the last look; None: it is too soon to tell."""
        if self._looked_ns is None:
            self._looked_ns = self._history_ns = boot_ns
        passed_ns = boot_ns - self._looked_ns
        if passed_ns < LOOK_NS:
            return None
        rate_bytes_s = self._n_bytes / (passed_ns / 1e9)
        is_behind, is_calm = self._seen()
        if rate_bytes_s:
            self._history_ns = boot_ns
        if boot_ns - self._history_ns > REST_NS:
            self.budget_bytes_s = START_BYTES_S
        elif boot_ns - self._changed_ns >= SETTLE_NS and rate_bytes_s:
            self._change(rate_bytes_s, boot_ns, is_behind=is_behind, is_calm=is_calm)
        self._waits_s.clear()
        self._n_bytes = 0
        self._apply_before_s, self._looked_ns = self._apply_s, boot_ns
        return is_behind and rate_bytes_s > 0

    def _seen(self) -> tuple[bool, bool]:
        """Whether something waits for too long, and whether nothing does."""
        live_s = sum(self._waits_s) / len(self._waits_s) if self._waits_s else 0.0
        # A queue that shrinks already needs no more than time.
        is_growing = self._apply_s > self._apply_before_s
        is_behind = live_s > LIVE_WAIT_S or (self._apply_s > APPLY_WAIT_S and is_growing)
        return is_behind, live_s < LIVE_CALM_S and self._apply_s < APPLY_CALM_S

    def _change(self, rate_bytes_s: float, boot_ns: int, *, is_behind: bool, is_calm: bool) -> None:
        before = self.budget_bytes_s
        if is_behind:
            # A crowd that only just came has not sent at its pace yet.
            used = min(before, max(rate_bytes_s, before / 2))
            self.budget_bytes_s = max(LEAST_BYTES_S, LESS * used)
        elif is_calm:
            self.budget_bytes_s = min(MOST_BYTES_S, MORE * before)
        if self.budget_bytes_s != before:
            self._changed_ns = boot_ns

    def share_bytes_s(self, streams: int) -> float | None:
        """What each of so many streams may send of its history; None is no limit."""
        share = self.budget_bytes_s / max(1, streams)
        return None if share >= STREAM_MOST_BYTES_S else max(STREAM_LEAST_BYTES_S, share)


def is_other(share: float | None, told: float | None) -> bool:
    """Whether a share is worth saying to those who were told another one."""
    if share is None or told is None:
        return share is not told
    return abs(share - told) > TELL_FRAC * told
