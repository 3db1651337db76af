"""A call that ends with a status and a reason."""

from collections.abc import Mapping

import grpc

from heatpool_aggregator.core.turned_away import Reason

RETRY_AFTER_S = 10.0
_REASONS: Mapping[grpc.StatusCode, Reason] = {
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNKNOWN,
    grpc.StatusCode.PERMISSION_DENIED: Reason.ROLE,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.MALFORMED,
    grpc.StatusCode.FAILED_PRECONDITION: Reason.OUT_OF_ORDER,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOAD,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.TOO_SLOW,
    grpc.StatusCode.UNIMPLEMENTED: Reason.NO_SUCH_METHOD,
    grpc.StatusCode.ABORTED: Reason.REPLACED,
    grpc.StatusCode.INTERNAL: Reason.BROKEN,
}


class Refused(Exception):
    """The call ends with this status; `reason` counts it, None where it is no refusal.

    `retry_after_s` is when to come back, for a machine to read, where there is no room now.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        detail: str,
        *,
        reason: Reason | None = None,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self.code, self.detail, self.retry_after_s = code, detail, retry_after_s
        self.reason = reason or _REASONS.get(code)
        super().__init__(detail)

    @property
    def trailing(self) -> tuple[tuple[str, str], ...]:
        """What goes with the status as metadata."""
        if self.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ()
        return (("retry-after-s", f"{self.retry_after_s:.0f}"),)
