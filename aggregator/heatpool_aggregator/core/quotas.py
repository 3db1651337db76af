"""How much one tenant may send, and what it is told when that is too little for it.

A bucket fills at a rate up to a burst; what is taken beyond that is a debt, and a debt is a time.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from heatpool.units import NS_PER_S

BURST_S = 10.0  # of the rate: a site that comes back sends its window at once
# Debts at which a stream is told to slow its backlog, and then its live messages too.
BACKLOG_DEBT_S = 0.0
PERIOD_DEBT_S = 2.0
NAMES_LIMIT = 20_000  # of buckets by name, 300 bytes each
PERIOD_S = 60.0  # the message period that agents have of themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stream is to keep beside the fixed limits; None is no limit."""

    message_period_s: float | None = None
    backlog_bytes_s: float | None = None

    def with_share(self, share_bytes_s: float | None) -> "Limits":
        """The same with no more of a backlog than this."""
        if share_bytes_s is None:
            return self
        own = self.backlog_bytes_s
        least = share_bytes_s if own is None else min(own, share_bytes_s)
        return replace(self, backlog_bytes_s=least)


STEADY = Limits()


class Bucket:
    """Tokens that come at a rate, per second, up to a burst; None is no limit."""

    __slots__ = ("_burst", "_rate", "_seen_ns", "_tokens")

    def __init__(self, rate: float | None, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = burst if burst is not None else (rate or 0.0) * BURST_S
        self._tokens = self._burst
        self._seen_ns: int | None = None

    def debt_s(self, boot_ns: int) -> float:
        """Time until the bucket is no longer in debt, s."""
        if self._rate is None:
            return 0.0
        if self._seen_ns is not None:
            grown = (boot_ns - self._seen_ns) / NS_PER_S * self._rate
            self._tokens = min(self._burst, self._tokens + grown)
        self._seen_ns = boot_ns
        return max(0.0, -self._tokens / self._rate)

    def take(self, count: int) -> None:
        """Takes tokens, into debt if need be."""
        if self._rate is not None:
            self._tokens -= count

    def draw(self, boot_ns: int) -> float:
        """Takes one token if there is one, which is 0; else time until there is one, s."""
        self.debt_s(boot_ns)
        if self._rate is None:
            return 0.0
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class Buckets:
    """One bucket for each name, made by `make`, in bounded memory.

    A name that comes again finds what it left: to go and come back gives nobody a new burst.
    """

    def __init__(self, make: Callable[[], Bucket]) -> None:
        self._make = make
        self._by_name: OrderedDict[str, Bucket] = OrderedDict()

    def draw(self, name: str, boot_ns: int) -> float:
        """Takes a token of this name if there is one, which is 0; else time until there is, s."""
        bucket = self._by_name.get(name)
        if bucket is None:
            bucket = self._by_name[name] = self._make()
            if len(self._by_name) > NAMES_LIMIT:
                self._by_name.popitem(last=False)
        self._by_name.move_to_end(name)
        return bucket.draw(boot_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a tenant may do, all its streams together; None is no limit."""

    streams: int | None = None
    batches_s: float | None = None
    bytes_s: float | None = None


NO_QUOTA = Quota()


class Account:
    """What one tenant has used of its quota, and what it has on its way into the log."""

    __slots__ = (
        "_batches",
        "_bytes",
        "greeting_count",
        "is_limited",
        "quota",
        "staged_bytes",
        "streams",
    )

    def __init__(self, quota: Quota) -> None:
        self.quota, self.streams = quota, 0
        self.staged_bytes = self.greeting_count = 0
        self._batches, self._bytes = Bucket(quota.batches_s), Bucket(quota.bytes_s)
        self.is_limited = quota.batches_s is not None or quota.bytes_s is not None

    @property
    def has_stream_left(self) -> bool:
        """Whether one more stream may come."""
        return self.quota.streams is None or self.streams < self.quota.streams

    def debt_s(self, boot_ns: int) -> float:
        """Time until this tenant may send again, s."""
        return max(self._batches.debt_s(boot_ns), self._bytes.debt_s(boot_ns))

    def take(self, n_bytes: int) -> None:
        """Counts one batch."""
        self._batches.take(1)
        self._bytes.take(n_bytes)

    def limits(self, debt_s: float) -> Limits:
        """What each stream of the tenant is to keep, by the debt that it is in, s."""
        streams = max(1, self.streams)
        if debt_s <= BACKLOG_DEBT_S:
            return STEADY
        # Half for the backlog, as all of them share what live data leaves over.
        bytes_s = self.quota.bytes_s
        backlog = max(1.0, bytes_s / 2 / streams) if bytes_s else 1_000.0
        if debt_s <= PERIOD_DEBT_S:
            return Limits(backlog_bytes_s=backlog)
        batches_s = self.quota.batches_s or streams / PERIOD_S
        period_s = max(2 * PERIOD_S, 2 * streams / batches_s)
        return Limits(backlog_bytes_s=backlog, message_period_s=period_s)
