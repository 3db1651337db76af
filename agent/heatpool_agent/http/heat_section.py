"""One loop on the page: the best figure large, all heats side by side, none replacing another."""

from collections.abc import Iterator

from heatpool.sample import Estimate
from heatpool_agent.board import LoopView
from heatpool_agent.core.fault import FAULTS
from heatpool_agent.core.loop_told import PHASES
from heatpool_agent.http.figures import ABSENT, measure, rate, share, stamp, with_doubt
from heatpool_agent.http.loop_status import half_width_95, margin_w
from heatpool_agent.http.markup import Markup, clipped, joined, tag
from heatpool_agent.http.parts import fact, flags, level, table

_LEAK_WORDS = {True: "LEAK", False: "none seen", None: ABSENT}
# Five rows cannot be too many: the bound is there for the table's sake.
_TABLE_BYTES = 4_000
_FAULTS_BYTES = 1_500
_REPORTED = "the unit's own figure, ± is assumed"


def heat_section(view: LoopView) -> Markup:
    """The loop's figures now."""
    value, doubt = _figure(view.fused)
    return tag(
        "section",
        tag("h2", f"Heat now · loop {view.loop_id}", level(view.fused)),
        tag(
            "p",
            tag("span", value, css="big estimate" if view.fused else "big none"),
            tag("span", f"{doubt} (95 %)" if view.fused else "no figure now", css="note"),
            tag("span", PHASES.get(view.phase, view.phase), css="note") if view.phase else "",
            css="headline",
        ),
        tag("dl", *_coolant(view), css="facts"),
        table(
            ("Heat rate", "#Value", "#95 %", "Class"),
            [*_estimated(view), *_told(view), *_split(view)],
            most_bytes=_TABLE_BYTES,
            more="figures",
        ),
        flags(view.fused),
        _faults(view),
    )


def _figure(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return ABSENT, ABSENT
    return with_doubt(estimate.value, half_width_95(estimate.u))


def _coolant(view: LoopView) -> Iterator[Markup]:
    delta_k = None
    if view.hot_c is not None and view.cold_c is not None:
        delta_k = view.hot_c - view.cold_c
    leak = tag("span", _LEAK_WORDS[view.leak], css="bad" if view.leak else "")
    left_w = margin_w(view)
    yield fact("Hot pipe", measure(view.hot_c, "°C", 1), css="hot")
    yield fact("Cold pipe", measure(view.cold_c, "°C", 1), css="cold")
    yield fact("Difference", measure(delta_k, "K", 1))
    # A small rack's flow of a few l/min would else keep a single digit.
    is_small = view.volume_flow_m3_h is not None and abs(view.volume_flow_m3_h) < 1
    yield fact("Volume flow", measure(view.volume_flow_m3_h, "m³/h", 3 if is_small else 2))
    if view.capture is not None:
        yield fact("Captured share", share(view.capture.frac, half_width_95(view.capture.frac_u)))
    yield fact("Leak", leak)
    yield fact("Rejection capacity", rate(view.rejection_capacity_w))
    yield fact("Rejection margin", rate(left_w))


def _estimated(view: LoopView) -> Iterator[tuple[str, ...]]:
    for name, estimate, how in (
        ("Fused", view.fused, "power, flow and temperatures through the loop's filter"),
        ("Electric", view.electric, "electric power × captured share"),
        ("Computed", view.computed, "volume flow × temperature difference"),
    ):
        value, doubt = _figure(estimate)
        quality = estimate.quality.name if estimate else ABSENT
        yield _named(name, how), _marked(value, "estimate"), doubt, quality


def _told(view: LoopView) -> Iterator[tuple[str, ...]]:
    for name, value_w, value_w_u, how in (
        ("Reported", view.reported_heat_w, view.reported_heat_w_u, _REPORTED),
        ("Delivered", view.delivered_heat_w, None, "the heat meter's own rate into the network"),
    ):
        if value_w_u is None:
            yield _named(name, how), _marked(rate(value_w), "device"), ABSENT, ABSENT
        else:
            value, doubt = with_doubt(value_w, half_width_95(value_w_u))
            yield _named(name, how), _marked(value, "device"), doubt, ABSENT


def _split(view: LoopView) -> Iterator[tuple[str, ...]]:
    """Where the electric power goes; nothing where it is not known."""
    for name, estimate, how in (
        ("At the wall", view.power.whole if view.power else None, "electric power of the loop"),
        ("With the air", view.air, "power at the wall less the fused heat"),
    ):
        if estimate is not None:
            value, doubt = _figure(estimate)
            yield _named(name, how), _marked(value, "estimate"), doubt, estimate.quality.name


def _faults(view: LoopView) -> Markup:
    """What is wrong with the loop, and what was within a day."""
    if not view.faults:
        return Markup()
    rows = [
        (
            tag("span", fault.fault.replace("_", " "), css="" if fault.end_ns else "bad"),
            stamp(fault.start_ns),
            stamp(fault.end_ns) if fault.end_ns else "lasts",
        )
        for fault in view.faults
    ]
    return table(
        ("Fault", "Since", "Until"),
        rows,
        most_bytes=_FAULTS_BYTES,
        more="faults",
        below=[clipped(f"{FAULTS.get(one.fault, '')}. {one.evidence}") for one in view.faults],
    )


def _named(name: str, how: str) -> Markup:
    return joined((name, tag("span", f" {how}", css="note")))


def _marked(text: str, css: str) -> Markup:
    return joined((text,)) if text == ABSENT else tag("span", text, css=css)
