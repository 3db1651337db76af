"""What is told of a loop's estimator in words and shares."""

from dataclasses import dataclass

# What the fused heat rests on.
PHASES = {
    "starting": "no figure yet",
    "settling": "still learning the loop",
    "tracking": "from power, flow and temperatures",
    "electric": "from power alone: flow or a temperature is missing",
    "calorimetric": "from flow and temperatures alone: power is missing",
    "blind": "nothing is seen now",
    "fallback": "plain fusion: the filter does not vouch for its figure",
    "air": "no coolant: all electric power leaves with the air",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Share of the electric power at the wall that the coolant takes, with its u."""

    frac: float
    frac_u: float
