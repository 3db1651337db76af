"""What the ledger estimates for its gaps keeps its word, whatever load they hid."""

import math
import random
from collections.abc import Callable, Iterator

import pytest

from heatpool_agent.core.ledger import GapRecord, Ledger
from heatpool_agent.core.reading import Node, Reading, ReadingKind

S = 1_000_000_000
DAY_S = 86_400
RANGE_UJ = 262_143_328_850


def zone(true_uj: int, boot_s: float, *, boot: str, wall_s: float) -> Reading:
    return Reading(
        sensor="cpu",
        channel="powercap/intel-rapl:0",
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=0.0,
        event_ns=round(wall_s * S),
        boot_ns=round(boot_s * S),
        node=Node.PACKAGE,
        raw=true_uj % RANGE_UJ,
        exponent=-6,
        modulus=RANGE_UJ,
        generation=boot,
    )


def _profile(dice: random.Random) -> Callable[[float], float]:
    """A hidden load, W, by the second: steady, daily, or jobs that come and go."""
    idle_w = dice.uniform(8, 60)
    busy_w = idle_w + dice.uniform(30, 300)
    kind = dice.choice(["steady", "daily", "jobs", "bursts"])
    mean_s = 600 if kind == "bursts" else 5_400
    now_w, until_s = idle_w, 0.0

    def power_w(at_s: float) -> float:
        nonlocal now_w, until_s
        if kind == "steady":
            return busy_w * dice.uniform(0.95, 1.0)
        if kind == "daily":
            return idle_w + (busy_w - idle_w) * (0.5 + 0.5 * math.sin(at_s / DAY_S * math.tau))
        if until_s <= at_s:
            now_w = busy_w * dice.uniform(0.6, 1.0) if dice.random() < 0.5 else idle_w
            until_s = at_s + dice.expovariate(1 / mean_s)
        return now_w

    return power_w


def _hidden_gap(dice: random.Random, *, off_s: int | None) -> tuple[GapRecord | None, float]:
    """A gap as the ledger tells it, and its true energy, J; `off_s`: a reboot, off for so long."""
    power_w = _profile(dice)
    watched_s, away_s = dice.choice([1800, 7200, 36_000]), dice.choice([1800, 7200, 28_800])
    ledger, at_s, true_uj = Ledger(boot_id="a"), 1_000.0, dice.randrange(RANGE_UJ)

    def drawn(span_s: int, lost_s: int = 0) -> Iterator[float]:
        nonlocal at_s, true_uj
        for second in range(0, span_s, 60):
            at_s += 60
            true_uj += int(power_w(at_s) * 60e6) if second >= lost_s else 0
            yield at_s

    for second in drawn(watched_s):
        ledger.take("cpu", [zone(true_uj, second, boot="a", wall_s=second)])
    start_uj, boot = true_uj, "a" if off_s is None else "b"
    again = Ledger(ledger.page(), boot_id=boot)
    for _ in drawn(away_s, off_s or 0):
        pass
    hidden_j = (true_uj - start_uj) / 1e6
    boot_s = 0.0 if off_s is None else at_s - (away_s - off_s)
    again.take("cpu", [zone(true_uj, at_s - boot_s, boot=boot, wall_s=at_s)])
    for second in drawn(120):
        here = zone(true_uj, second - boot_s, boot=boot, wall_s=second)
        again.take("cpu", [here])
    gaps = again.page().gaps
    return (gaps[0] if gaps else None), hidden_j


@pytest.mark.parametrize("off_s", [None, 120, 900], ids=["wraps", "short reboot", "long reboot"])
def test_estimates_are_within_two_uncertainties_in_95_of_100_cases(off_s: int | None) -> None:
    dice = random.Random(11)
    cases = [_hidden_gap(dice, off_s=off_s) for _ in range(200)]
    told = [(gap, truth_j) for gap, truth_j in cases if gap is not None]
    assert len(told) > 150
    held = [
        abs(gap.energy_j - truth_j) <= 2 * gap.energy_j_u
        for gap, truth_j in told
        if gap.energy_j is not None and gap.energy_j_u is not None
    ]
    assert len(held) == len(told)
    assert sum(held) / len(held) >= 0.95
