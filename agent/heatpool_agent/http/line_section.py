"""The line to the aggregator: its state, what waits for it, and how far a backlog has gone."""

from heatpool_agent.board import BacklogView, UplinkView
from heatpool_agent.core.identity_view import IdentityState, IdentityView
from heatpool_agent.http.figures import due, size, span, stamp
from heatpool_agent.http.markup import Markup, clipped, joined, tag
from heatpool_agent.http.parts import facts, note
from heatpool_agent.http.seen import Seen, next_try_ns, next_try_s


def line_section(seen: Seen) -> Markup:
    """Everything of this room."""
    uplink = seen.board.uplink
    return tag(
        "section",
        tag("h2", "Line to the aggregator"),
        facts(
            ("State", tag("span", uplink.state, css="bad" if uplink.state == "refused" else "")),
            *_next_try(seen),
            ("Batches sent", f"{uplink.batches_sent:,}"),
            ("Durable there", f"{uplink.batches_acked:,}"),
            *_identity(seen.board.identity),
        ),
        _backlog(uplink) if uplink.backlog is not None else Markup(),
        note(uplink.detail),
        tag("p", tag("code", clipped(uplink.fix))) if uplink.fix else Markup(),
    )


def _next_try(seen: Seen) -> list[tuple[str, str]]:
    left_s, at_ns = next_try_s(seen), next_try_ns(seen)
    return [] if left_s is None or at_ns is None else [("Next try", due(left_s, at_ns))]


def _identity(identity: IdentityView) -> list[tuple[str, str]]:
    if identity.end_ns is None:
        return [("Joined", "no" if identity.state is IdentityState.NONE else identity.state)]
    return [("Joined as", identity.site_id), ("Certificate until", stamp(identity.end_ns))]


def _backlog(uplink: UplinkView) -> Markup:
    """A bar while older batches are on their way; nothing once all are there."""
    backlog = uplink.backlog
    if backlog is None or not backlog.frames_count:
        return Markup()
    told = f"{backlog.frames_count:,} of {backlog.start_frames_count:,} older batches to send"
    # A bar needs no script and no style of its own; its words stand beside it for all who read.
    bar = Markup(f'<progress max="1" value="{backlog.done_frac:.4f}">')
    return joined(
        (
            tag("p", joined((bar, Markup("</progress> "), f"{100 * backlog.done_frac:.1f} % "))),
            note(f"{told}{_rest(backlog, uplink.link_bytes_s)}"),
        )
    )


def _rest(backlog: BacklogView, link_bytes_s: float | None) -> str:
    parts = []
    if backlog.size_bytes is not None and backlog.rows_count is not None:
        parts.append(f"about {size(backlog.size_bytes)}, {backlog.rows_count:,} rows")
    if backlog.frames_s is not None:
        parts.append(f"{backlog.frames_s:.1f} batches a second, {span(backlog.left_s)} left")
    if link_bytes_s is not None:
        parts.append(f"the line carries {size(link_bytes_s)}/s")
    return "".join(f"; {part}" for part in parts)
