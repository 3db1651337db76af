"""What `nvidia-smi -q -x` prints, card by card: power readings under the tags of every driver.

Drivers up to 525 say `power_readings`, later ones `gpu_power_readings` and `module_power_readings`;
`power_draw` became `average_power_draw` and `instant_power_draw`. A card is the whole one: what its
parts under MIG say is not asked. A text that declares entities is refused: none of ours does, and
they can be made to grow without end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from xml.parsers import expat

from heatpool.errors import WireError
from heatpool_agent.core.gpu_card import Card

_MOST_BYTES = 8_000_000
_MOST_DEPTH = 32
_GPU = ("nvidia_smi_log", "gpu")
_SECTIONS = ("gpu_power_readings", "power_readings")
_MODULE = ("module_power_readings",)
# A mean first, as with the library; what `power_draw` is depends on the card.
_DRAWS = ("average_power_draw", "power_draw", "instant_power_draw")
_IDENTITY = ("uuid", "serial", "board_id", "chassis_serial_number", "gpu_part_number",
             "board_part_number", "vbios_version")  # fmt: skip


@dataclass(slots=True)
class _Found:
    """The texts below each card, by path."""

    path: list[str] = field(default_factory=list)
    texts: dict[str, dict[tuple[str, ...], list[str]]] = field(default_factory=dict)
    card: dict[tuple[str, ...], list[str]] | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.path.append(tag)
        if self.path[0] != _GPU[0]:
            raise WireError(f"nvidia-smi: its text begins with <{tag[:40]}>")
        if len(self.path) > _MOST_DEPTH:
            raise WireError("nvidia-smi: its text is nested too deeply")
        if tuple(self.path) == _GPU:
            address = _address(attributes.get("id", ""))
            self.card = self.texts.setdefault(address, {})

    def end(self, tag: str) -> None:
        if tuple(self.path) == _GPU:
            self.card = None
        self.path.pop()

    def text(self, text: str) -> None:
        if self.card is not None:
            place = tuple(self.path[len(_GPU) :])
            # The parser hands a text over line by line: joined once, since each join copies it all.
            self.card.setdefault(place, []).append(text)

    def refuse(self, *_: object) -> None:
        raise WireError("nvidia-smi: its text declares entities")


def cards(text: bytes) -> dict[str, Card]:
    """Every card by its PCI address, as the kernel writes it.

    Raises:
        WireError: it is no text of `nvidia-smi -q -x`.
    """
    if len(text) > _MOST_BYTES:
        raise WireError(f"nvidia-smi: {len(text)} bytes are more than any machine's cards need")
    found = _Found()
    parser = expat.ParserCreate()
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text
    parser.EntityDeclHandler = found.refuse
    try:
        is_final = True
        parser.Parse(text, is_final)
    except expat.ExpatError as error:
        offset = max(parser.ErrorByteIndex, 0)
        raise WireError(f"nvidia-smi: {expat.ErrorString(error.code)}", offset=offset) from error
    except (LookupError, ValueError) as error:  # the text names an encoding that Python lacks
        raise WireError(f"nvidia-smi: {error}") from error
    return {address: _card(_joined(told)) for address, told in found.texts.items() if address}


def _joined(told: Mapping[tuple[str, ...], list[str]]) -> dict[tuple[str, ...], str]:
    return {place: "".join(parts) for place, parts in told.items()}


def without_identity(text: bytes) -> bytes:
    """The same text without what tells one card of a model from another."""
    for tag in _IDENTITY:
        start, end = f"<{tag}>".encode(), f"</{tag}>".encode()
        parts = text.split(start)
        text = start.join([parts[0], *(_blanked(part, end) for part in parts[1:])])
    return text


def _blanked(part: bytes, end: bytes) -> bytes:
    _, found, rest = part.partition(end)
    return b"-" + found + rest if found else part


def _card(told: Mapping[tuple[str, ...], str]) -> Card:
    name = told.get(("product_name",), "").strip()
    gpu = _powered(told, name, _SECTIONS)
    if gpu.power_w is None:
        module = _powered(told, name, _MODULE)
        if module.power_w is not None:
            return module
    return gpu


def _powered(
    told: Mapping[tuple[str, ...], str], name: str, sections: tuple[str, ...]
) -> Card:  # fmt: skip
    for section in sections:
        for tag in _DRAWS:
            power_w = _watts(told.get((section, tag)))
            if power_w is not None:
                return Card(
                    name=name,
                    power_w=power_w,
                    power_source=tag,
                    power_most_w=_watts(told.get((section, "max_power_limit"))),
                    is_module=sections is _MODULE,
                )
    return Card(name=name)


def _watts(text: str | None) -> float | None:
    """`67.03 W` -> 67.03; `N/A`, `[Not Supported]`, sentences and other units are no value."""
    number, _, unit = (text or "").strip().partition(" ")
    if unit != "W" or len(number) > 16:
        return None
    try:
        value = Decimal(number)
    except InvalidOperation:
        return None
    return float(value) if value.is_finite() and 0 <= value < 10**6 else None


def _address(told: str) -> str:
    """`00000000:3B:00.0` -> `0000:3b:00.0`."""
    domain, found, rest = told.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}" if found else ""
