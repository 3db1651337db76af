"""When a BMC may be asked again: slow ones less often, failing ones after a rest."""

from heatpool.errors import SensorBusy, SensorError, SensorGone

_NS = 1_000_000_000
# An answer that takes longer says that we are a burden.
SLOW_S = 3.0
# Three periods after it was taken a reading is stale: a slow BMC is asked every second one.
FACTOR_MOST = 2
FAILURES_MOST = 3
REST_S = 300.0
# A wrong password tried again and again locks the account of people as well.
LOGIN_REST_S = 900.0


class LoginRefused(SensorGone):
    """The BMC knows us not, or no more; only a person mends that."""


class Pace:
    """What became of the last looks at one BMC, and what follows for the next one."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._factor = 1
        self._failures = 0
        self._due_ns = 0
        self._rest_until_ns = 0
        self._reason: SensorError | None = None

    def rest(self, boot_ns: int) -> SensorError | None:
        """The failure to be told again instead of asking; None where asking is allowed."""
        if self._reason is None or boot_ns >= self._rest_until_ns:
            return None
        if isinstance(self._reason, SensorGone):
            return SensorGone(self._reason.reason, fix=self._reason.fix)
        return SensorBusy(str(self._reason), wait_s=(self._rest_until_ns - boot_ns) / _NS)

    def is_due(self, boot_ns: int) -> bool:
        """Whether the next pass may begin; the supervisor's own grid is not repeated here."""
        return boot_ns >= self._due_ns

    def passed(self, *, begun_ns: int, slowest_s: float, interval_s: float | None) -> None:
        """A pass that was read to its end; `interval_s` is how often its sensors measure."""
        self._failures, self._reason = 0, None
        self._factor = min(self._factor * 2, FACTOR_MOST) if slowest_s > SLOW_S else 1
        # Neither stale figures nor a leak may wait for Sensors that measure every ten minutes.
        most_s = self._period_s * FACTOR_MOST
        wait_s = max(self._period_s * self._factor, min(interval_s or 0.0, most_s))
        is_longer = wait_s > self._period_s
        # Half a period of slack: ticks come a little early or late.
        self._due_ns = begun_ns + round((wait_s - self._period_s / 2) * _NS) if is_longer else 0

    def failed(self, error: SensorGone, boot_ns: int) -> None:
        """The third failure in a row, and any refused login, buys the BMC a rest."""
        self._failures += 1
        is_refused = isinstance(error, LoginRefused)
        if is_refused or self._failures >= FAILURES_MOST:
            rest_s = LOGIN_REST_S if is_refused else REST_S
            self._reason, self._rest_until_ns = error, boot_ns + round(rest_s * _NS)

    def asked_for_patience(self, error: SensorBusy, boot_ns: int) -> None:
        """The BMC itself said when to come back."""
        self._reason, self._rest_until_ns = error, boot_ns + round(error.wait_s * _NS)
