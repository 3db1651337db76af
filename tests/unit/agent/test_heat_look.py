"""A loop at its ticks: faults are told once, gaps are gaps, and doubted figures teach nothing."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from integration.estimator_site import settings

from heatpool.process import journal
from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core.clock_steps import Instant
from heatpool_agent.core.estimate import LoopHeat, LoopInputs
from heatpool_agent.core.heat_tree import Circuit
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.loops.heat_look import HeatLook
from heatpool_agent.loops.loop_pass import Pass

S = 1_000_000_000
POWER = Estimate(
    value=100e3, u=2e3, quality=QualityClass.B, provenance=Provenance.ELECTRIC, flags=("nodes:pdu",)
)
RIGHT = Circuit(volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0)
SWAPPED = replace(RIGHT, hot_c=40.0, cold_c=48.2)


class Loop:
    """One loop, second by second."""

    def __init__(self) -> None:
        self.heat = HeatLook(settings())
        self.second = 0

    def tick(
        self, circuit: Circuit, *, wave_k: float = 0.0, leak: bool | None = None, wait_s: int = 1
    ) -> LoopHeat:
        self.second += wait_s
        tick = Pass(
            judged=(),
            usable=(),
            steps={},
            hosts={},
            mirrored=(),
            boot_ns=self.second * S,
            event_ns=self.second * S,
            is_due=self.second % 10 == 0,
        )
        hot_c, cold_c = circuit.hot_c, circuit.cold_c
        inputs = LoopInputs(
            electric=POWER,
            volume_flow_m3_h=circuit.volume_flow_m3_h,
            hot_c=None if hot_c is None else hot_c + wave_k,
            cold_c=None if cold_c is None else cold_c + wave_k / 2,
            sensor_side="cold",
        )
        return self.heat.look(
            inputs, circuit, tick, is_whole=True, is_leaking=leak, single=frozenset()
        )

    def run(self, circuit: Circuit, seconds: int) -> LoopHeat:
        for _ in range(seconds):
            heat = self.tick(circuit, wave_k=self.second % 7 / 100)
        return heat


def active(loop: Loop) -> list[str]:
    return [fault.fault for fault in loop.heat.faults if fault.end_ns is None]


def told(caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, str]]:
    for record in caplog.records:
        if record.message.startswith("loop.fault"):
            yield record.message, vars(record)[journal._FACTS]["fault"]


def test_a_fault_is_told_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()
    with caplog.at_level(logging.INFO):
        loop.run(RIGHT, 3600)
        assert not active(loop)
        loop.run(SWAPPED, 1800)
        assert active(loop) == ["swapped_sensors"]
        # An hour of quiet windows, and what is left of the one under way.
        loop.run(RIGHT, 4200)
    assert active(loop) == []
    (fault,) = loop.heat.faults
    assert fault.evidence
    assert fault.end_ns is not None and fault.start_ns >= 3600 * S - 600 * S
    assert list(told(caplog)) == [
        ("loop.fault", "swapped_sensors"),
        ("loop.fault_ended", "swapped_sensors"),
    ]


def test_a_leak_is_a_fault_at_once(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    loop.run(RIGHT, 20)
    loop.tick(RIGHT, leak=True)
    assert active(loop) == ["leak"]
    assert list(told(caplog)) == [("loop.fault", "leak")]


def test_swapped_pipes_are_believed_in_no_tick_and_cost_nothing_that_was_learnt() -> None:
    loop = Loop()
    before = loop.run(RIGHT, 1800)
    assert before.fused
    for _ in range(60):
        heat = loop.tick(SWAPPED)
        assert heat.fused
        assert heat.fused.provenance is Provenance.ELECTRIC
        assert heat.fused.value == pytest.approx(before.fused.value, rel=0.1)
        assert "swapped_sensors" in heat.fused.flags
    after = loop.run(RIGHT, 20)
    assert after.fused
    assert after.fused.value == pytest.approx(before.fused.value, rel=0.02)
    assert after.fused.u == pytest.approx(before.fused.u, rel=0.2)


def test_a_long_swap_of_the_pipes_shows_electric_heat_until_it_is_mended() -> None:
    loop = Loop()
    before = loop.run(RIGHT, 1800)
    swapped = loop.run(SWAPPED, 600)
    after = loop.run(RIGHT, 900)
    assert before.fused and swapped.fused and swapped.computed and after.fused
    assert swapped.computed.value < 0 < swapped.fused.value
    assert swapped.fused.provenance is Provenance.ELECTRIC
    assert "swapped_sensors" in swapped.fused.flags
    assert after.fused.provenance is Provenance.FUSED
    assert after.fused.value == pytest.approx(before.fused.value, rel=0.02)


def test_a_stop_of_the_agent_is_a_gap_and_no_mean_over_it() -> None:
    loop = Loop()
    before = loop.run(RIGHT, 1800)
    after = loop.tick(RIGHT, wait_s=7200)
    assert before.fused and after.fused
    assert loop.heat.fused_s == 1.0
    assert after.fused.value == pytest.approx(before.fused.value, rel=0.02)


def test_what_watches_is_saved_once_in_five_minutes_and_with_every_fault() -> None:
    loop = Loop()
    loop.run(RIGHT, 10)
    parts = []
    for second in range(0, 900, 10):
        at = Instant(boot_id="a", boot_ns=(1_000 + second) * S, event_ns=second * S)
        parts += [one.part for one in loop.heat.saved(at, is_whole=False)]
    assert (parts.count("fusion"), parts.count("watch")) == (90, 3)
    loop.tick(RIGHT, leak=True)
    told = [one.part for one in loop.heat.saved(at, is_whole=False)]
    assert told == ["fusion", "watch"]


def test_a_saved_state_of_which_one_letter_changed_is_not_gone_on_with() -> None:
    loop = Loop()
    loop.run(RIGHT, 100)
    at = Instant(boot_id="a", boot_ns=S, event_ns=S)
    saved = {one.part: one for one in loop.heat.saved(at, is_whole=True)}
    assert HeatLook(settings(), saved=saved).estimator.is_restored
    state = saved["fusion"].state
    place = max(index for index, letter in enumerate(state) if letter == "3")
    for other in (f"{state[:place]}9{state[place + 1 :]}", state[:-1], "", state[8:]):
        damaged = {**saved, "fusion": replace(saved["fusion"], state=other)}
        assert not HeatLook(settings(), saved=damaged).estimator.is_restored


@pytest.mark.parametrize("state", [None, 7, b"\x00"])
def test_a_saved_state_that_is_no_text_is_not_gone_on_with(state: Any) -> None:
    saved = SavedEstimator(
        loop_id="rack", part="fusion", at=Instant(boot_id="", boot_ns=0, event_ns=0), state=state
    )
    assert not HeatLook(settings(), saved={"fusion": saved}).estimator.is_restored


def test_what_watches_for_faults_knows_the_side_that_a_device_s_map_tells() -> None:
    loop = Loop()
    told = settings()
    model = replace(told.model, sensor_side="unknown")
    loop.heat = HeatLook(replace(told, sensor_side="unknown", model=model))
    assert loop.heat.estimator._watch.model.sensor_side == "unknown"
    loop.tick(RIGHT)
    assert loop.heat.estimator._watch.model.sensor_side == "cold"
