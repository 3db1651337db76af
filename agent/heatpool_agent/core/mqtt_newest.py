"""What MQTT messages said last, point by point, and for how long that holds.

A retained message is old news unless its own time is fresh. A duplicate, an older message after a
newer one, and one that is too old change nothing; one that cannot be read takes the value away.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatpool.errors import WireError
from heatpool.units import NS_PER_S, UNITS
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.mqtt_payload import Absent, Figure, Refusal, document, figure, told_ns
from heatpool_agent.core.mqtt_rules import Point, channel_of, counter_exponent, quantity_of
from heatpool_agent.core.reading import Node, Reading

# Clocks kept by NTP differ by less; what is further ahead comes from a clock that is wrong.
MOST_AHEAD_NS = 5 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message as it came, `age_ns` before it was looked at."""

    topic: str
    payload: bytes
    is_retained: bool = False
    is_dup: bool = False
    age_ns: int = 0


def packed(messages: Iterable[Message]) -> bytes:
    """The messages as a tape keeps them."""
    rows = [
        [m.topic, base64.b64encode(m.payload).decode(), m.is_retained, m.is_dup, m.age_ns]
        for m in messages
    ]
    return json.dumps(rows, separators=(",", ":")).encode()


def unpacked(data: bytes) -> list[Message]:
    """The opposite of `packed`.

    Raises:
        WireError: they are no messages.
    """
    try:
        return [
            Message(
                topic=str(topic),
                payload=base64.b64decode(payload, validate=True),
                is_retained=bool(is_retained),
                is_dup=bool(is_dup),
                age_ns=int(age_ns),
            )
            for topic, payload, is_retained, is_dup, age_ns in json.loads(data)
        ]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"mqtt: the tape holds no messages: {error}") from error


class Newest:
    """The newest reading of each point; a message that is refused leaves its reason."""

    def __init__(
        self,
        points: Sequence[Point],
        *,
        node: Node,
        availability_topic: str = "",
        payload_offline: str = "",
    ) -> None:
        self._points = points
        self._node = node
        self._availability_topic = availability_topic
        self._offline = payload_offline.encode()
        self._held: dict[str, Reading] = {}
        self._last: dict[str, bytes] = {}
        self._reasons: dict[str, str] = {}
        self.is_offline = False
        self.refused_count = 0
        self.ignored_count = 0

    @property
    def reasons(self) -> dict[str, str]:
        """Why points have no value, by channel, for as long as that lasts."""
        return dict(self._reasons)

    def take(self, messages: Iterable[Message], stamp: Stamp) -> None:
        """Each message in the order of its coming; the stamp is the moment of the look."""
        for message in messages:
            if message.topic == self._availability_topic:
                self._note_state(message.payload)
            else:
                self._take_figures(message, stamp)

    def readings(self, stamp: Stamp) -> tuple[Reading, ...]:
        """What holds at this moment, in the order of the points."""
        return tuple(
            held
            for point in self._points
            if (held := self._held.get(channel_of(point))) is not None
            and stamp.boot_ns - held.boot_ns <= point.max_age_s * NS_PER_S
        )

    def _note_state(self, payload: bytes) -> None:
        self.is_offline = payload == self._offline
        if self.is_offline:
            self._held.clear()
            self._last.clear()

    def _take_figures(self, message: Message, stamp: Stamp) -> None:
        points = [point for point in self._points if point.topic == message.topic]
        is_again = message.is_dup and self._last.get(message.topic) == message.payload
        if is_again or not points:
            self.ignored_count += 1
            return
        self._last[message.topic] = message.payload
        if not message.is_retained:
            # A device without a word for "back again" says so by speaking.
            self.is_offline = False
        try:
            told: Any = document(message.payload)
        except Refusal as error:
            told = error
        came = replace(
            stamp,
            event_ns=stamp.event_ns - message.age_ns,
            boot_ns=stamp.boot_ns - message.age_ns,
        )
        for point in points:
            self._take_point(point, told, message, came)

    def _take_point(self, point: Point, told: Any, message: Message, came: Stamp) -> None:
        channel = channel_of(point)
        try:
            if isinstance(told, Refusal):
                raise told
            moment = self._moment(point, told, message, came)
            if moment is None:
                self.ignored_count += 1
                return
            self._held[channel] = self._reading(point, figure(told, point), moment)
            self._reasons.pop(channel, None)
        except Absent:
            self._held.pop(channel, None)
            self._reasons.pop(channel, None)
        except Refusal as error:
            self.refused_count += 1
            self._held.pop(channel, None)
            self._reasons[channel] = str(error)

    def _moment(self, point: Point, told: Any, message: Message, came: Stamp) -> Stamp | None:
        """When the value was measured; None if the message is no news."""
        own_ns = told_ns(told, point)
        age_ns = None if own_ns is None else came.event_ns - own_ns
        if own_ns is None or age_ns is None or age_ns < -MOST_AHEAD_NS:
            return None if message.is_retained else came
        if age_ns > point.max_age_s * NS_PER_S:
            self._reasons.setdefault(
                channel_of(point), f"its own time is {age_ns / NS_PER_S:.0f} s old, compare clocks"
            )
            return None
        held = self._held.get(channel_of(point))
        if held is not None and own_ns <= held.event_ns:
            return None
        return replace(came, event_ns=own_ns, boot_ns=came.boot_ns - max(age_ns, 0))

    def _reading(self, point: Point, found: Figure, moment: Stamp) -> Reading:
        is_counter = found.raw is not None
        u = point.u
        return Reading(
            sensor=moment.sensor,
            channel=channel_of(point),
            quantity=quantity_of(point),
            kind=point.kind,
            value=found.value,
            event_ns=moment.event_ns,
            boot_ns=moment.boot_ns,
            node=point.node or self._node,
            u=float(u * UNITS[point.unit].factor) if u is not None and point.unit else u,
            loop=moment.loop,
            raw=found.raw,
            exponent=(counter_exponent(point) or 0) if is_counter else 0,
            sensor_side=point.sensor_side or "",
            modulus=10**point.digits if is_counter and point.digits is not None else None,
            holds_s=point.max_age_s,
        )
