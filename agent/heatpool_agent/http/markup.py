"""HTML out of nested calls; every text is escaped, because device texts end up on the page."""

from collections.abc import Iterable
from html import escape
from itertools import accumulate


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *inside: str, css: str = "") -> Markup:
    """An element; parts that are not Markup are escaped."""
    opened = f'{name} class="{escape(css)}"' if css else name
    return Markup(f"<{opened}>{joined(inside)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """Parts in a row, escaped where they are plain text."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def clipped(text: str, *, most_count: int = 160) -> str:
    """The text, or as much as a person reads of it."""
    return text if len(text) <= most_count else f"{text[: most_count - 1]}…"


def fitting(parts: Iterable[Markup], *, most_bytes: int) -> tuple[Markup, int]:
    """As many of the first parts as fit, and how many were left out."""
    sized = [(part, len(part.encode())) for part in parts]
    ends = accumulate(size_bytes for _, size_bytes in sized)
    shown = [part for (part, _), end in zip(sized, ends, strict=True) if end <= most_bytes]
    return joined(shown), len(sized) - len(shown)
