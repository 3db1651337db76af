"""The states of the loop filter, and the exact step of a loop with all its derivatives.

Source: physics.md 6.1 and 6.2.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import exp, expm1

from heatpool_agent.core.loop_matrix import Partials, Row


class Of(IntEnum):
    """Index of each state."""

    HOT = 0  # coolant where it leaves the IT, end of the span, degC
    MEAN = 1  # the same, mean over the span
    COLD = 2  # coolant where it enters
    STREAM = 3  # ln of the conductance rho·cp·V', W/K
    WARMTH = 4  # heat into the loop, W
    GAIN = 5  # ln of heat into the loop over measured power
    METER = 6  # ln of measured over true flow
    PAIR = 7  # hot sensor minus cold sensor at equal temperature, K
    MASS = 8  # ln of the heat capacity, J/K
    LOSS = 9  # loss to the room over the conductance at the start
    DELAY = 10  # from the IT to the sensors, s
    HOT_SHOWN = 11  # what the slow hot sensor shows, end of the span, degC
    COLD_SHOWN = 12  # what the slow cold sensor shows
    SHARE = 13  # ln of the captured share of now over its long mean, which GAIN holds


STATES = len(Of)
# Constants of a site, in the order in which their priors are kept.
BIASES = (5, 6, 7, 8, 9, 10)
# Plain ints: an enum's hash and index cost more than the arithmetic.
(
    HOT,
    MEAN,
    COLD,
    STREAM,
    WARMTH,
    GAIN,
    METER,
    PAIR,
    MASS,
    LOSS,
    DELAY,
    HOT_SHOWN,
    COLD_SHOWN,
    SHARE,
) = (int(of) for of in Of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Temperature after a span and its mean over the span, with their derivatives."""

    end_c: float
    mean_c: float
    end: Partials
    mean: Partials


def step(mean: Row, *, span_s: float, room_c: float, loss_w_k: float) -> Step:
    """The loop after `span_s` with inputs held; `loss_w_k` is the loss at LOSS = 1."""
    conductance_w_k = exp(mean[STREAM])
    lost_w_k = mean[LOSS] * loss_w_k
    # A loss below zero is an estimate gone astray; the loop itself stays a passive one.
    all_w_k = max(conductance_w_k + lost_w_k, 0.1 * conductance_w_k)
    mass_j_k = exp(mean[MASS])
    rate = all_w_k / mass_j_k
    settled_c = (mean[WARMTH] + conductance_w_k * mean[COLD] + lost_w_k * room_c) / all_w_k
    gap_k = mean[HOT] - settled_c
    passed = rate * span_s
    keep = exp(-passed)
    share = -expm1(-passed) / passed if passed > 1e-9 else 1.0
    # Derivatives by rate; by ln of the rate that is -passed·keep and keep - share.
    end_by_ln, mean_by_ln = -passed * keep * gap_k, (keep - share) * gap_k
    settled = {
        WARMTH: 1.0 / all_w_k,
        COLD: conductance_w_k / all_w_k,
        STREAM: conductance_w_k * (mean[COLD] - settled_c) / all_w_k,
        LOSS: loss_w_k * (room_c - settled_c) / all_w_k,
    }
    by_rate = {STREAM: conductance_w_k / all_w_k, MASS: -1.0, LOSS: loss_w_k / all_w_k}

    def partials(kept: float, by_ln: float) -> Partials:
        found = {index: (1.0 - kept) * value for index, value in settled.items()}
        for index, value in by_rate.items():
            found[index] = found.get(index, 0.0) + by_ln * value
        found[HOT] = kept
        return found

    return Step(
        end_c=settled_c + gap_k * keep,
        mean_c=settled_c + gap_k * share,
        end=partials(keep, end_by_ln),
        mean=partials(share, mean_by_ln),
    )
