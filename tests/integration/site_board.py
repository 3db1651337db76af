"""A site's board with every kind of figure on it, for tests of the agent's page and for looking.

`python tests/integration/site_board.py 9188` serves the page until Ctrl-C.
"""

import asyncio
import sys
from dataclasses import dataclass

from heatpool.sample import BootId, Estimate, Provenance, QualityClass, SiteId, SpoolKind
from heatpool.setpoint import SetpointState
from heatpool_agent.board import (
    BacklogView,
    Board,
    LoopView,
    SensorView,
    SetpointView,
    UplinkView,
)
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.identity_view import IdentityState, IdentityView
from heatpool_agent.core.loop_told import Capture
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.tree import LoopPower
from heatpool_agent.http import serve
from heatpool_agent.ports import Seq, SpoolMark

NS = 1_000_000_000
FLAGS = ("nodes:package+dram", "remainder:board", "mismatch:reported_vs_computed")


@dataclass(slots=True)
class StoppedClock:
    """A clock that stands until it is moved."""

    at_ns: int = 1_760_000_000 * NS

    def event_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.at_ns

    def boot_ns(self) -> int:
        """The same: nothing here steps."""
        return self.at_ns


def rack() -> LoopView:
    """A loop with a leak detector that sees nothing, and a meter that disagrees a little."""
    return LoopView(
        loop_id="rack",
        electric=estimate(20_140.0, 1_620.0, "C", Provenance.ELECTRIC),
        computed=estimate(18_460.0, 470.0, "B", Provenance.COMPUTED),
        fused=estimate(18_620.0, 393.0, "C", Provenance.FUSED, *FLAGS),
        reported_heat_w=21_480.0,
        reported_heat_w_u=1_074.0,
        delivered_heat_w=12_050.0,
        hot_c=52.14,
        cold_c=38.02,
        volume_flow_m3_h=1.152,
        rejection_capacity_w=60_000.0,
        leak=False,
        power=wall(),
        air=estimate(5_280.0, 855.0, "C", Provenance.FUSED),
        capture=Capture(frac=0.779, frac_u=0.017),
        phase="tracking",
        faults=(ENDED,),
    )


def wall() -> LoopPower:
    """What one PDU shows of all hosts."""
    whole = estimate(23_900.0, 760.0, "B", Provenance.ELECTRIC, "nodes:pdu")
    return LoopPower(whole=whole, level="pdu", is_single=True)


# Half an hour yesterday; nothing of it lasts.
ENDED = Fault(
    fault="air_in_loop",
    start_ns=1_759_950_000 * NS,
    end_ns=1_759_951_800 * NS,
    evidence="the flow's restlessness was 4.1 times its usual one; vent the loop",
)
LASTING = Fault(
    fault="fouling",
    start_ns=1_759_990_000 * NS,
    end_ns=None,
    evidence="5.2 % less heat by flow than by power, growing for 3 h; look at the strainer",
)


def estimate(value: float, u: float, quality: str, provenance: Provenance, *flags: str) -> Estimate:
    """An estimate in one line."""
    return Estimate(
        value=value, u=u, quality=QualityClass[quality], provenance=provenance, flags=flags
    )


def odd(sensor: str, node: Node, quantity: str, *flags: str) -> Reading:
    """One reading with marks."""
    return Reading(
        sensor=sensor,
        channel=f"{quantity}/{len(flags)}",
        quantity=quantity,
        kind=ReadingKind.GAUGE,
        node=node,
        value=1.0,
        event_ns=0,
        boot_ns=0,
        flags=flags,
    )


def filled(clock: StoppedClock) -> Board:
    """Two loops of which the second is nearly blind, five sensors of which two are unwell."""
    board = Board(site_id=SiteId("altstadt-7"))
    board.electric = estimate(23_900.0, 760.0, "B", Provenance.ELECTRIC, *FLAGS[:2])
    board.loops = (rack(), LoopView(loop_id="door", hot_c=31.0))
    for view in sensors():
        board.post_sensor(view)
    board.energies_j = {
        ("cpu", "powercap/intel-rapl:0"): 240_422_366.27,
        ("gpu", "GPU-6f1c/energy"): 1_222_273_783.0,
    }
    board.post_spool([mark(SpoolKind.TELEMETRY, 417, 409), mark(SpoolKind.BILLING, 96, 95)], 61_440)
    board.identity = IdentityView(
        state=IdentityState.VALID,
        site_id="altstadt-7",
        grpc="heat.example:8443",
        fingerprint="ab" * 32,
        start_ns=1_750_000_000 * NS,
        end_ns=1_752_592_000 * NS,
    )
    board.uplink = UplinkView(
        state="connected",
        batches_sent=512,
        batches_acked=504,
        backlog=BacklogView(
            frames_count=300,
            rows_count=1_800,
            size_bytes=48_000,
            start_frames_count=1_200,
            done_frac=0.75,
            frames_s=12.5,
            left_s=24.0,
        ),
        link_bytes_s=16_000.0,
    )
    board.setpoint = SetpointView(
        setpoint_seq=7,
        heat_rate_w=12_000.0,
        applied_heat_rate_w=12_000.0,
        state=SetpointState.APPLIED,
        reason="plan 2025-10-09",
        lease_left_s=87.0,
    )
    board.ticks, board.missed_ticks = 5_120, 3
    board.last_tick_boot_ns = clock.boot_ns() - NS // 2
    return board


def sensors() -> tuple[SensorView, ...]:
    """One of each state."""
    fix = "chgrp heatpool /sys/class/powercap/*/energy_uj && chmod 0440 /sys/class/powercap/*"
    return (
        SensorView(id="cdu", kind="modbus", state="up", readings_count=9, read_s=0.0042),
        SensorView(id="meter", kind="mbus", state="up", readings_count=6, read_s=0.318),
        SensorView(id="cpu", kind="rapl", state="gone", detail="energy_uj: denied", fix=fix),
        SensorView(id="bmc", kind="redfish", state="busy", detail="no free session"),
        SensorView(id="gpu", kind="nvml", state="absent", detail="nothing of this kind here"),
        SensorView(id="late", kind="host", state="starting"),
    )


def mark(kind: SpoolKind, newest: int, durable: int) -> SpoolMark:
    """A queue that holds frames up to `newest`."""
    return SpoolMark(
        kind=kind,
        boot_id=BootId("7f3a91c2"),
        first_seq=Seq(1),
        next_seq=Seq(newest + 1),
        durable_seq=Seq(durable),
    )


async def _show(port: int) -> None:
    clock = StoppedClock()
    async with serve(f"127.0.0.1:{port}", filled(clock), clock, period_s=1.0) as address:
        sys.stdout.write(f"http://{address}/\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_show(int(sys.argv[1])))
