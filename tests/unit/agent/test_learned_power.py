"""What was learnt of a host's power gives way where it cannot be, or says less than priors."""

from dataclasses import replace

import pytest

from heatpool.sample import QualityClass
from heatpool_agent.core.attribution import cover
from heatpool_agent.core.coefficients import COMPONENTS, Coefficients, Learned
from heatpool_agent.core.learned_power import improved
from heatpool_agent.core.levels import NodePower
from heatpool_agent.core.reading import Node

# wall = 90 W + 1.1 of the package, learnt between 20 and 200 W.
KNOWN = Coefficients(
    kind=COMPONENTS,
    subject="",
    values=(90.0, 1.1, 1.0, 0.0),
    covariance=((1.0, 0.0, 0.0, 0.0),) + ((0.0,) * 4,) * 3,
    residual_u_frac=0.02,
    count=100,
    learned_ns=0,
    reference="pdu",
    reference_u_frac=0.02,
    quality=2,
    lows=(20.0, 0.0, 0.0),
    highs=(200.0, 0.0, 0.0),
    basis=("package",),
)
PLAIN = cover(
    {Node.PACKAGE: (NodePower(node=Node.PACKAGE, channel="intel-rapl:0", power_w=100.0),)}
)


def better(known: Coefficients) -> float | None:
    """What is told of a package of 100 W, W; None where the priors stand."""
    assert PLAIN is not None
    found = improved(PLAIN, None, Learned(components={("package",): known}))
    return None if found is PLAIN else found.whole.value


def test_what_was_learnt_of_a_package_stands_for_its_priors() -> None:
    assert better(KNOWN) == pytest.approx(200.0)


@pytest.mark.parametrize(
    "values", [(0.0, 0.9, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (float("inf"), 1.1, 1.0, 0.0)]
)
def test_less_at_the_wall_than_behind_the_supply_cannot_be(values: tuple[float, ...]) -> None:
    assert better(replace(KNOWN, values=values)) is None


def test_what_says_less_than_the_priors_is_not_used() -> None:
    assert better(replace(KNOWN, residual_u_frac=0.5)) is None


@pytest.mark.parametrize(
    ("u_frac", "teacher", "quality"),
    [
        (0.02, QualityClass.A, QualityClass.C),
        (0.02, QualityClass.C, QualityClass.C),
        (0.02, QualityClass.D, QualityClass.D),
    ],
)
def test_a_learnt_host_is_class_c_at_best_and_no_better_than_its_teacher(
    u_frac: float, teacher: QualityClass, quality: QualityClass
) -> None:
    assert PLAIN is not None
    known = replace(KNOWN, residual_u_frac=u_frac, quality=int(teacher))
    found = improved(PLAIN, None, Learned(components={("package",): known}))
    assert found.whole.quality is quality
    assert found.whole.u == pytest.approx(0.08 * found.whole.value)
