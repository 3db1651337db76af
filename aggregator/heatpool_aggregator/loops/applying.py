"""What frames of the log do to a shard's state, and what has to be stored because of it.

No I/O here: the effects are collected, and `shard` puts them into the store. Batches of telemetry
are decoded all at once where there are many; one that is out of the ordinary is decoded alone, and
means the same.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from heatpool.errors import WireError
from heatpool.process.journal import facts
from heatpool.sample import RefusedReason, Schema, SiteId
from heatpool.setpoint import SetpointReport
from heatpool_aggregator.core.admission import (
    EVENT_LIMIT_NS,
    HOLD_NS,
    SCHEMAS_LIMIT,
    Fingerprints,
    Key,
    Verdict,
    schema_mistake,
)
from heatpool_aggregator.core.chunk import chunk_of_varints, chunk_to_bytes, rows_from_columns
from heatpool_aggregator.core.layouts import Layout, Layouts, Places, Values, beyond
from heatpool_aggregator.core.live import rank_of, rows_mistake
from heatpool_aggregator.core.quantity import INDEX
from heatpool_aggregator.core.shard_state import Capability, SchemaKey, ShardState
from heatpool_aggregator.loops.correcting import Correcting
from heatpool_aggregator.loops.effects import (
    Effects,
    Unusable,
    asked_after,
    event,
    gap_event,
    reason_of,
    refuse,
    setpoint_event,
)
from heatpool_aggregator.loops.metering import check_registers, take_registers
from heatpool_aggregator.loops.ready import (
    Known,
    Ready,
    chunk_of,
    fits,
    keep_out,
    schema_of,
    values_of_all,
)
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.wire import telemetry
from heatpool_aggregator.wire.bulk import Bulk, Head, bulk_from_bytes
from heatpool_aggregator.wire.control import request_from_bytes
from heatpool_aggregator.wire.messages import BATCH_BYTES_LIMIT, Batch
from heatpool_aggregator.wire.peek import content_crc32

logger = logging.getLogger(__name__)

# Fewer frames than these are decoded sooner one by one.
BULK_COUNT = 20
Kin = tuple[int, int]  # shape and length of batches that are alike
SCHEMAS_KEPT = 4 * SCHEMAS_LIMIT  # of one site, over all lives of its spool
SPOOLS_REMEMBERED = 50_000  # a kilobyte each


class Applying:
    """Applies frames in the order of the log; `asked_w` are the setpoints of the settings."""

    def __init__(
        self,
        state: ShardState,
        *,
        asked_w: Mapping[SiteId, float],
        fingerprints: dict[Key, Fingerprints] | None = None,
    ) -> None:
        self.state = state
        self._asked_w = asked_w
        self._fingerprints = {} if fingerprints is None else fingerprints
        self._layouts = Layouts()
        self._layout_of: dict[SchemaKey, Layout] = {}
        self._known: dict[Key, Known] = {}
        self._schemas_of: dict[SiteId, list[SchemaKey]] = {}
        for key in state.schemas:
            self._schemas_of.setdefault(key[0], []).append(key)
        self._forgotten_count = 0
        self._accept_ready: Callable[[], object] = bool
        self._correcting = Correcting(state, guarded=self._guarded)

    def apply_all(self, frames: Sequence[Frame], effects: Effects) -> None:
        """Takes frames into the state; those that we stumble over are kept aside as malformed."""
        payloads = [frame.payload for frame in frames if frame.kind is FrameKind.TELEMETRY]
        if len(payloads) < BULK_COUNT:
            for frame in frames:
                self.apply(frame, effects)
            return
        bulk = bulk_from_bytes(payloads)
        heads = iter(bulk.heads)
        ready: dict[Kin, list[Ready]] = {}
        self._accept_ready = partial(self._accept, ready, bulk, effects)
        for frame in frames:
            head = next(heads) if frame.kind is FrameKind.TELEMETRY else None
            one = None if head is None else self._quick(frame, head)
            if one is None:
                one = self._ready(frame, head, effects)
            if one is not None:
                ready.setdefault((id(one.layout.shape), one.head.n_rows), []).append(one)
        self._accept_ready()
        self._accept_ready = bool

    def apply(self, frame: Frame, effects: Effects) -> None:
        """Takes one frame into the state; one that we stumble over is kept aside as malformed."""
        self._ready(frame, None, effects)

    def _ready(self, frame: Frame, head: Head | None, effects: Effects) -> Ready | None:
        """Takes one frame in, but for the rows of a batch that is read already."""
        try:
            if head is not None:
                return self._numbered(frame, head, effects)
            self._take(frame, effects)
        except Exception as error:
            self._stumbled(frame, error, effects)
        return None

    def _quick(self, frame: Frame, head: Head) -> Ready | None:
        """The next batch of a known spool, all in order; None, and nothing, if it is not that."""
        site_id = frame.site_id
        known, before = self._known.get((site_id, frame.boot_id)), self.state.clocks.get(site_id)
        if known is None or before is None or self._has_forgotten():
            return None
        if site_id in self.state.courses:
            return None
        layout = known.layouts.get(head.schema_id)
        if layout is None or not fits(head, layout.n_channels):
            return None
        if len(frame.payload) > BATCH_BYTES_LIMIT or not 0 < head.sent_ns < EVENT_LIMIT_NS:
            return None
        clock = before.observed(sent_ns=head.sent_ns, received_ns=frame.received_ns)
        if clock.is_flagged or before.is_flagged or frame.received_ns - head.sent_ns > HOLD_NS:
            return None
        if not known.ranges.follow(frame.seq):
            return None
        self.state.clocks[site_id] = clock
        if mistakes := self.state.own_clock.near(site_id, frame.received_ns):
            self.state.came_right(mistakes)
        known.fingerprints.remember(frame.seq, head.content_crc32)
        return Ready(frame, head, layout, clock)

    def _has_forgotten(self) -> bool:
        """Whether ranges of a spool have been let go, and with them what is known of it."""
        if self.state.ranges.forgotten_count == self._forgotten_count:
            return False
        self._forgotten_count = self.state.ranges.forgotten_count
        self._known.clear()
        return True

    def _stumbled(self, frame: Frame, error: Exception, effects: Effects) -> None:
        # The frame is durable and comes again at each start: it must not end the shard.
        logger.exception(
            "shard.frame_failed",
            extra=facts(site_id=frame.site_id, kind=frame.kind.name.lower(), seq=frame.seq),
        )
        refuse(frame, effects, RefusedReason.MALFORMED, f"a mistake of ours: {error!r}; report it")

    def _take(self, frame: Frame, effects: Effects) -> None:
        if frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
            self._numbered(frame, None, effects)
            return
        act = {
            FrameKind.HELLO: self._hello,
            FrameKind.GAP: self._gap,
            FrameKind.SETPOINT_REPORT: self._setpoint,
        }[frame.kind]
        try:
            act(frame, effects)
        except WireError as error:
            # The door read these before they came in; what it let through is kept for people.
            refuse(frame, effects, RefusedReason.MALFORMED, str(error))

    def _numbered(self, frame: Frame, head: Head | None, effects: Effects) -> Ready | None:
        key = (frame.site_id, frame.boot_id)
        fingerprints = self._fingerprints.get(key)
        if fingerprints is None:
            fingerprints = self._fingerprints[key] = Fingerprints()
            if len(self._fingerprints) > SPOOLS_REMEMBERED:
                del self._fingerprints[next(iter(self._fingerprints))]
        is_repeat = self.state.ranges.verdict(key, frame.seq) is Verdict.REPEAT
        try:
            crc32 = content_crc32(frame.payload) if head is None else head.content_crc32
            if is_repeat and not fingerprints.differs(frame.seq, crc32):
                return None
            if is_repeat:
                raise Unusable(RefusedReason.SEQ_CONFLICT, "the same number had other content")
            self.state.ranges.add(key, frame.seq, frame.seq)
            fingerprints.remember(frame.seq, crc32)
            return self._usable(frame, head, effects)
        except WireError as error:
            refuse(frame, effects, reason_of(error), str(error))
        return None

    def _usable(self, frame: Frame, head: Head | None, effects: Effects) -> Ready | None:
        if len(frame.payload) > BATCH_BYTES_LIMIT:
            text = f"{len(frame.payload)} bytes, allowed is {BATCH_BYTES_LIMIT}"
            raise Unusable(RefusedReason.TOO_LARGE, text)
        if frame.kind is FrameKind.BILLING:
            self._billing(frame, effects)
        elif head is None:
            self._telemetry(frame, effects)
        else:
            if self._is_off(frame, head.sent_ns, effects):
                return None
            layout = self._layout(frame, head.schema_id)
            if fits(head, layout.n_channels):
                return Ready(frame, head, layout, self.state.clocks[frame.site_id])
            self._rows(frame, telemetry.batch_from_bytes(frame.payload), effects)
        return None

    def _telemetry(self, frame: Frame, effects: Effects) -> None:
        batch = telemetry.batch_from_bytes(frame.payload)
        if not self._is_off(frame, batch.sent_ns, effects):
            self._rows(frame, batch, effects)

    def _layout(self, frame: Frame, schema_id: int) -> Layout:
        key = (frame.site_id, frame.boot_id, schema_id)
        schema = schema_of(self.state, frame, schema_id)
        layout = self._layout_of.get(key)
        if layout is None or layout.schema is not schema:
            layout = self._layout_of[key] = self._layouts.of(schema)
        spool = (frame.site_id, frame.boot_id)
        known = self._known.get(spool)
        if known is None:
            ranges, fingerprints = self.state.ranges.of(spool), self._fingerprints[spool]
            known = self._known[spool] = Known(ranges, fingerprints, {})
        known.layouts[schema_id] = layout
        return layout

    def _rows(self, frame: Frame, batch: Batch, effects: Effects) -> None:
        """Rows of one batch, read alone."""
        channels = self._layout(frame, batch.columns.schema_id).schema.channels
        rows = rows_from_columns(batch.columns, channels)
        if mistake := rows_mistake(rows):
            raise Unusable(RefusedReason.OUT_OF_RANGE, mistake)
        end_ns = int(rows.times_ns.max())
        keep_out(frame, self.state.clocks[frame.site_id], end_ns)
        self.state.live.apply(frame.site_id, frame.boot_id, frame.seq, rows)
        self.state.count(frame.site_id, len(rows.times_ns))
        start_ns, blob = int(rows.times_ns.min()), chunk_to_bytes(batch.columns, channels)
        effects.chunks.append(chunk_of(frame, start_ns, end_ns, blob))

    def _accept(self, ready: dict[Kin, list[Ready]], bulk: Bulk, effects: Effects) -> None:
        for alike in ready.values():
            self._accept_all(alike, bulk, effects)
        ready.clear()

    def _accept_all(self, alike: Sequence[Ready], bulk: Bulk, effects: Effects) -> None:
        """Rows of batches of one shape and length; should one stumble, each is read alone."""
        try:
            values = values_of_all(alike, bulk.cells)
            is_beyond = beyond(values, alike[0].layout.shape).tolist()
        except Exception:
            logger.exception("shard.bulk_failed", extra=facts(frames_count=len(alike)))
            is_beyond = [True] * len(alike)
        good = []
        for place, one in enumerate(alike):
            try:
                if is_beyond[place]:
                    self._rows(one.frame, telemetry.batch_from_bytes(one.frame.payload), effects)
                    continue
                frame, head = one.frame, one.head
                keep_out(frame, one.clock, head.end_ns)
                blob = chunk_of_varints(one.layout.names, head[:7])
                self.state.count(frame.site_id, head.n_rows)
                effects.chunks.append(chunk_of(frame, head.start_ns, head.end_ns, blob))
                good.append(place)
            except WireError as error:
                refuse(one.frame, effects, reason_of(error), str(error))
            except Exception as error:
                self._stumbled(one.frame, error, effects)
        if good:
            self._show([alike[place] for place in good], values[good, :, -1])

    def _show(self, good: Sequence[Ready], newest: Values) -> None:
        """Newest rows into live state; times rise in what is decoded at once, so each is a last."""
        cells = [self._cells(one) for one in good]
        self.state.live.apply_newest(
            np.stack(cells),
            newest[:, good[0].layout.shape.places],
            at_ns=np.array([one.head.end_ns for one in good], np.int64),
            rank=np.array([rank_of(one.frame.boot_id, one.frame.seq) for one in good], np.int64),
        )

    def _cells(self, one: Ready) -> Places:
        layout = one.layout
        if layout.cells is None:
            channels = layout.schema.channels
            layout.cells = self.state.live.cells_of(one.frame.site_id, channels)
        return layout.cells

    def _billing(self, frame: Frame, effects: Effects) -> None:
        batch = telemetry.registers_from_bytes(frame.payload)
        if self._is_off(frame, batch.sent_ns, effects):
            return
        check_registers(batch.rows)
        times_ns = [row.event_ns for row in batch.rows] or [0]
        keep_out(frame, self.state.clocks[frame.site_id], max(times_ns))
        take_registers(self.state, frame, batch.rows, effects)

    def _is_off(self, frame: Frame, sent_ns: int, effects: Effects) -> bool:
        """Learns how far the site's clock is off; True: so far that the frame went another way."""
        self._correcting.observe(frame, sent_ns, effects)
        if not self._correcting.is_due(frame, sent_ns):
            return False
        if frame.site_id not in self.state.courses:
            self._accept_ready()  # its course begins with the newest row before
        self._correcting.take(frame, sent_ns, effects)
        return True

    def _guarded(self, frame: Frame, act: Callable[[], None], effects: Effects) -> None:
        """Takes a frame in that came earlier; what is wrong with it is said of it alone."""
        try:
            act()
        except WireError as error:
            refuse(frame, effects, reason_of(error), str(error))
        except Exception as error:
            self._stumbled(frame, error, effects)

    def _hello(self, frame: Frame, effects: Effects) -> None:
        hello = telemetry.hello_from_bytes(frame.payload)
        site = hello.sites[0]
        self.state.capabilities[frame.site_id] = Capability(
            rejection_capacity_w=site.rejection_capacity_w, loop_ids=site.loop_ids
        )
        for number, schema in enumerate(site.schemas, 1):
            # Counted from the newest, as rows of now are packed by it.
            if schema_mistake(schema, place=len(site.schemas) - number):
                continue
            if not self.state.live.has_room_for(frame.site_id, schema.channels):
                continue
            key = (frame.site_id, schema.boot_id, schema.schema_id)
            if self.state.schemas.get(key) == schema:
                self._still_named(key)
                continue
            self._name(key, schema)
            unknown = sorted({c.quantity for c in schema.channels} - INDEX.keys())
            effects.events.append(
                event(
                    frame,
                    "hello",
                    agent_version=hello.agent_version,
                    schema_id=schema.schema_id,
                    stored_not_used=unknown,
                )
            )

    def _name(self, key: SchemaKey, schema: Schema) -> None:
        """Keeps a schema; of a site that names ever new ones, the oldest go."""
        named = self._schemas_of.setdefault(key[0], [])
        if key not in named:
            named.append(key)
        self._forget(key)
        if len(named) > SCHEMAS_KEPT:
            self._forget(named.pop(0))
        self.state.schemas[key] = schema

    def _still_named(self, key: SchemaKey) -> None:
        """What a site names at each hello is in use, however old it is: others go first."""
        named = self._schemas_of[key[0]]
        named.remove(key)
        named.append(key)
        self.state.schemas[key] = self.state.schemas.pop(key)

    def _forget(self, key: SchemaKey) -> None:
        site_id, boot_id, _ = key
        self.state.schemas.pop(key, None)
        self._layout_of.pop(key, None)
        self._known.pop((site_id, boot_id), None)

    def _gap(self, frame: Frame, effects: Effects) -> None:
        gap = telemetry.gap_from_bytes(frame.payload)
        self.state.ranges.add((frame.site_id, gap.boot_id), gap.first_seq, gap.last_seq)
        effects.events.append(gap_event(frame, gap))

    def _setpoint(self, frame: Frame, effects: Effects) -> None:
        report = request_from_bytes(frame.payload)
        if not isinstance(report, SetpointReport):
            raise WireError("this is no report of a setpoint")
        before = self.state.asked.get(frame.site_id)
        if before is not None and report.setpoint_seq < before.setpoint_seq:
            return
        self.state.asked[frame.site_id] = asked = asked_after(
            report, before, wish_w=self._asked_w.get(report.site_id)
        )
        if before is None or (before.setpoint_seq, before.state) != (
            asked.setpoint_seq,
            asked.state,
        ):
            effects.events.append(setpoint_event(report, wish_w=asked.heat_rate_w))
