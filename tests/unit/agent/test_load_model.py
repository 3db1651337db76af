"""Power without a power sensor: class E says so, and what was learnt of the host says it better."""

import csv
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from math import hypot
from pathlib import Path
from typing import NamedTuple

import pytest
from unit.agent.hidden_host import BEGIN_NS, METER_U_FRAC, Errors, HiddenHost, S, by_load

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.core import calibrate
from heatpool_agent.core.attribution import cover
from heatpool_agent.core.calibrate import Learner, Lesson
from heatpool_agent.core.coefficients import Coefficients, Learned, predicted
from heatpool_agent.core.learned_power import improved
from heatpool_agent.core.levels import HostLoad, NodePower
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import TreeState, grow

LOAD = HostLoad(busy_frac=0.5, logical_cpu_count=40)
# Of each CPU of the shared runs: rated watts, and logical CPUs, as its maker's page says.
RATED_W = {"AMD_Threadripper": 180.0, "E3-1240": 69.0, "E5-2620": 85.0}
CPUS = {"AMD_Threadripper": 32, "E3-1240": 8, "E5-2620": 24}
# Below that, W, a package's counter says that the package sleeps: no share of it means anything.
ASLEEP_W = 2.0


class Point(NamedTuple):
    busy_frac: float
    rapl_w: float
    rated_model_w: float
    wall_w: float


def lesson(at: int, inputs: tuple[float, ...], measured_w: float, prior_w: float) -> Lesson:
    return Lesson(
        event_ns=BEGIN_NS + at * 30 * S,
        span_s=30.0,
        inputs=inputs,
        measured_w=measured_w,
        measured_u_frac=METER_U_FRAC,
        reference="pdu",
        quality=2,
        prior_w=prior_w,
    )


def of_load(points: Sequence[tuple[float, float]], cpus: int = 40) -> Learner:
    learner = calibrate.of_load("", 0.63 * cpus, 3.35 * cpus)
    for at, (busy_frac, power_w) in enumerate(points):
        prior_w = cpus * (0.63 + 2.72 * busy_frac)
        learner = calibrate.observed(learner, lesson(at, (busy_frac,), power_w, prior_w))
    return learner


def of_counter(points: Sequence[tuple[float, float]]) -> Learner:
    learner = calibrate.of_components("", ("package",), 59.0)
    for at, (rapl_w, wall_w) in enumerate(points):
        told = lesson(at, (rapl_w, 0.0, 0.0), wall_w, 59.0 + 1.24 * rapl_w)
        learner = calibrate.observed(learner, told)
    return learner


def known(learner: Learner) -> Coefficients:
    found = calibrate.coefficients(learner)
    assert found is not None
    return found


def mape(told_w: Sequence[float], true_w: Sequence[float]) -> float:
    return sum(abs(a / b - 1) for a, b in zip(told_w, true_w, strict=True)) / len(true_w)


def load_told(found: Coefficients, points: Sequence[Point]) -> list[float]:
    return [predicted(found, (point.busy_frac,)).value_w for point in points]


def bent(exponent: float, count: int = 400) -> list[tuple[float, float]]:
    r = random.Random(5)
    busy = [r.random() for _ in range(count)]
    return [(x, (60 + 150 * x**exponent) * (1 + r.gauss(0, 0.01))) for x in busy]


@pytest.mark.parametrize("times", [1.0, 4.0, 20.0])
def test_a_machine_whose_cards_nobody_counts_is_learnt_at_its_own_size(times: float) -> None:
    found = known(of_load([(x, times * power_w) for x, power_w in bent(0.75, count=60)]))
    for busy_frac in (0.2, 0.8):
        told = predicted(found, (busy_frac,))
        assert told.value_w == pytest.approx(times * (60 + 150 * busy_frac**0.75), rel=0.04)
        assert told.value_w_u < 0.1 * told.value_w


@pytest.mark.parametrize("exponent", [0.45, 0.75, 1.0, 1.45])
def test_a_load_s_curve_is_found_with_its_bend(exponent: float) -> None:
    found = known(of_load(bent(exponent)))
    assert found.exponent == pytest.approx(exponent)
    for busy_frac in (0.1, 0.5, 0.9):
        told = predicted(found, (busy_frac,))
        assert told.value_w == pytest.approx(60 + 150 * busy_frac**exponent, rel=0.02)


def test_a_load_model_never_falls_below_nothing() -> None:
    found = known(of_load([(0.1, 1.0), (0.5, 1.0), (0.9, 1.0), (1.0, 1.0), (0.2, 1.0)]))
    assert min(found.values) >= 0


@pytest.mark.parametrize("count", [40, 240])
def test_hidden_hosts_without_cards_are_foretold_by_load_within_their_doubt(count: int) -> None:
    errors, left_out = Errors(), 0
    for seed in range(28):
        host = HiddenHost(seed)
        if host.cards:
            continue
        learner = by_load(host, count)
        left_out += learner.count < 4
        for busy_frac, _, wall_w in host.spans(40 if learner.count >= 4 else 0):
            errors.add(known(learner), (busy_frac,), wall_w)
    assert left_out <= 4
    assert errors.covered >= 0.90
    assert errors.nees <= 1.5
    if count == 240:
        # A doubt that covers everything is no doubt.
        assert errors.covered <= 0.995
        assert errors.nees >= 0.3
    assert errors.mape <= 0.10


def host_model(learned: Learned | None) -> Estimate:
    plain = cover({}, load=LOAD)
    assert plain is not None
    return improved(plain, LOAD, learned).whole


def test_without_anything_learnt_the_host_s_model_is_class_e_as_wide_as_a_learner_begins() -> None:
    whole = host_model(None)
    assert whole.quality is QualityClass.E
    begun = calibrate.of_load("", 0.63 * 40, 3.35 * 40).prior
    size_w_u = hypot(begun.means_u[0], 0.5 * begun.means_u[1])
    assert whole.u == pytest.approx(hypot(0.40 * whole.value, size_w_u))


def test_a_learnt_load_is_class_c_with_its_residual_and_at_least_8() -> None:
    whole = host_model(Learned(load=known(of_load(bent(0.75)))))
    assert whole.quality is QualityClass.C
    assert whole.value == pytest.approx(60 + 150 * 0.5**0.75, rel=0.02)
    assert whole.u == pytest.approx(0.08 * whole.value)
    assert "learned:pdu" in whole.flags


def test_a_load_learnt_beside_class_d_is_no_better_than_its_teacher() -> None:
    found = replace(known(of_load(bent(0.75))), quality=int(QualityClass.D))
    whole = host_model(Learned(load=found))
    assert whole.quality is QualityClass.D
    assert "learned:pdu" in whole.flags


def scattered(u_frac: float) -> Learned:
    r = random.Random(9)
    points = [(x, y * max(0.2, 1 + r.gauss(0, u_frac))) for x, y in bent(0.75, 200)]
    return Learned(load=known(of_load(points)))


def test_a_load_that_fits_badly_is_class_d_and_worse_than_its_prior_is_not_used() -> None:
    assert host_model(scattered(0.25)).quality is QualityClass.D
    assert host_model(scattered(0.8)).quality is QualityClass.E


def package(power_w: float) -> NodePower:
    return NodePower(node=Node.PACKAGE, channel="powercap/intel-rapl:0", power_w=power_w)


def test_counters_are_class_d_by_priors_and_c_once_their_host_was_learnt() -> None:
    found = known(of_counter([(w, 90 + 1.1 * w) for w in (40.0, 80.0, 120.0, 160.0, 60.0) * 8]))
    learned = {"": Learned(components={("package",): found})}

    def whole(told: dict[str, Learned] | None) -> Estimate:
        tree, _ = grow([package(100.0)], TreeState(), loads={}, learned=told, boot_ns=0)
        assert tree.power is not None
        return tree.power.whole

    assert whole(None).quality is QualityClass.D
    assert whole(learned).quality is QualityClass.C
    assert whole(learned).value == pytest.approx(200.0, rel=0.01)
    assert whole(learned).u == pytest.approx(0.08 * 200.0, rel=0.02)


def test_parts_of_a_learnt_host_add_up_to_its_whole() -> None:
    found = known(of_counter([(w, 90 + 1.1 * w) for w in (40.0, 80.0, 120.0, 160.0, 60.0)]))
    plain = cover({Node.PACKAGE: (package(100.0),)})
    assert plain is not None
    better = improved(plain, None, Learned(components={("package",): found}))
    assert sum(part.power_w for part in better.parts) == pytest.approx(better.whole.value)
    assert [part.name for part in better.parts] == ["package", "psu_loss", "rest"]


def test_what_was_learnt_of_other_components_is_not_used() -> None:
    found = known(of_counter([(w, 90 + 1.1 * w) for w in (40.0, 80.0, 120.0, 160.0, 60.0)]))
    plain = cover({Node.PACKAGE: (package(100.0),)})
    assert plain is not None
    assert improved(plain, None, Learned(components={("gpu", "package"): found})) is plain


def test_a_meter_is_never_replaced_by_what_was_learnt() -> None:
    meter = NodePower(node=Node.PDU, channel="x", power_w=500.0)
    plain = cover({Node.PDU: (meter,), Node.PACKAGE: (package(100.0),)})
    assert plain is not None
    found = known(of_counter([(w, 90 + 1.1 * w) for w in (40.0, 80.0, 120.0, 160.0, 60.0)]))
    assert improved(plain, LOAD, Learned(components={("package",): found})) is plain


@pytest.fixture(scope="module")
def runs(realdata: Path) -> dict[str, dict[str, list[Point]]]:
    """Three machines under two kinds of load each: share of load, package counter, wall plug."""
    folder = realdata / "01_cpu" / "codecarbon_load_profiling"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found: dict[str, dict[str, list[Point]]] = {}
    for path in sorted(folder.glob("*/*.csv")):
        with path.open(encoding="utf-8") as file:
            points = [
                Point(
                    float(row["cpu_load"]) / 100,
                    float(row["rapl_power"]),
                    float(row["estimated_power"]),
                    float(row["tapo_power"]),
                )
                for row in csv.DictReader(file)
            ]
        found.setdefault(path.parent.name, {})[path.name.partition("-")[0]] = points
    return found


Runs = dict[str, dict[str, list[Point]]]


def awake(runs: Runs, machine: str) -> list[Point]:
    return [p for points in runs[machine].values() for p in points if p.rapl_w > ASLEEP_W]


def at_wall(runs: Runs) -> list[Point]:
    return [p for points in runs["AMD_Threadripper"].values() for p in points]


@pytest.mark.realdata
@pytest.mark.parametrize("machine", ["E3-1240", "E5-2620"])
def test_a_table_of_rated_watts_misses_a_package_by_40_to_70(runs: Runs, machine: str) -> None:
    points = awake(runs, machine)
    missed = mape([p.rated_model_w for p in points], [p.rapl_w for p in points])
    assert 0.41 <= missed <= 0.71


@pytest.mark.realdata
def test_a_table_of_rated_watts_misses_the_wall_as_far(runs: Runs) -> None:
    points = at_wall(runs)
    missed = mape([p.rated_model_w for p in points], [p.wall_w for p in points])
    assert 0.41 <= missed <= 0.71


@pytest.mark.realdata
def test_another_cpu_s_fit_scaled_by_rated_watts_is_hardly_better(runs: Runs) -> None:
    missed = []
    for own, other in permutations(RATED_W, 2):
        found = known(of_load([(p.busy_frac, p.rapl_w) for p in awake(runs, other)], CPUS[other]))
        points = awake(runs, own)
        told = [w / RATED_W[other] * RATED_W[own] for w in load_told(found, points)]
        missed.append(mape(told, [p.rapl_w for p in points]))
    assert sum(missed) / len(missed) >= 0.40


@pytest.mark.realdata
def test_fitted_on_the_host_itself_load_alone_is_within_the_gate(runs: Runs) -> None:
    told, true = [], []
    for machine in RATED_W:
        points = awake(runs, machine)
        found = known(of_load([(p.busy_frac, p.rapl_w) for p in points], CPUS[machine]))
        told += load_told(found, points)
        true += [p.rapl_w for p in points]
    # The target is 15 %, the gate 18. Source: agent.md 15.
    assert mape(told, true) <= 0.18


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("taught", "asked"), [("all_cores", "some_cores"), ("some_cores", "all_cores")]
)
def test_one_kind_of_load_teaches_the_wall_under_another(
    runs: Runs, taught: str, asked: str
) -> None:
    machine = runs["AMD_Threadripper"]
    found = known(of_load([(p.busy_frac, p.wall_w) for p in machine[taught]], 32))
    points = machine[asked]
    assert mape(load_told(found, points), [p.wall_w for p in points]) <= 0.15


@pytest.mark.realdata
def test_wall_from_the_counter_and_four_points_is_within_the_gate(runs: Runs) -> None:
    points = at_wall(runs)
    draw, missed, covered = random.Random(1), [], []
    for _ in range(100):
        four = draw.sample(points, 4)
        rapl_w = [p.rapl_w for p in four]
        if max(rapl_w) - min(rapl_w) < 60:
            continue
        found = known(of_counter([(p.rapl_w, p.wall_w) for p in four]))
        told = [predicted(found, (p.rapl_w, 0.0, 0.0)) for p in points]
        missed.append(mape([one.value_w for one in told], [p.wall_w for p in points]))
        covered += [
            abs(one.value_w - p.wall_w) < 1.96 * one.value_w_u
            for one, p in zip(told, points, strict=True)
        ]
    # The target is 9 %, the gate 11. Source: agent.md 15.
    assert sorted(missed)[len(missed) // 2] <= 0.11
    assert sum(covered) / len(covered) >= 0.90
