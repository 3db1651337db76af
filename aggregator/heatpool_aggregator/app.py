"""Composition root: opens log, store, doors and loops, runs them, and closes in reverse."""

import asyncio
import gc
import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config, TlsFiles, state_dir, tls_files
from heatpool_aggregator.core.arbitration import Standing
from heatpool_aggregator.core.quotas import Quota
from heatpool_aggregator.exports import prometheus
from heatpool_aggregator.identity import authority
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.identity.places import places
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.loops.control import Control, Record
from heatpool_aggregator.loops.cut_off import CutOff
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.loops.order_book import OrderBook
from heatpool_aggregator.loops.order_trail import OrderTrail
from heatpool_aggregator.loops.planner import Planner
from heatpool_aggregator.loops.renewal import Renewal
from heatpool_aggregator.loops.shard import Shard
from heatpool_aggregator.ports import Audit, Clock, Frame, Identities, Partition, Store
from heatpool_aggregator.rpc import command, query, registry
from heatpool_aggregator.rpc.certificate import Context
from heatpool_aggregator.rpc.control import ControlService
from heatpool_aggregator.rpc.guard import Guard
from heatpool_aggregator.rpc.server import check_listen, check_loopback, listening, make_server
from heatpool_aggregator.rpc.telemetry import TelemetryService
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.rpc.tls import ServerTls
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities
from heatpool_aggregator.web.app import serve
from heatpool_aggregator.web.secured import Secured
from heatpool_aggregator.wire.messages import MessageKind, Peek, Refusal

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Stopping may take ten seconds in all; a disk that does not answer must not take them.
FINISH_S = 6.0
# Refusals on their way from shard to gateway; what falls out is an event in the store.
REFUSALS_LIMIT = 10_000
# Nothing that was made at start is garbage; collecting it costs a quarter of the time per message.
# What waits to be read on each stream is new each time, and none of it garbage: 30 ms to look at.
GC_THRESHOLDS = (200_000, 5, 1_000)


class SystemClock:
    """The clocks of this machine."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot; no clock step touches it."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may come in, and by what; `files` is None without TLS, `joining` without a CA here."""

    identities: Identities
    audit: Audit
    guard: Guard
    files: TlsFiles | None
    tls: ServerTls | None
    joining: Joining | None
    renewal: Renewal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the aggregator runs on."""

    config: Config
    board: Board
    clock: Clock
    store: Store
    gateway: Gateway
    shard: Shard
    control: Control
    book: OrderBook
    trail: OrderTrail
    cut_off: CutOff
    planner: Planner
    access: Access


async def run(config: Config, *, environ: Mapping[str, str], ready_file: Path | None) -> None:
    """The service, until TERM or INT; then everything is flushed within ten seconds.

    Raises:
        HeatpoolError: it cannot start.
    """
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(config, state_dir(config, environ)) as addresses:
        if ready_file is not None:
            await asyncio.to_thread(_tell_ready, ready_file, addresses)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        await stop.wait()
        logger.info("aggregator.stopping")
    logger.info("aggregator.stopped")


@asynccontextmanager
async def serving(
    config: Config, directory: Path, clock: Clock | None = None
) -> AsyncIterator[Mapping[str, str]]:
    """The addresses of a running aggregator; leaving flushes everything and stops it."""
    files = tls_files(config, directory)
    check_address = check_listen if files else check_loopback
    check_address(config.listen.grpc)
    async with AsyncExitStack() as stack:
        parts = await _opened(config, directory, stack, clock or SystemClock())
        async with asyncio.TaskGroup() as loops:
            works = _works(parts).items()
            tasks = [loops.create_task(work, name=name) for name, work in works]
            try:
                async with _doors(parts) as addresses:
                    yield addresses
            finally:
                for task in tasks:
                    task.cancel()
        await _finish(parts)


async def _opened(config: Config, directory: Path, stack: AsyncExitStack, clock: Clock) -> Parts:
    board, refusals = Board(), deque[Refusal](maxlen=REFUSALS_LIMIT)
    log = await stack.enter_async_context(open_log(config.state.log, directory))
    store = await stack.enter_async_context(open_store(config.state.store, directory))
    partition = await stack.enter_async_context(log.partition(0))
    await _begin_anew(partition, store)
    access = await _access(config, directory, stack, board=board, clock=clock)
    gateway = Gateway(
        log=log,
        clock=clock,
        board=board,
        refusals=refusals,
        quotas=_quotas(config),
        owner_of=access.identities.owner_of,
    )
    await gateway.load(partition)
    shard = Shard(
        partition=partition,
        store=store,
        board=board,
        clock=clock,
        config=config,
        refusals=refusals,
        fingerprints=gateway.fingerprints,
        told_wait=gateway.admitting.pressure.applied_after,
    )

    trail = await _trail(access.audit, clock, board)
    book = OrderBook(store, trail)
    control = await _control(config, clock, gateway=gateway, book=book, shard=shard)
    return Parts(
        config=config,
        board=board,
        clock=clock,
        store=store,
        gateway=gateway,
        shard=shard,
        control=control,
        book=book,
        trail=trail,
        cut_off=_cut_off(access, control, clock),
        planner=Planner(config, store, board, clock, is_clock_suspect=shard.is_clock_suspect),
        access=access,
    )


async def _control(
    config: Config, clock: Clock, *, gateway: Gateway, book: OrderBook, shard: Shard
) -> Control:
    control = Control(
        standing=_standing(config),
        clock=clock,
        record=_recorder(gateway),
        book=book,
        last_seq=lambda site_id: _last_seq(shard, site_id),
    )
    await control.restore()
    return control


def _recorder(gateway: Gateway) -> Record:
    async def record(frame: Frame) -> bool:
        return await gateway.put(Peek(kind=MessageKind.HELLO), frame, None)

    return record


async def _trail(audit: Audit, clock: Clock, board: Board) -> OrderTrail:
    trail = OrderTrail(audit=audit, clock=clock, note=lambda error: board.note_disk("audit", error))
    await trail.restore()
    return trail


def _cut_off(access: Access, control: Control, clock: Clock) -> CutOff:
    return CutOff(identities=access.identities, control=control, audit=access.audit, clock=clock)


async def _begin_anew(partition: Partition, store: Store) -> None:
    """A store that was made anew is filled from the log; what that has no more the sites send."""
    if partition.snapshot is not None and await store.is_new():
        logger.warning("aggregator.store_anew", extra=facts(position=partition.snapshot.position))
        partition.snapshot = None


def _quotas(config: Config) -> dict[str, Quota]:
    return {
        tenant.id: Quota(streams=tenant.streams, batches_s=tenant.batches_s, bytes_s=tenant.bytes_s)
        for tenant in config.tenant
    }


async def _access(
    config: Config, directory: Path, stack: AsyncExitStack, *, board: Board, clock: Clock
) -> Access:
    files, trust_domain = tls_files(config, directory), config.tls.trust_domain
    identities = await stack.enter_async_context(
        open_identities(directory, trust_domain=trust_domain, clock=clock)
    )
    audit = await stack.enter_async_context(open_audit(directory))
    guard = Guard(
        identities=identities,
        audit=audit,
        clock=clock,
        turned_away=board.turned_away,
        trust_domain=trust_domain if files else None,
        members=_members(config),
    )
    ca = await asyncio.to_thread(_own_ca, files, directory) if files else None
    joining = renewal = None
    if ca is not None:
        renewal = Renewal(ca=ca, files=places(directory), audit=audit, clock=clock)
        joining = Joining(
            authority=ca,
            identities=identities,
            audit=audit,
            clock=clock,
            trust_domain=trust_domain,
            site_life=timedelta(seconds=config.tls.site_life_s),
        )
    return Access(
        identities=identities,
        audit=audit,
        guard=guard,
        files=files,
        tls=ServerTls(files, board.turned_away) if files else None,
        joining=joining,
        renewal=renewal,
    )


def _last_seq(shard: Shard, site_id: SiteId) -> int:
    asked = shard.state.asked.get(site_id)
    return 0 if asked is None else asked.setpoint_seq


def _members(config: Config) -> frozenset[SiteId]:
    return frozenset(
        SiteId(member.site_id) for source in config.virtual_source for member in source.member
    )


def _own_ca(files: TlsFiles, directory: Path) -> authority.Authority | None:
    """The CA that `init` made; None: callers have their certificates from elsewhere."""
    own = places(directory)
    return authority.load(own) if files.ca == own.ca and own.ca_key.exists() else None


def _standing(config: Config) -> list[Standing]:
    return [
        Standing(
            site_id=SiteId(wish.site_id),
            heat_rate_w=wish.heat_rate_w,
            lease_s=wish.lease_s,
            reason=wish.reason,
        )
        for wish in config.setpoint
    ]


def _works(parts: Parts) -> dict[str, Coroutine[None, None, None]]:
    works = {
        "gateway": parts.gateway.run(),
        "shard": parts.shard.run(),
        "control": parts.control.run(),
        "planner": parts.planner.run(),
        "guard": parts.access.guard.run(),
        "order_trail": parts.trail.run(),
        "cut_off": parts.cut_off.run(),
    }
    if parts.access.renewal is not None:
        works["renewal"] = parts.access.renewal.run()
    return works


@asynccontextmanager
async def _doors(parts: Parts) -> AsyncIterator[Mapping[str, str]]:
    config, board, store = parts.config, parts.board, parts.store
    guard = parts.access.guard

    async def admit_to_orders(context: Context, site_ids: Sequence[SiteId]) -> None:
        await guard.admit(context, site_ids)
        # A site that was revoked and joined anew a moment ago must not hear its old order.
        await parts.cut_off.step()

    server = make_server(
        TelemetryService(parts.gateway.open, guard.admit),
        ControlService(parts.control, admit_to_orders, boot_ns=parts.clock.boot_ns),
        guard,
    )
    tenants = Tenants(guard, parts.access.identities)
    query.add_to(server, query.Query(board, store, config, tenants))
    registry.add_to(server, registry.Registry(board, config, tenants, parts.access.joining))
    command.add_to(
        server,
        command.Command(
            orders=parts.control,
            book=parts.book,
            board=board,
            audit=parts.access.audit,
            clock=parts.clock,
            tenants=tenants,
        ),
    )
    async with (
        listening(server, config.listen.grpc, parts.access.tls) as grpc_address,
        serve(
            config,
            board,
            store,
            parts.clock,
            render_metrics=prometheus.render,
            secured=_secured(parts, grpc_address),
        ) as http,
    ):
        logger.info(
            "aggregator.ready",
            extra=facts(grpc=grpc_address, http=http, tls="on" if parts.access.files else "off"),
        )
        yield {"grpc": grpc_address, "http": http}


def _secured(parts: Parts, grpc_address: str) -> Secured | None:
    """What HTTPS needs; None: there is no TLS."""
    if parts.access.files is None:
        return None
    return Secured(
        files=parts.access.files,
        identities=parts.access.identities,
        audit=parts.access.audit,
        joining=parts.access.joining,
        grpc_address=grpc_address,
    )


def _tell_ready(path: Path, addresses: Mapping[str, str]) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
    aside.replace(path)


async def _finish(parts: Parts) -> None:
    """What streams still brought goes into the log, what is in the log into the store."""
    try:
        async with asyncio.timeout(FINISH_S):
            await parts.gateway.step()
            await parts.shard.finish()
            await parts.trail.flush()
    except (TimeoutError, HeatpoolError) as error:
        reason = str(error) or f"not finished within {FINISH_S:g} s"
        logger.error("aggregator.unfinished", extra=facts(reason=reason))
