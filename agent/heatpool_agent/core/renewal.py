"""When a certificate is to be renewed, and when to try again."""

from heatpool.units import NS_PER_S

TRY_MOST_S = 3600.0
TRY_LEAST_S = 5.0
# Of what is left of the life, how much may pass between two tries.
_SHARE_FRAC = 0.1
# Sites that were enrolled in one hour must not come for their new certificates in one second.
_SPREAD_FRAC = 0.1


def due_ns(*, renew_after_ns: int, end_ns: int, spread_frac: float) -> int:
    """When to ask for the next certificate, ns since 1970.

    `spread_frac`, 0 to 1, is a site's own place within a tenth of what is then left of the life.
    """
    left_ns = max(0, end_ns - renew_after_ns)
    return renew_after_ns + int(left_ns * _SPREAD_FRAC * spread_frac)


def retry_s(*, end_ns: int, now_ns: int, jitter_frac: float) -> float:
    """How long to wait after a try that failed, s: an hour at most, less as the end comes near.

    `jitter_frac`, 0 to 1, shortens it by up to a half. After the end it goes on, hour by hour: a
    clock that was wrong may be mended.
    """
    left_s = (end_ns - now_ns) / NS_PER_S
    most_s = TRY_MOST_S if left_s <= 0 else min(TRY_MOST_S, left_s * _SHARE_FRAC)
    return max(TRY_LEAST_S, most_s) * (1 - jitter_frac / 2)
