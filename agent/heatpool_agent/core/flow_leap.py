"""A flow that leaps for one reading is none: what a loop's flow meter shows, before it is believed.

One figure a hundred times too large would leave the filter wrong for hours, and sure of it. No
pump multiplies its flow from one reading to the next and back; where it stays there, it is true.
"""

from math import exp, isfinite

# Above the most of the hours before by this factor a reading is doubted. A fall never is: pumps
# stop.
LEAP = 5.0
# Another reading within this factor of the doubted one bears it out.
AGREES = 2.0
# So does time: a meter that shows few digits may well repeat itself. Longer than two periods of
# the slowest sensor (`config.PERIOD_MOST_S`), in which one reading just stands.
LASTS_S = 130.0
_LIFE_S = 6 * 3600.0


class FlowLeap:
    """The flow that a loop is known by, and a reading far above it that nothing bears out yet."""

    __slots__ = ("_doubted_m3_h", "_doubted_s", "_is_proved", "_most_m3_h")

    def __init__(self) -> None:
        self._most_m3_h: float | None = None
        self._is_proved = False
        self._doubted_m3_h: float | None = None
        self._doubted_s = 0.0

    def is_believed(self, volume_flow_m3_h: float | None, span_s: float) -> bool:
        """Whether the flow of a tick that lasted `span_s` may count; what is absent may."""
        flow_m3_h, most_m3_h = volume_flow_m3_h, self._most_m3_h
        if flow_m3_h is None or not isfinite(flow_m3_h) or flow_m3_h < 0:
            return True
        if most_m3_h is not None:
            most_m3_h *= exp(-span_s / _LIFE_S)
            self._most_m3_h = most_m3_h
            if flow_m3_h > LEAP * most_m3_h and not self._is_borne_out(flow_m3_h, span_s):
                return False
        self._doubted_m3_h = None
        self._is_proved = most_m3_h is not None
        self._most_m3_h = max(flow_m3_h, most_m3_h or 0.0)
        return True

    def contradicts(self, volume_flow_m3_h: float | None) -> bool:
        """Whether this flow shows that the only one before it was the leap; then it begins anew."""
        most_m3_h, is_proved = self._most_m3_h, self._is_proved
        if volume_flow_m3_h is None or most_m3_h is None or is_proved:
            return False
        if not 0 < LEAP * volume_flow_m3_h < most_m3_h:
            return False
        self._most_m3_h = None
        return True

    def saved(self) -> list[float]:
        """The flow that the loop is known by, m3/h; empty: none."""
        return [] if self._most_m3_h is None else [self._most_m3_h]

    def restore(self, told: object) -> None:
        """Takes over what was saved.

        Raises:
            ValueError: it is no flow.
        """
        if not isinstance(told, list) or not all(isinstance(one, int | float) for one in told):
            raise ValueError("damaged")
        if len(told) > 1 or not all(isfinite(one) and one >= 0 for one in told):
            raise ValueError("damaged")
        self._most_m3_h, self._is_proved = (float(told[0]), True) if told else (None, False)

    def _is_borne_out(self, flow_m3_h: float, span_s: float) -> bool:
        before_m3_h = self._doubted_m3_h
        if before_m3_h is None or not 1 / AGREES <= flow_m3_h / before_m3_h <= AGREES:
            self._doubted_m3_h, self._doubted_s = flow_m3_h, 0.0
            return False
        self._doubted_s += span_s
        return flow_m3_h != before_m3_h or self._doubted_s >= LASTS_S
