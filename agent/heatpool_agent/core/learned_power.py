"""A host's power by what was learnt of it, where no meter is there and it says more than priors.

Only the sum of components and the model of the load are replaced; a meter never is.
Source: agent.md 6 B, D; physics.md 5.4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import hypot, inf

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.core import attribution
from heatpool_agent.core.attribution import COMPONENTS, Cover, Part
from heatpool_agent.core.coefficients import Coefficients, Learned, predicted
from heatpool_agent.core.levels import HostLoad
from heatpool_agent.core.reading import Node

# Class C is no better than that, however well the fit went. Source: physics.md 5.4.
LEARNED_U_FRAC = 0.08
# A fit that misses by more is no class C: 15 % mean error of a load model is 19 % of u.
WORST_C_U_FRAC = 0.20
_CARDS = frozenset({"gpu", "module"})
_NO_FAN = 0.0


def basis_of(parts: Iterable[Part]) -> tuple[str, ...]:
    """The names of what is measured behind the supply: coefficients hold for these alone."""
    return tuple(sorted(part.name for part in parts if part.is_measured))


def inputs_of(parts: Iterable[Part]) -> tuple[float, float, float]:
    """Watts of CPU and all else, of cards, and the cube of the fans' speed, which none shows."""
    measured = [part for part in parts if part.is_measured]
    cards_w = sum(part.power_w for part in measured if part.name in _CARDS)
    return sum(part.power_w for part in measured) - cards_w, cards_w, _NO_FAN


def improved(cover: Cover, load: HostLoad | None, learned: Learned | None) -> Cover:
    """The cover by what was learnt of its host; as it is where a meter shows it, or in doubt.

    `learned` holds what is valid now.
    """
    if learned is None or cover.whole.value <= 0:
        return cover
    if cover.level == COMPONENTS:
        known = learned.components.get(basis_of(cover.parts))
        return cover if known is None else _by_components(cover, known)
    known = learned.load
    if cover.level != Node.HOST.value or known is None or load is None or load.busy_frac is None:
        return cover
    return _better(cover, known, (load.busy_frac,), ())


def _by_components(cover: Cover, known: Coefficients) -> Cover:
    measured = tuple(part for part in cover.parts if part.is_measured)
    return _better(cover, known, inputs_of(measured), measured)


def _better(
    cover: Cover, known: Coefficients, inputs: Sequence[float], measured: tuple[Part, ...]
) -> Cover:
    """The same host by its coefficients; as it was where these leave more doubt."""
    told = predicted(known, inputs)
    dc_w = sum(part.power_w for part in measured)
    u_w = max(told.value_w_u, LEARNED_U_FRAC * told.value_w, attribution.LEAST_U_W)
    # A fit that misses by more than a rating model leans to its lowest lessons, and is none.
    most_u_frac = min(cover.whole.u / cover.whole.value, attribution.HOST_U_FRAC)
    # Less at the wall than behind the supply cannot be.
    if not dc_w < told.value_w < inf or not u_w / told.value_w < most_u_frac:
        return cover
    flags = [flag for flag in cover.whole.flags if not flag.startswith("remainder:")]
    flags.append(f"learned:{known.reference}")
    if not told.is_inside:
        flags.append(f"beyond:{known.kind}")
    # Nothing is learnt better than its teacher: load beside counters and priors stays class D.
    is_c = u_w <= WORST_C_U_FRAC * told.value_w and known.quality <= QualityClass.C
    whole = replace(
        cover.whole,
        value=told.value_w,
        u=u_w,
        quality=QualityClass.C if is_c else QualityClass.D,
        flags=tuple(flags),
    )
    return replace(cover, whole=whole, parts=_parts(cover, whole, measured))


def _parts(cover: Cover, whole: Estimate, measured: tuple[Part, ...]) -> tuple[Part, ...]:
    if not measured:
        # What was learnt of the load holds its cards too.
        return (replace(cover.parts[0], power_w=whole.value, power_w_u=whole.u),)
    loss_w = (1 - attribution.PSU_EFFICIENCY) * whole.value
    loss_w_u = attribution.PSU_EFFICIENCY_U * whole.value
    known = (*measured, Part("psu_loss", loss_w, loss_w_u, is_measured=False))
    rest_w = whole.value - sum(part.power_w for part in known)
    rest_w_u = hypot(whole.u, *(part.power_w_u for part in known))
    return (*known, Part("rest", rest_w, rest_w_u, is_measured=False))
