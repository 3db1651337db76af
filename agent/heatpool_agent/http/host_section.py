"""Electric power of the hosts on the page: level believed, parts, and what is left over."""

from collections.abc import Iterable, Iterator, Sequence

from heatpool.sample import Estimate
from heatpool_agent.board import LoopView
from heatpool_agent.core.attribution import Part
from heatpool_agent.core.tree import HostPower, LoopPower
from heatpool_agent.http.figures import with_doubt
from heatpool_agent.http.loop_status import half_width_95
from heatpool_agent.http.markup import Markup, joined, tag
from heatpool_agent.http.parts import level, table

_HERE = "this machine"
_WORDS = {
    "psu_loss": "loss of the supplies",
    "rest": "remainder",
    "unseen": "remainder, of no host",
}
_HEADS = ("Host", "#Power", "#95 %")


def host_section(loops: Sequence[LoopView], *, most_bytes: int) -> Markup:
    """A table of hosts with their parts; nothing where no host shows its power."""
    shown = [view for view in loops if view.power is not None]
    rows = [row for view in shown for row in _rows(view, is_named=len(shown) > 1)]
    if not rows:
        return Markup()
    told = table(_HEADS, rows, most_bytes=most_bytes, more="more rows of hosts")
    return tag("section", tag("h2", "Electric power by host"), told)


def _rows(view: LoopView, *, is_named: bool) -> Iterator[Sequence[str]]:
    power = view.power
    assert power is not None
    where = f", loop {view.loop_id}" if is_named else ""
    for one in power.hosts:
        yield from _host(one, where)
    yield from _shared(power, where)


def _host(one: HostPower, where: str) -> Iterator[Sequence[str]]:
    yield _whole(f"{one.host or _HERE}{where}", one.cover.whole, one.cover.level)
    yield from _parts(one.cover.parts)


def _shared(power: LoopPower, where: str) -> Iterator[Sequence[str]]:
    """What a meter of all hosts shows beside them."""
    if power.unseen is not None:
        yield _whole(f"all hosts{where}", power.whole, power.level)
        yield from _parts((power.unseen,))


def _whole(name: str, whole: Estimate, taken_at: str) -> Sequence[str]:
    how = tag("span", f" read at {_word(taken_at)} ", css="note")
    return (joined((name, how, level(whole))), *_figure(whole.value, whole.u))


def _parts(parts: Iterable[Part]) -> Iterator[Sequence[str]]:
    for part in parts:
        how = "" if part.is_measured else tag("span", " not measured", css="note")
        name = tag("span", _word(part.name), how, css="part")
        yield (name, *_figure(part.power_w, part.power_w_u))


def _figure(value_w: float, value_w_u: float) -> tuple[Markup, str]:
    value, doubt = with_doubt(value_w, half_width_95(value_w_u))
    return tag("span", value, css="estimate"), doubt


def _word(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))
