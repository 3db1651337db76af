"""The door to one aggregator."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from heatpool.sample import Schema, SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport
from heatpool_agent.core.line import Durable, Identity, Lane, LineLimits, Resend, Sent
from heatpool_agent.core.spooled import SpoolFrame, SpoolLoss, SpoolMark


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who opens a line: the site, its queues and schemas, and what proves it."""

    site_id: SiteId
    marks: Sequence[SpoolMark]
    schemas: Sequence[Schema]
    rejection_capacity_w: float | None
    loop_ids: Sequence[str]
    identity: Identity | None = None


class Uplink(Protocol):
    """The line to one aggregator; opened with Hello already answered.

    `durable` is all that Hello's answer says: another disk there may know less than was told
    before. What is packed by one of `refused_schemas` is kept aside there, unread.
    """

    durable: Sequence[Durable]
    refused_schemas: Sequence[str]

    @property
    def limits(self) -> LineLimits:
        """What is to be kept now; the aggregator may change it at any time."""
        ...

    async def send(self, frame: SpoolFrame) -> Sent | None:
        """Hands one frame to the line; waits while the window of its lane is full.

        None: a Resend came meanwhile and nothing is written: go back to it first.

        Raises:
            UplinkError: the line is down.
        """
        ...

    async def aged(self) -> None:
        """Returns once a new line with a newer certificate should be opened; never without one."""
        ...

    async def settled(self, lane: Lane) -> bool:
        """Returns once all that was sent on a lane has arrived; False: a Resend came first."""
        ...

    async def tell(self, loss: SpoolLoss) -> None:
        """Says which rows will never come; telling twice is harmless.

        Raises:
            UplinkError: the line is down.
        """
        ...

    def acks(self) -> AsyncIterator[Durable | Resend | LineLimits]:
        """What becomes durable after Hello's answer, what is missed, what is to be kept now."""
        ...

    def setpoints(self) -> AsyncIterator[Setpoint | Heartbeat]:
        """What is wished from this site."""
        ...

    async def report(self, report: SetpointReport) -> None:
        """Tells what became of a setpoint."""
        ...
