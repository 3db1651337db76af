"""How many rows a frame waits for: as the site has it, or as the other end of the line asks.

A frame has one number and travels whole, so what is too much for one message is never made.
"""

from heatpool_agent.core.line import LineLimits

# However quiet a site shall be, an hour without a word looks like one that is gone.
MESSAGE_MOST_S = 3_600.0
# Rows differ; what the last ones took is no promise for the next.
SPARE_FRAC = 0.8


def rows_per_frame(
    asked: LineLimits,
    *,
    message_period_s: float,
    report_period_s: float,
    rows_most: int,
    row_bytes: float | None = None,
) -> int:
    """Rows after which a frame is closed.

    `row_bytes` is what a row takes on the line; None: not known yet. A shorter message period than
    the site's own is kept by closing frames early, whatever is in them.
    """
    period_s = max(message_period_s, min(asked.message_period_s or 0.0, MESSAGE_MOST_S))
    rows = round(period_s / (asked.report_period_s or report_period_s))
    rows = min(rows, rows_most, asked.batch_rows_count or rows_most)
    if asked.batch_bytes and row_bytes:
        rows = min(rows, int(SPARE_FRAC * asked.batch_bytes / row_bytes))
    return max(1, rows)
