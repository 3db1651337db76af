"""Two busy sockets, or one package shown twice: the wall has room for the one or the other."""

import random
from collections.abc import Sequence

import pytest

from heatpool_agent.core.levels import NodePower
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import Tree, TreeState, grow

S = 1_000_000_000


def package(power_w: float, number: int = 0) -> NodePower:
    channel = f"powercap/intel-rapl:{number}"
    return NodePower(node=Node.PACKAGE, channel=channel, power_w=power_w, sensor="rapl")


def wall(power_w: float) -> NodePower:
    return NodePower(node=Node.CHASSIS, channel="power", power_w=power_w, sensor="bmc")


def packages_w(tree: Tree) -> float:
    """What the packages of the only host count as."""
    assert tree.power is not None
    (host,) = tree.power.hosts
    return next(part.power_w for part in host.cover.parts if part.name == "package")


def looked(*powers: NodePower, seconds: int, mirrored: Sequence[tuple[str, str]]) -> Tree:
    """The tree after so many seconds of the same powers."""
    state = TreeState()
    for second in range(0, seconds + 1, 10):
        tree, state = grow(powers, state, loads={}, mirrored=mirrored, boot_ns=second * S)
    return tree


def mirrors_of(*powers: NodePower) -> list[tuple[str, str]]:
    names = [p.name for p in powers]
    return [(names[0], name) for name in names[1:]]


@pytest.mark.parametrize("seed", range(20))
def test_packages_that_a_wall_meter_has_room_for_are_two(seed: int) -> None:
    """Two busy sockets at equal work, and one package that each die shows whole."""
    rng = random.Random(seed)
    zone_w = rng.uniform(60.0, 250.0)
    both = [package(zone_w), package(zone_w, 1)]
    board_w = rng.uniform(0.05, 0.3) * zone_w
    apart = wall((2 * zone_w + 2 * board_w) / 0.93)
    found = looked(*both, apart, seconds=240, mirrored=mirrors_of(*both))
    # Little beside two packages leaves one an odd remainder, or too little to speak of.
    is_odd = zone_w + 2 * board_w > 0.6 * (2 * zone_w + 2 * board_w)
    assert packages_w(found) == pytest.approx((2 if is_odd else 1) * zone_w)
    one = wall((zone_w + board_w) / 0.93)
    found = looked(*both, one, seconds=240, mirrored=mirrors_of(*both))
    assert packages_w(found) == pytest.approx(zone_w)


@pytest.mark.parametrize("wall_w", [4000.0, 2e5])
def test_a_wall_with_something_unseen_in_it_says_nothing_of_packages(wall_w: float) -> None:
    both = [package(100.0), package(100.0, 1)]
    found = looked(*both, wall(wall_w), seconds=240, mirrored=mirrors_of(*both))
    assert packages_w(found) == 100.0


def test_what_a_wall_proved_of_packages_stands_when_it_falls_silent() -> None:
    both = [package(100.0), package(100.0, 1)]
    state, mirrored = TreeState(), mirrors_of(*both)
    counts = []
    for second in range(0, 500, 10):
        walls = [wall(320.0)] if second < 200 else [wall(150.0)] if second >= 400 else []
        tree, state = grow([*both, *walls], state, loads={}, mirrored=mirrored, boot_ns=second * S)
        counts.append(round(packages_w(tree) / 100.0))
    # Until it denies them itself.
    assert counts == [1] * 12 + [2] * 28 + [1] * 10
