"""The one page a technician opens: server-made, no script needed, under 30 kB whatever happens."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from heatpool_agent.board import SensorView
from heatpool_agent.http.alarms import alarms
from heatpool_agent.http.figures import energy, size, span, stamp, with_doubt
from heatpool_agent.http.heat_section import heat_section
from heatpool_agent.http.host_section import host_section
from heatpool_agent.http.line_section import line_section
from heatpool_agent.http.loop_status import half_width_95
from heatpool_agent.http.markup import Markup, clipped, fitting, joined, tag
from heatpool_agent.http.parts import facts, flags, level, note, rest, table
from heatpool_agent.http.refused import Refusals, refusals
from heatpool_agent.http.seen import Seen, override_left_s, unacked_count

# Shares of the 30 kB, so that a rack full of sensors cannot make the page heavy on a bad line.
_ALARMS_BYTES = 3_000
_LOOPS_BYTES = 7_000
_SENSORS_BYTES = 6_000
_HOSTS_BYTES = 3_500
_ENERGIES_BYTES = 2_500
_RELOAD_S = 5

_SHELF = resources.files("heatpool_agent.http")
_STYLE = _SHELF.joinpath("page.css").read_text(encoding="utf-8")
SCRIPT = _SHELF.joinpath("live.js").read_bytes()
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%23a33b00'/%3E%3C/svg%3E"
)
_STYLE_SHA256 = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_SHA256}'; script-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_LINKS = Markup(
    '<a href="/v1/status">status as JSON</a> · <a href="/metrics">metrics</a> · '
    '<a href="/healthz">health</a> · <a href="/readyz">readiness</a>'
)
_STATES = {"up": "good", "gone": "bad", "busy": "bad"}
_UPLINK_WORDS = {
    "none": "sends nowhere: this site has not joined",
    "waiting": "waiting for the aggregator",
    "refused": "refused by the aggregator",
    "connected": "connected to the aggregator",
}


def page(seen: Seen, *, version: str) -> str:
    """The whole document for what is seen now."""
    return joined(
        (
            Markup("<!doctype html>\n"),
            Markup('<html lang="en">'),
            _head(seen.board.site_id),
            Markup("<body>"),
            _header(seen),
            Markup('<p id="lost" class="lost" role="alert" hidden>'),
            "No answer from the agent: these are its last figures.",
            Markup("</p>"),
            tag("main", *_sections(seen)),
            _footer(version),
            Markup("</body></html>\n"),
        )
    )


def _head(site_id: str) -> Markup:
    return tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"{site_id} · heatpool agent"),
        Markup(f'<link rel="icon" href="{_ICON}">'),
        Markup(f"<style>{_STYLE}</style>"),
        Markup(f'<noscript><meta http-equiv="refresh" content="{_RELOAD_S}"></noscript>'),
        Markup('<script src="/live.js" defer></script>'),
    )


def _header(seen: Seen) -> Markup:
    return tag(
        "header",
        tag("h1", tag("span", "heatpool agent "), seen.board.site_id),
        tag("p", _UPLINK_WORDS.get(seen.board.uplink.state, seen.board.uplink.state)),
        tag("p", stamp(seen.event_ns)),
    )


def _sections(seen: Seen) -> Iterator[Markup]:
    yield _alarms(alarms(seen))
    shown, left_count = fitting(map(heat_section, seen.loops), most_bytes=_LOOPS_BYTES)
    yield joined((shown, rest(left_count, "more loops")))
    yield tag("div", _electric(seen), _setpoint(seen), css="pair")
    yield host_section(seen.loops, most_bytes=_HOSTS_BYTES)
    yield _sensors(seen)
    yield tag("div", line_section(seen), _spool(seen), css="pair")
    if seen.board.energies_j:
        yield _energies(seen)


def _alarms(sentences: Iterable[str]) -> Markup:
    told = [tag("p", clipped(sentence, most_count=300)) for sentence in sentences]
    if not told:
        return tag("p", "No alarms.", css="good")
    shown, left_count = fitting(told, most_bytes=_ALARMS_BYTES)
    title = tag("h2", "1 alarm" if len(told) == 1 else f"{len(told)} alarms")
    return tag("div", title, shown, rest(left_count, "more alarms"), css="alarms")


def _electric(seen: Seen) -> Markup:
    power = seen.electric
    if power is None:
        none = note("No sensor gives a power figure now.")
        return tag("section", tag("h2", "Electric power"), none)
    value, doubt = with_doubt(power.value, half_width_95(power.u))
    return tag(
        "section",
        tag("h2", "Electric power", level(power)),
        facts(("Power of the site", tag("span", value, css="estimate")), ("95 %", doubt)),
        flags(power),
    )


def _setpoint(seen: Seen) -> Markup:
    wish, left_s = seen.board.setpoint, override_left_s(seen)
    title = tag("h2", "Setpoint")
    if seen.board.override is not None and left_s is not None:
        own = facts(("Local override", span(left_s)))
        title = joined((title, own, note(seen.board.override.reason)))
    if wish is None:
        return tag("section", title, note("None: all heat is rejected here."))
    return tag(
        "section",
        title,
        facts(
            ("Wished into the network", with_doubt(wish.heat_rate_w, None)[0]),
            ("Confirmed by the device", with_doubt(wish.applied_heat_rate_w, None)[0]),
            ("State", wish.state.name.lower().replace("_", " ")),
            ("Lease left", span(wish.lease_left_s)),
        ),
        note(wish.reason),
    )


def _sensors(seen: Seen) -> Markup:
    views = seen.board.sensors.values()
    refused = refusals(seen)
    rows: list[Sequence[str]] = [
        (
            view.id,
            view.kind,
            tag("span", view.state, css=_STATES.get(view.state, "")),
            _counted(view, refused.get(view.id)),
            span(view.read_s),
        )
        for view in views
    ]
    told = table(
        ("Sensor", "Kind", "State", "#Readings", "#Last read"),
        rows,
        most_bytes=_SENSORS_BYTES,
        more="more sensors",
        below=[_remark(view, refused.get(view.id)) for view in views],
    )
    body = told if rows else note("None.")
    return tag("section", tag("h2", "Sensors"), body, css="wide")


def _counted(view: SensorView, refused: Refusals | None) -> Markup:
    told = str(view.readings_count) if view.state == "up" else "–"
    if refused is None:
        return joined((told,))
    return joined((told, " ", tag("span", f"{refused.count} refused", css="bad")))


def _remark(view: SensorView, refused: Refusals | None) -> Markup:
    """What is wrong with a sensor, what mends it, and why readings of it are refused."""
    parts = [clipped(view.detail)] if view.detail else []
    if view.fix:
        parts.append(joined((" → ", tag("code", clipped(view.fix)))))
    if refused is not None:
        parts.append(joined((". " if parts else "", clipped(refused.told))))
    return joined(parts)


def _spool(seen: Seen) -> Markup:
    marks = seen.board.marks
    queues = [
        (f"{kind.name.capitalize()} batches to send", f"{unacked_count(mark):,}")
        for kind, mark in marks.items()
    ]
    on_disk = size(seen.board.spool_bytes) if marks else "–"
    return tag("section", tag("h2", "Spool"), facts(*queues, ("Telemetry on disk", on_disk)))


def _energies(seen: Seen) -> Markup:
    rows = [
        (sensor, clipped(channel), energy(energy_j))
        for (sensor, channel), energy_j in seen.board.energies_j.items()
    ]
    told = table(
        ("Sensor", "Channel", "#Energy"), rows, most_bytes=_ENERGIES_BYTES, more="more counters"
    )
    since = note("Since the agent began to count; gaps are not in it.")
    return tag("section", tag("h2", "Energy counted"), told, since)


def _footer(version: str) -> Markup:
    return tag(
        "footer",
        tag("p", "Dashed: our estimate, ± half of its 95 % interval. ■: a device's own figure."),
        tag("p", f"heatpool {version} · ", _LINKS),
    )
