"""What leaves with the air: electric power that the coolant does not take."""

from math import hypot

from heatpool.sample import Estimate, Provenance

AIR_NEGATIVE = "air_negative"


def air_heat(wall: Estimate | None, coolant: Estimate | None) -> Estimate | None:
    """Heat that goes to the room, W: power at the wall less heat in the coolant.

    Below nothing it says so by its flag: then one of both is wrong, or the loop gives up what it
    stored. Source: physics.md 5.2.
    """
    if wall is None or coolant is None:
        return None
    value = wall.value - coolant.value
    return Estimate(
        value=value,
        # Coolant heat that was made of this power errs with it: both doubts as if apart is the
        # careful figure.
        u=hypot(wall.u, coolant.u),
        quality=max(wall.quality, coolant.quality),
        provenance=Provenance.FUSED,
        flags=(AIR_NEGATIVE,) if value < 0 else (),
    )
