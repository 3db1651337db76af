"""Each check of doctor by itself: facts in, verdict out."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.board import LoopView
from heatpool_agent.commands.doctor import text
from heatpool_agent.config import Config, Loop
from heatpool_agent.core import powercap
from heatpool_agent.core.device_map import Block
from heatpool_agent.core.likely_order import likely_word_order
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.tree import LoopPower
from heatpool_agent.doctor import (
    bmc,
    cards,
    cpu_power,
    heat,
    lines,
    machine,
    maps,
    network,
    own_clock,
    spool_state,
)
from heatpool_agent.doctor.examine import Report
from heatpool_agent.doctor.place import Place, is_agent_running, is_locked
from heatpool_agent.doctor.verdict import Status, Verdict
from heatpool_agent.fieldbus.maps import read_map
from heatpool_agent.looks import Look, powers_w
from heatpool_agent.spool_files import exclusive

OK, WARN, FAIL, SKIP = Status
NOW_NS = 1_750_000_000_000_000_000
ZONE = powercap.zones({"intel-rapl:0": "package-0"})[0]
OTHER = powercap.zones({"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"})[1]


def reading(quantity: str, value: float, **more: Any) -> Reading:
    told: dict[str, Any] = {
        "sensor": "s",
        "channel": "c",
        "quantity": quantity,
        "kind": ReadingKind.GAUGE,
        "value": value,
        "event_ns": NOW_NS,
        "boot_ns": 2_000_000_000,
        "node": Node.PACKAGE,
    }
    return Reading(**{**told, **more})


def look(**more: Any) -> Look:
    return Look(**{"id": "s", "kind": "modbus", "state": "up", "detail": "as told", **more})


def counted(power_w: float, *gauges: Reading, **more: Any) -> Look:
    """A look at a counter that ran at this power for a second, with what stands beside it."""
    before = reading("energy_j", 100.0, boot_ns=1_000_000_000, **more)
    after = reading("energy_j", 100.0 + power_w, **more)
    return look(before=(before,), readings=(after, *gauges))


def estimate(value_w: float, u_w: float) -> Estimate:
    return Estimate(
        value=value_w, u=u_w, quality=QualityClass.B, provenance=Provenance.COMPUTED, flags=()
    )


def zone_seen(**more: Any) -> cpu_power.ZoneSeen:
    return cpu_power.ZoneSeen(**{"zone": ZONE, **more})


def cpu(*zones: cpu_power.ZoneSeen, **more: Any) -> cpu_power.CpuSeen:
    return cpu_power.CpuSeen(folder="/sys/class/powercap", zones=zones, **more)


DENIED = cpu(zone_seen(refusal=errno.EACCES))
COUNTS = cpu(zone_seen(energy_uj=5), is_virtual=False)
CLOCK = own_clock.ClockSeen(now_ns=NOW_NS, is_synced=True, bound_s=0.01, services=("chronyd",))
ROOM = machine.Room(place="/", free_bytes=10**9)
PORT = lines.PortSeen(path="/dev/ttyUSB0", is_named=True)
FILE = spool_state.FileSeen(path="/s/telemetry.db", mode=0o600, check="ok")
CARD = cards.CardSeen(address="0000:3b:00.0", status="active")
CARDS = cards.CardsSeen(cards=(CARD,), driver="NVRM 570")
BMC = bmc.BmcSeen(name="b", sessions_count=1, offset_s=0.2)
DOOR = bmc.DoorSeen(path="/dev/ipmi0", is_there=True, may_use=True, is_wanted=True)
LOOP = Loop(id="rack", sensor_side="cold")
ANSWERS = network.Answered(address="127.0.0.1:1", speaks_http2=True)
ENERGY = reading("energy_wh", 5.0, raw=5, node=Node.HEAT_METER, meter_id="HPS.1")
GPU_POWER = reading("power_w", 90.0, channel="nvml/0000:3b:00.0", node=Node.GPU)
GPU_ENERGY = reading("energy_j", 90.0, channel="nvml/0000:3b:00.0", node=Node.GPU)


def loops(**more: Any) -> tuple[LoopView, ...]:
    return (LoopView(**{"loop_id": "rack", **more}),)


POWER = LoopPower(whole=estimate(1e4, 500), level="pdu")


def commanded(**more: Any) -> Config:
    loop = Loop(**{"id": "rack", **more})
    return Config(loop=(loop,), actuator=({"id": "v", "kind": "dry_run", "armed": True},))


CASES: list[tuple[Status, Verdict, str]] = [
    (OK, machine.python((3, 11, 2), compiled=True, python="python3"), ""),
    (WARN, machine.python((3, 11, 2), compiled=False, python="python3"), "-m compileall"),
    (FAIL, machine.python((3, 10, 1), compiled=True, python="python3"), "python3.11"),
    (WARN, machine.bindings({"pynvml": "13.0"}, python="p"), "p -m pip uninstall -y pynvml"),
    (OK, machine.bindings({"nvidia-ml-py": "12"}, python="p"), ""),
    (SKIP, machine.bindings({}, python="p"), ""),
    (OK, machine.disk(ROOM, 10**8), ""),
    (WARN, machine.disk(ROOM, 2 * 10**9), "spool.max_bytes"),
    (FAIL, machine.disk(replace(ROOM, free_bytes=10**6), 0), "du -xh /"),
    (
        FAIL,
        machine.disk(replace(ROOM, is_writable=False), 0, folder="/var/lib/hp", user="carol"),
        "install -d -m 0700 -o carol /var/lib/hp",
    ),
    (SKIP, machine.watchdog({}, has_systemd=False), ""),
    (SKIP, machine.watchdog({"LoadState": "not-found"}, has_systemd=True), ""),
    (
        WARN,
        machine.watchdog({"LoadState": "loaded", "WatchdogUSec": "0"}, has_systemd=True),
        "WatchdogSec=30",
    ),
    (OK, machine.watchdog({"LoadState": "loaded", "WatchdogUSec": "30s"}, has_systemd=True), ""),
    (OK, own_clock.clock(CLOCK), ""),
    (WARN, own_clock.clock(replace(CLOCK, is_synced=False)), "chrony"),
    (WARN, own_clock.clock(replace(CLOCK, is_synced=None, services=())), "apt-get install chrony"),
    (WARN, own_clock.clock(replace(CLOCK, bound_s=4.0)), "chronyc makestep"),
    (FAIL, own_clock.clock(replace(CLOCK, now_ns=0, services=("timedatectl",))), "set-ntp true"),
    (SKIP, cpu_power.readable(cpu()), ""),
    (OK, cpu_power.readable(COUNTS), ""),
    (FAIL, cpu_power.readable(DENIED), "/etc/tmpfiles.d/heatpool.conf"),
    (WARN, cpu_power.readable(replace(DENIED, is_wanted=False)), "chgrp heatpool"),
    (OK, cpu_power.readable(replace(DENIED, may_perf=True)), ""),
    (WARN, cpu_power.readable(cpu(zone_seen())), "energy_uj as root"),
    (SKIP, cpu_power.twins(cpu()), ""),
    (OK, cpu_power.twins(COUNTS), ""),
    (
        WARN,
        cpu_power.twins(cpu(zone_seen(energy_uj=10**9), zone_seen(zone=OTHER, energy_uj=10**9))),
        "lscpu",
    ),
    (SKIP, cpu_power.container_mask(COUNTS), ""),
    (OK, cpu_power.container_mask(replace(COUNTS, is_container=True)), ""),
    (WARN, cpu_power.container_mask(cpu(is_container=True)), "-v /sys/devices/virtual/powercap"),
    (SKIP, cpu_power.virtual_machine(cpu()), ""),
    (OK, cpu_power.virtual_machine(COUNTS), ""),
    (WARN, cpu_power.virtual_machine(cpu(is_virtual=True)), "heatpool-agent detect HOST"),
    (SKIP, cpu_power.perf_events(COUNTS), ""),
    (OK, cpu_power.perf_events(replace(COUNTS, has_events=True, paranoid=2)), ""),
    (WARN, cpu_power.perf_events(replace(DENIED, has_events=True, paranoid=2)), "CAP_PERFMON"),
    (SKIP, cards.library(cards.CardsSeen(), []), ""),
    (WARN, cards.library(replace(CARDS, is_wanted=False), []), 'kind = "nvml"'),
    (FAIL, cards.library(CARDS, [look(state="gone", detail="no", fix="load it")]), "load it"),
    (OK, cards.library(CARDS, [look(readings=(GPU_POWER, GPU_ENERGY))]), ""),
    (WARN, cards.library(CARDS, [look(readings=(GPU_POWER,))]), "nvidia-smi"),
    (
        WARN,
        cards.library(
            replace(CARDS, cards=(CARD, replace(CARD, address="0000:5e:00.0"))),
            [look(readings=(GPU_POWER, GPU_ENERGY))],
        ),
        "nvidia-smi -q -i 0000:5e:00.0",
    ),
    (
        OK,
        cards.library(
            replace(CARDS, cards=(CARD, replace(CARD, address="0000:5e:00.0", status="suspended"))),
            [look(readings=(GPU_POWER, GPU_ENERGY))],
        ),
        "",
    ),
    (SKIP, cards.power_state(cards.CardsSeen()), ""),
    (OK, cards.power_state(CARDS), ""),
    (WARN, cards.power_state(replace(CARDS, cards=(replace(CARD, status="error"),))), "dmesg"),
    (SKIP, bmc.door(replace(DOOR, is_there=False, is_wanted=False)), ""),
    (FAIL, bmc.door(replace(DOOR, is_there=False)), "modprobe"),
    (FAIL, bmc.door(replace(DOOR, may_use=False)), "udevadm"),
    (WARN, bmc.door(replace(DOOR, may_use=False, is_wanted=False)), "udevadm"),
    (OK, bmc.door(DOOR), ""),
    (OK, bmc.login(BMC), ""),
    (WARN, bmc.login(replace(BMC, has_login=False)), "read-only user"),
    (FAIL, bmc.login(replace(BMC, refusal="401", fix="give it the right")), "give it the right"),
    (FAIL, bmc.login(replace(BMC, refusal="401")), "call who"),
    (OK, bmc.slots(BMC), ""),
    (SKIP, bmc.slots(replace(BMC, sessions_count=None)), ""),
    (WARN, bmc.slots(replace(BMC, sessions_count=9)), "Sessions"),
    (OK, bmc.clock(BMC), ""),
    (SKIP, bmc.clock(replace(BMC, offset_s=None)), ""),
    (WARN, bmc.clock(replace(BMC, offset_s=-3600.0)), "NTP"),
    (SKIP, lines.serial_ports([], user="u", is_agent=False), ""),
    (OK, lines.serial_ports([PORT], user="u", is_agent=False), ""),
    (OK, lines.serial_ports([replace(PORT, is_named=False)], user="u", is_agent=False), ""),
    (
        FAIL,
        lines.serial_ports([replace(PORT, is_there=False)], user="u", is_agent=False),
        "/dev/serial/by-id",
    ),
    (
        FAIL,
        lines.serial_ports([replace(PORT, is_open_to_us=False)], user="u", is_agent=False),
        "usermod -aG dialout u",
    ),
    (
        WARN,
        lines.serial_ports([replace(PORT, is_locked=True)], user="u", is_agent=True),
        "fuser -v /dev/ttyUSB0",
    ),
    (OK, lines.endpoint(look(first_s=0.2, read_s=0.01), is_named=True, is_agent=False), ""),
    (
        WARN,
        lines.endpoint(look(first_s=3.0, read_s=2.4), is_named=True, is_agent=False),
        "at least 5",
    ),
    (
        FAIL,
        lines.endpoint(look(state="gone", fix="plug it in"), is_named=True, is_agent=False),
        "plug it in",
    ),
    (
        WARN,
        lines.endpoint(look(state="gone", fix="plug it in"), is_named=True, is_agent=True),
        "systemctl stop heatpool-agent",
    ),
    (WARN, lines.endpoint(look(state="busy"), is_named=True, is_agent=False), "period_s"),
    (SKIP, lines.endpoint(look(kind="hwmon", state="absent"), is_named=False, is_agent=False), ""),
    (
        FAIL,
        lines.endpoint(look(kind="hwmon", state="absent"), is_named=True, is_agent=False),
        "heatpool-agent detect",
    ),
    (SKIP, spool_state.sound([]), ""),
    (OK, spool_state.sound([FILE]), ""),
    (FAIL, spool_state.sound([replace(FILE, check="malformed")]), ".recover"),
    (WARN, spool_state.sound([replace(FILE, check="database is locked")]), "systemctl stop"),
    (SKIP, spool_state.modes([], user="u"), ""),
    (OK, spool_state.modes([FILE], user="u"), ""),
    (WARN, spool_state.modes([replace(FILE, mode=0o644)], user="u"), "chmod -R go="),
    (SKIP, network.aggregator(None), ""),
    (OK, network.aggregator(ANSWERS), ""),
    (FAIL, network.aggregator(replace(ANSWERS, refusal="refused")), "heatpool-aggregator run"),
    (FAIL, network.aggregator(replace(ANSWERS, speaks_http2=False)), "aggregator.url"),
    (FAIL, network.aggregator(replace(ANSWERS, distrust="other CA")), "heatpool-agent join"),
    (SKIP, network.page_port("", 0, is_agent=False), ""),
    (OK, network.page_port("127.0.0.1:80", 0, is_agent=False), ""),
    (OK, network.page_port("127.0.0.1:80", errno.EADDRINUSE, is_agent=True), ""),
    (FAIL, network.page_port("127.0.0.1:80", errno.EADDRINUSE, is_agent=False), "ss -ltnp"),
    (FAIL, network.page_port("127.0.0.1:80", errno.EACCES, is_agent=False), "above 1023"),
    (WARN, network.page_port("127.0.0.1:80", errno.EADDRNOTAVAIL, is_agent=False), "ip -br"),
    (SKIP, heat.psys([counted(90.0)]), ""),
    (OK, heat.psys([counted(90.0), counted(120.0, node=Node.PSYS, channel="p")]), ""),
    (WARN, heat.psys([counted(90.0), counted(40.0, node=Node.PSYS, channel="p")]), "left out"),
    (SKIP, heat.counter_against_gauge([counted(90.0)]), ""),
    (OK, heat.counter_against_gauge([counted(90.0, reading("power_w", 100.0))]), ""),
    (WARN, heat.counter_against_gauge([counted(0.09, reading("power_w", 90.0))]), "/v1/status"),
    (SKIP, heat.billing_meter(Config(), []), ""),
    (WARN, heat.billing_meter(Config(loop=(LOOP,)), []), 'role = "billing"'),
    (
        OK,
        heat.billing_meter(Config(loop=(LOOP,)), [look(is_billing=True, readings=(ENERGY,))]),
        "",
    ),
    (FAIL, heat.billing_meter(Config(loop=(LOOP,)), [look(is_billing=True)]), "call who"),
    (SKIP, heat.heat_balance(loops()), ""),
    (OK, heat.heat_balance(loops(computed=estimate(9e3, 300), power=POWER)), ""),
    (
        WARN,
        heat.heat_balance(loops(computed=estimate(2e4, 300), power=POWER)),
        "clamp-on",
    ),
    (SKIP, heat.rejection(Config(loop=(LOOP,)), ()), ""),
    (FAIL, heat.rejection(commanded(), ()), "rejection_capacity_w"),
    (OK, heat.rejection(commanded(rejection_capacity_w=6e4), loops()), ""),
    (
        FAIL,
        heat.rejection(commanded(rejection_capacity_w=6e4), loops(fused=estimate(7e4, 1e3))),
        "dry cooler",
    ),
]


def named(case: object) -> str:
    return case.id if isinstance(case, Verdict) else str(getattr(case, "value", ""))


@pytest.mark.parametrize(("status", "verdict", "fix"), CASES, ids=named)
def test_facts_make_the_verdict_and_its_cure(status: Status, verdict: Verdict, fix: str) -> None:
    assert verdict.status is status
    assert fix in verdict.fix
    assert verdict.found
    is_bad = status in (WARN, FAIL)
    assert (bool(verdict.fix), bool(verdict.why)) == (is_bad, is_bad)


LOOPS = [
    (WARN, Config(), frozenset[str](), "[[loop]]"),
    (WARN, Config(loop=(Loop(id="rack"),)), frozenset[str](), "sensor_side"),
    (WARN, Config(loop=(LOOP,)), frozenset[str](), "set fluid"),
    (OK, Config(loop=(LOOP,)), frozenset({"loop[0].fluid"}), ""),
]


@pytest.mark.parametrize(("status", "config", "told", "fix"), LOOPS)
def test_a_loop_must_say_its_coolant_and_its_side(
    status: Status, config: Config, told: frozenset[str], fix: str
) -> None:
    (verdict,) = heat.loop_settings(config, told=told)
    assert (verdict.status, fix in verdict.fix) == (status, True)


OTHER_METER = replace(ENERGY, flags=("other_meter",))
METERS = [
    (OK, {"meter_id": "HPS.1"}, ENERGY, ""),
    (FAIL, {"meter_id": "HPS.2"}, OTHER_METER, 'meter_id = "HPS.1"'),
    (WARN, {"role": "billing"}, ENERGY, 'meter_id = "HPS.1"'),
    (OK, {}, ENERGY, ""),
]


@pytest.mark.parametrize(("status", "block", "shown", "fix"), METERS)
def test_a_meter_is_the_one_that_is_expected(
    status: Status, block: dict[str, str], shown: Reading, fix: str
) -> None:
    meter = {"id": "s", "kind": "mbus", **block}
    (verdict,) = heat.meter_identity([meter], [look(readings=(shown,))])
    assert (verdict.status, fix in verdict.fix) == (status, True)


def test_a_map_from_a_manual_alone_must_be_compared_with_a_device() -> None:
    device = read_map("generic-cdu")
    verdict = maps.verified("cdu", "m", _as(device, "manual"), file="a.toml")
    assert (verdict.status, verdict.id) == (WARN, "map:cdu")
    assert "heatpool-agent once --config a.toml" in verdict.fix
    assert maps.verified("cdu", "m", _as(device, "field"), file="a.toml").status is OK


def _as(device: Any, stage: str) -> Any:
    return msgspec.structs.replace(device, verified=stage)


def test_a_wrong_word_order_is_told_with_the_right_one() -> None:
    device = read_map("generic-cdu")
    # 5.123 m3/h in thousandths and 87,654 W as two words, low word first.
    words = [5123, 0, 3021, 4512, 655, 1000, 22118, 1, 9, 0xFFFF, 25464, 1]
    order = likely_word_order(device, {Block(4, 0, 12): words})
    verdict = maps.word_order("cdu", device, order, words=12, map_name="m")
    assert (verdict.status, verdict.id) == (FAIL, "word_order:cdu")
    assert 'word_order = "CDAB"' in verdict.fix
    assert maps.word_order("cdu", device, None, words=0, map_name="m").status is SKIP
    assert maps.word_order("cdu", device, None, words=9, map_name="m").status is OK


def test_a_lock_is_seen_without_being_taken(tmp_path: Path) -> None:
    assert not is_agent_running(tmp_path)
    with exclusive(tmp_path):
        assert is_agent_running(tmp_path)
        assert is_locked(tmp_path / "lock")
    assert not is_agent_running(tmp_path)


def test_a_running_agent_is_told_where_devices_could_be_asked_twice(tmp_path: Path) -> None:
    cdu = {"id": "cdu", "kind": "modbus", "url": "tcp://127.0.0.1:1", "map": "generic-cdu"}
    place = Place(
        config=Config(sensor=(cdu,)), path=None, environ={}, folder=tmp_path, clock=_NO_CLOCK
    )
    assert lines.beside(place, runs=True).status is WARN
    assert "/v1/status" in lines.beside(place, runs=True).fix
    assert lines.beside(place, runs=False).status is OK
    alone = replace(place, config=Config())
    assert lines.beside(alone, runs=True).status is OK


_NO_CLOCK: Any = None


def test_power_between_two_reads_follows_from_the_counter_alone() -> None:
    assert powers_w(counted(90.0)) == {"c": pytest.approx(90.0)}
    assert powers_w(counted(-1.0)) == {}
    assert powers_w(look(readings=(reading("energy_j", 1.0),))) == {}


def test_the_block_for_a_loop_pastes_as_it_is_printed() -> None:
    (verdict,) = heat.loop_settings(Config(), told=frozenset())
    said = "\n".join(text(Report(verdicts=(verdict,)), columns=40))
    block = said[said.rindex("[[loop]]") : said.index("\n\n")]
    assert msgspec.toml.decode(block) == {
        "loop": [{"id": "rack", "fluid": "water", "sensor_side": "cold"}]
    }
