"""What one tick teaches of a host or a loop, and the means of ten seconds that are one lesson.

A meter teaches only while nothing contradicts it. Under a shared meter a host can be learnt only
if it is the only one. Source: physics.md 8; agent.md 6 D.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.core import attribution, learned_power
from heatpool_agent.core.attribution import COMPONENTS, Cover, Left
from heatpool_agent.core.calibrate import (
    EXPONENT,
    LEAST_W,
    MOST_W,
    SIZED_TIMES,
    Learner,
    Lesson,
    of_components,
    of_load,
    of_loop,
)
from heatpool_agent.core.coefficients import LOAD, LOOP, row_of
from heatpool_agent.core.contradictions import SHARED
from heatpool_agent.core.estimate import LoopPriors
from heatpool_agent.core.levels import TWIN_SUSPECTED, HostLoad, Witness
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import LoopPower, Tree

# A room whose temperature nobody measures.
ROOM_C = 24.0
LESSON_S = 10.0
# Ticks lie on a grid: the tenth one may be some microseconds early.
_SLACK_S = 0.05
# A meter that is read so often shows each step in time.
PROMPT_S = 2.0
# Between two spans the load stood if it moved by less; else so many delays make one lesson.
STOOD_FRAC = 0.05
# One late reading is forgotten after a thousand looks.
_FORGETS = 0.999
MANY = 20.0
_WALL = frozenset({*(node.value for node in attribution.INPUTS), Node.PSU_OUT.value})


# Kind, subject and basis: what one learner is for.
Key = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one tick shows that can be learnt of `key`: inputs, and what a better meter says.

    `assumed` are the figures that a new learner begins with, in the order of its maker; `sensors`
    are those of the meter, unknown for a loop.
    """

    key: Key
    inputs: tuple[float, ...]
    measured: Estimate
    prior_w: float
    assumed: tuple[float, ...]
    sensors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Sights of one key so far: their span, s, and sums over it."""

    sight: Sight
    span_s: float = 0.0
    inputs_s: tuple[float, ...] = ()
    measured_ws: float = 0.0
    measured_u_ws: float = 0.0
    prior_ws: float = 0.0


def host_sights(tree: Tree, loads: Mapping[str, HostLoad]) -> list[Sight]:
    """What the hosts of a loop teach now; nothing while levels contradict each other.

    Two meters of one host make two sights of one key, the nearer one first.
    """
    power = tree.power
    if power is None or tree.contradictions or tree.refused:
        return []
    if power.level in {node.value for node in SHARED}:
        return _under_shared(power, loads)
    found = []
    for host in power.hosts:
        cover, load = host.cover, loads.get(host.host)
        found += _sights(host.host, cover, cover.whole, load, witnesses=cover.witnesses)
    return found


def loop_sight(
    loop_id: str,
    *,
    lagged_w: float | None,
    hot_c: float | None,
    computed: Estimate | None,
    priors: LoopPriors,
) -> list[Sight]:
    """What a loop teaches now: computed heat against electric power after the loop's lag."""
    if lagged_w is None or hot_c is None or computed is None or computed.flags:
        return []
    if lagged_w <= 0 or computed.value <= 0:
        return []
    return [
        Sight(
            key=(LOOP, loop_id, ("electric_w", "excess_k")),
            inputs=(lagged_w, hot_c - ROOM_C),
            measured=computed,
            prior_w=priors.capture_frac * lagged_w,
            assumed=(priors.capture_frac, priors.capture_frac_u, lagged_w),
        )
    ]


def learner_of(sight: Sight) -> Learner:
    """One that has learnt nothing yet, with what is assumed of such a host or loop."""
    kind, subject, basis = sight.key
    if kind == LOAD:
        return of_load(subject, *sight.assumed)
    if kind == LOOP:
        return of_loop(subject, *sight.assumed)
    return of_components(subject, basis, *sight.assumed)


def resized(learner: Learner, told: Lesson) -> Learner:
    """A learner of the load, assumed as much larger as the lesson shows where that is far beyond.

    Cards may begin to work, or the record may come from a life that knew no sizes, when lessons
    are held already. These stay: only what was assumed beside them was too narrow.
    """
    is_worse = bool(learner.quality) and told.quality > learner.quality
    if learner.kind != LOAD or is_worse:
        return learner
    row = row_of(LOAD, told.inputs, EXPONENT)
    assumed_w = sum(x * value for x, value in zip(row, learner.prior.means, strict=True))
    times = told.measured_w / max(assumed_w, LEAST_W)
    # What is no lesson shows no size.
    if told.measured_w > MOST_W or not times > SIZED_TIMES:
        return learner
    prior = replace(
        learner.prior,
        means=tuple(times * value for value in learner.prior.means),
        means_u=tuple(times * u for u in learner.prior.means_u),
    )
    return replace(learner, prior=prior)


def gathered(before: Gathered | None, sight: Sight, span_s: float) -> Gathered:
    """The sums with one more tick of that span; another meter begins them anew."""
    if before is None or before.sight.measured.flags != sight.measured.flags:
        before = Gathered(sight=sight, inputs_s=(0.0,) * len(sight.inputs))
    return Gathered(
        sight=sight,
        span_s=before.span_s + span_s,
        inputs_s=tuple(
            old + span_s * one for old, one in zip(before.inputs_s, sight.inputs, strict=True)
        ),
        measured_ws=before.measured_ws + span_s * sight.measured.value,
        measured_u_ws=before.measured_u_ws + span_s * sight.measured.u,
        prior_ws=before.prior_ws + span_s * sight.prior_w,
    )


def lesson(sums: Gathered, event_ns: int, *, least_s: float = LESSON_S) -> Lesson | None:
    """The mean of what was gathered, once that is `least_s`; it ends at `event_ns`."""
    if sums.span_s < least_s - _SLACK_S or sums.measured_ws <= 0:
        return None
    return Lesson(
        event_ns=event_ns,
        span_s=sums.span_s,
        inputs=tuple(one / sums.span_s for one in sums.inputs_s),
        measured_w=sums.measured_ws / sums.span_s,
        measured_u_frac=sums.measured_u_ws / sums.measured_ws,
        reference=_reference(sums.sight),
        quality=int(sums.sight.measured.quality),
        prior_w=sums.prior_ws / sums.span_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How late a meter shows what happens, and what was gathered while the load was on its way.

    `late_s` is the age of its readings; `before_w` what the last span would have been told as.
    """

    late_s: float = 0.0
    before_w: float | None = None
    moving: Lesson | None = None

    @property
    def least_s(self) -> float:
        """The shortest span that teaches."""
        return max(LESSON_S, self.late_s)


def aged(pace: Pace, age_s: float) -> Pace:
    """The pace with one more look at the meter's readings, of that age."""
    return replace(pace, late_s=max(age_s, _FORGETS * pace.late_s))


def settled(pace: Pace, told: Lesson) -> tuple[Lesson | None, Pace]:
    """What may be learnt of a span: itself while the load stood, else the mean of many.

    A meter that is read every half minute shows a step late: spans beside a step would teach that
    the counters are wrong. Over many of them that passes.
    """
    before_w, now_w = pace.before_w, told.prior_w
    pace = replace(pace, before_w=now_w)
    if pace.late_s <= PROMPT_S:
        return told, pace
    if before_w is not None and abs(now_w - before_w) <= STOOD_FRAC * before_w:
        return told, pace
    moving = told if pace.moving is None else _joined(pace.moving, told)
    if moving.span_s < MANY * pace.late_s:
        return None, replace(pace, moving=moving)
    return moving, replace(pace, moving=None)


def _joined(one: Lesson, other: Lesson) -> Lesson:
    """The mean of two lessons, by their spans."""
    share = other.span_s / (one.span_s + other.span_s)

    def mean(first: float, second: float) -> float:
        return first + share * (second - first)

    return replace(
        other,
        span_s=one.span_s + other.span_s,
        inputs=tuple(map(mean, one.inputs, other.inputs)),
        measured_w=mean(one.measured_w, other.measured_w),
        measured_u_frac=mean(one.measured_u_frac, other.measured_u_frac),
        prior_w=mean(one.prior_w, other.prior_w),
    )


def _reference(sight: Sight) -> str:
    """The level that taught, as the estimate's first mark names it."""
    if sight.key[0] == LOOP:
        return "computed"
    flags = sight.measured.flags
    if any(flag.startswith("remainder:") or flag.startswith("learned:") for flag in flags):
        return COMPONENTS
    return flags[0].partition(":")[2] if flags else "meter"


def _under_shared(power: LoopPower, loads: Mapping[str, HostLoad]) -> list[Sight]:
    names = {*loads, *(host.host for host in power.hosts)}
    if len(names) != 1:
        return []
    (name,) = names
    cover = power.hosts[0].cover if power.hosts else None
    load = loads.get(name)
    found = _sights(name, cover, power.whole, load, witnesses=power.witnesses, is_metered=True)
    if cover is None or cover.level == COMPONENTS:
        return found
    # The host's own meter is nearer to it.
    return [*_sights(name, cover, cover.whole, load, witnesses=cover.witnesses), *found]


def _sights(
    host: str,
    cover: Cover | None,
    measured: Estimate,
    load: HostLoad | None,
    *,
    witnesses: Sequence[Witness],
    is_metered: bool = False,
) -> list[Sight]:
    if any(flag.startswith(TWIN_SUSPECTED) for flag in measured.flags):
        return []
    found = []
    is_wall = is_metered or (cover is not None and cover.level in _WALL)
    if is_wall and cover is not None:
        teaching = {witness.sensor for witness in witnesses} - {""}
        found += [
            _of_components(host, left, measured)
            for left in cover.left
            if all(teaching.isdisjoint(part.sensors) for part in left.parts)
        ]
    is_better = is_wall or (cover is not None and cover.level == COMPONENTS)
    if is_better and measured.quality < QualityClass.E:
        found += _of_load(host, load, measured)
    sensors = frozenset(witness.sensor for witness in witnesses)
    return [replace(sight, sensors=sensors) for sight in found]


def _of_components(host: str, left: Left, measured: Estimate) -> Sight:
    inputs = learned_power.inputs_of(left.parts)
    served_w = inputs[0] + inputs[1]
    # What is assumed at no load: it does not move with what is served.
    base_w = left.assumed_w - served_w * (1 + attribution.FANS_FRAC) / attribution.PSU_EFFICIENCY
    return Sight(
        key=(COMPONENTS, host, learned_power.basis_of(left.parts)),
        inputs=inputs,
        measured=measured,
        prior_w=left.assumed_w,
        assumed=(base_w,),
    )


def _of_load(host: str, load: HostLoad | None, measured: Estimate) -> list[Sight]:
    if load is None or load.busy_frac is None:
        return []
    count = load.logical_cpu_count
    return [
        Sight(
            key=(LOAD, host, ("busy_frac",)),
            inputs=(load.busy_frac,),
            measured=measured,
            prior_w=attribution.host_power_w(load),
            assumed=(count * attribution.IDLE_PER_CPU_W, count * attribution.FULL_PER_CPU_W),
        )
    ]
