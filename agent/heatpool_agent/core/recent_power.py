"""What power a counter has shown lately, and what that says of a span that nobody counted."""

from dataclasses import dataclass, replace

from heatpool_agent.core.totals import PowerSpan

# Shorter means follow every job; a span that hides something is longer.
BUCKET_S = 60.0
# Highest and lowest are forgotten over a day: load has a daily rhythm.
FORGET_S = 86_400.0
# Beyond what was seen: by this much where it was watched for long, twice and half otherwise.
MARGIN = 1.1
LITTLE_SEEN = 2.0
# What a rated part may draw on average, and beyond its highest mean. Source: physics.md 3.4.
RATED_MARGIN = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentPower:
    """Mean powers over a minute each, W: the last, lowest and highest; the rest fills the next."""

    now_w: float | None = None
    low_w: float = 0.0
    high_w: float = 0.0
    seen_s: float = 0.0
    open_j: float = 0.0
    open_s: float = 0.0


def observe(recent: RecentPower, energy_j: float, span_s: float) -> RecentPower:
    """What is known after one more measured span."""
    open_j, open_s = recent.open_j + energy_j, recent.open_s + span_s
    if open_s < BUCKET_S:
        return replace(recent, open_j=open_j, open_s=open_s)
    mean_w = open_j / open_s
    seen_s = recent.seen_s + open_s
    if recent.now_w is None:
        return RecentPower(now_w=mean_w, low_w=mean_w, high_w=mean_w, seen_s=seen_s)
    kept = 1.0 - min(1.0, open_s / FORGET_S)
    return RecentPower(
        now_w=mean_w,
        low_w=min(mean_w, mean_w + (recent.low_w - mean_w) * kept),
        high_w=max(mean_w, mean_w + (recent.high_w - mean_w) * kept),
        seen_s=seen_s,
    )


def interrupted(recent: RecentPower) -> RecentPower:
    """The same after a span that was not measured: a minute across it would be no mean."""
    if recent.now_w is None and recent.open_s > 0:
        recent = observe(recent, recent.open_j / recent.open_s * BUCKET_S, BUCKET_S)
    return replace(recent, open_j=0.0, open_s=0.0)


def bounds(recent: RecentPower, rated_w: float | None, most_w: float) -> PowerSpan:
    """Between which mean powers, W, any span must lie; `most_w` where no rating is known."""
    if not rated_w:
        return PowerSpan(low_w=0.0, high_w=most_w)
    # Boards let a part draw more than it is rated for: what was seen proves it.
    return PowerSpan(low_w=0.0, high_w=RATED_MARGIN * max(rated_w, recent.high_w))


def likely(
    recent: RecentPower, bound: PowerSpan, *, hidden_s: float, after_w: float | None = None
) -> PowerSpan | None:
    """Between which mean powers, W, a hidden span likely lies; None where none was ever seen.

    `after_w` is what the first minute after it showed.
    """
    recent = interrupted(recent)
    near_w = [power_w for power_w in (recent.now_w, after_w) if power_w is not None]
    if not near_w:
        return None
    seen_w = near_w if recent.now_w is None else [*near_w, recent.low_w, recent.high_w]
    least_w, most_w = min(seen_w), max(seen_w)
    margin = MARGIN if recent.seen_s >= hidden_s else LITTLE_SEEN
    high_w = min(bound.high_w, most_w * margin)
    # As near to what stood beside it as to the middle of all that was seen.
    expected_w = (sum(near_w) / len(near_w) + (least_w + most_w) / 2) / 2
    return PowerSpan(
        low_w=min(high_w, max(bound.low_w, least_w / margin)),
        high_w=high_w,
        expected_w=min(expected_w, high_w),
    )


def hidden_j(span: PowerSpan, *, on_s: float, maybe_s: float) -> tuple[float, float]:
    """Energy that nobody counted, J, and its standard uncertainty.

    For `on_s` the part drew a power within `span`; for `maybe_s` it may have been off.
    """
    off_w = span.middle_w - (span.low_w + span.high_w) / 2
    on_w_u = ((span.high_w - span.low_w) ** 2 / 12 + off_w**2) ** 0.5
    maybe_w = span.middle_w / 2
    maybe_w_u = (span.high_w**2 / 12 + (maybe_w - span.high_w / 2) ** 2) ** 0.5
    energy_j = span.middle_w * on_s + maybe_w * maybe_s
    return energy_j, on_w_u * on_s + maybe_w_u * maybe_s
