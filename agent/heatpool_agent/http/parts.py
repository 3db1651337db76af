"""Pieces that several sections of the page are made of."""

from collections.abc import Sequence

from heatpool.sample import Estimate
from heatpool_agent.http.markup import Markup, clipped, fitting, joined, tag


def facts(*pairs: tuple[str, str]) -> Markup:
    """Terms with their values."""
    return tag("dl", *(fact(term, value) for term, value in pairs), css="facts")


def fact(term: str, value: str, *, css: str = "") -> Markup:
    """One term with its value."""
    return tag("div", tag("dt", term), tag("dd", value), css=css)


def level(estimate: Estimate | None) -> Markup:
    """The quality class of an estimate as a badge."""
    if estimate is None:
        return Markup()
    name = estimate.quality.name
    return tag("span", f"class {name}", css=f"class {name}")


def flags(estimate: Estimate | None) -> Markup:
    """What an estimate was made from, and what is doubtful about it; nothing if nothing is."""
    words = (
        [flag.replace(":", ": ").replace("_", " ") for flag in estimate.flags] if estimate else []
    )
    return note(" · ".join(words))


def note(text: str) -> Markup:
    """A quiet line; nothing if there is nothing to say."""
    return tag("p", clipped(text), css="note") if text else Markup()


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    most_bytes: int,
    more: str,
    below: Sequence[str] = (),
) -> Markup:
    """A table as far as it fits; a head that begins with # stands over numbers.

    `below` is what stands under each row across all columns; an empty text is no line.
    """
    css = ["n" if head.startswith("#") else "" for head in heads]
    unders = below or [""] * len(rows)
    told = (
        joined((_row(r, css), _under(u, len(heads)))) for r, u in zip(rows, unders, strict=True)
    )
    shown, left_count = fitting(told, most_bytes=most_bytes)
    titles = [tag("th", head.removeprefix("#"), css=c) for head, c in zip(heads, css, strict=True)]
    head = tag("thead", tag("tr", *titles))
    return joined((tag("table", head, tag("tbody", shown)), rest(left_count, more)))


def rest(left_count: int, what: str) -> Markup:
    """Says what did not fit; nothing if all did."""
    if not left_count:
        return Markup()
    return note(f"{left_count} {what} in the status as JSON.")


def _row(cells: Sequence[str], css: Sequence[str]) -> Markup:
    others = (tag("td", cell, css=c) for cell, c in zip(cells[1:], css[1:], strict=True))
    return tag("tr", tag("th", cells[0]), *others)


def _under(text: str, columns_count: int) -> Markup:
    if not text:
        return Markup()
    cell = joined((Markup(f'<td colspan="{columns_count}">'), text, Markup("</td>")))
    return tag("tr", cell, css="under")
