"""The controller of a server that speaks IPMI over LAN (RMCP+): the server's power by DCMI,
and its supplies as sensors.

The messages are pyghmi's. Its own loop, a thread that never ends, is not used: datagrams come and
go by the event loop here. It answers one cipher suite, 3, and stays silent to strangers. Faults of
its speech are `plant.faults.IPMI` and `offline`.
"""

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private.session import Session

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.ipmi_sdr import LIST, SENSOR, sdr_answer
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.ports import LOOPBACK, Address, Twin

CIPHER = 3
_DCMI, _GROUP = 0x2C, 0xDC
_CAPABILITIES, _POWER_READING = 0x01, 0x02
_INVALID_COMMAND, _INVALID_LENGTH, _INVALID_FIELD = 0xC1, 0xC7, 0xCC
_ACTIVE = 0x40
_NS_PER_S = 1_000_000_000
# Eight days: a mean over that long says nothing of now.
_SAMPLED_S = 700_000
_MEAN_FRAC, _LEAST_FRAC, _MOST_FRAC = 0.93, 0.74, 1.6
# A clock that started at its maker's and was never set.
_WRONG_S = 1_470_000_000
_MOST_W = 0xFFFF
# The library forgets no session by itself; real controllers have four or so.
_PEERS_MOST = 16
# Something else answers at the port.
_PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
# All that this needs to know of a session: authentication for IPMI 2 only, on channel 1.
_ABILITIES = bytes((0, 1, 0x80, 0x04, 0x02, 0, 0, 0, 0))


class IpmiBmc:
    """One controller behind its own UDP port; it lets in one account."""

    def __init__(
        self, *, port: int = 0, user: str = "agent", password: str = "wort", slow_s: float = 30.0
    ) -> None:
        self._port = port
        self._account = {user: password}
        self._slow_s = slow_s
        # Datagrams and answered commands so far.
        self.datagrams = 0
        self.commands = 0
        self.heard = asyncio.Event()

    @asynccontextmanager
    async def serve(self, plant: Twin) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, door = await loop.create_datagram_endpoint(
                lambda: _Door(self, plant), local_addr=(LOOPBACK, self._port)
            )
        except OSError as error:
            told = f"port {self._port} on {LOOPBACK} is taken; free it or give 0"
            raise HeatpoolError(told) from error
        try:
            yield Address(host=LOOPBACK, port=door.open(transport))
        finally:
            await door.close()

    @property
    def account(self) -> dict[str, str]:
        """Who is let in, with the password."""
        return self._account

    @property
    def slow_s(self) -> float:
        """How long a slow answer takes, s."""
        return self._slow_s


class _Door(asyncio.DatagramProtocol):
    """Datagrams in and out; to pyghmi it is a socket."""

    def __init__(self, bmc: IpmiBmc, plant: Twin) -> None:
        self._bmc = bmc
        self._plant = plant
        # In the order in which they came; each question of ipmitool comes from a port of its own.
        self._peers: dict[tuple[str, int], None] = {}
        self._late: set[asyncio.TimerHandle] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._port = 0
        self._server: Any = None
        self._ended = asyncio.Event()

    def open(self, transport: asyncio.DatagramTransport) -> int:
        """From now on datagrams are answered; the port."""
        self._transport = transport
        self._port = int(transport.get_extra_info("sockname")[1])
        self._server = _Server(self, self._bmc, self._plant, self._port)
        return self._port

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._bmc.datagrams += 1
        self._bmc.heard.set()
        if self._server is None or "offline" in self._plant.faults or len(data) < 4:
            return
        self._peers.setdefault(addr)
        if len(self._peers) > _PEERS_MOST:
            self._forget(next(iter(self._peers)))
        session = Session.bmc_handlers.get(addr, {}).get(self._port)
        # The shape of what the library's own thread hands on: data, peer, our side, whether known.
        packet = (data, addr, self, session is not None)
        receiver = session or self._server
        receiver.pktqueue.append(packet)
        receiver.process_pktqueue()

    def setblocking(self, flag: int) -> None:
        """Nothing: what is sent here never blocks."""

    def sendto(self, packet: bytes, addr: tuple[str, int]) -> None:
        """Sends, later where the controller is slow."""
        if self._transport is None or "offline" in self._plant.faults:
            return
        packet = _PAGE if "ipmi_garbled" in self._plant.faults else bytes(packet)
        if "ipmi_slow" not in self._plant.faults:
            self._transport.sendto(packet, addr)
            return
        late = asyncio.get_running_loop().call_later(
            self._bmc.slow_s, self._transport.sendto, packet, addr
        )
        self._late.add(late)

    def _forget(self, peer: tuple[str, int]) -> None:
        del self._peers[peer]
        # Another controller of this process may have a session with the same peer.
        sessions = Session.bmc_handlers.get(peer, {})
        sessions.pop(self._port, None)
        if not sessions:
            Session.bmc_handlers.pop(peer, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    async def close(self) -> None:
        """Ends, the port is free again; the library keeps nothing of this controller."""
        for late in self._late:
            late.cancel()
        for peer in list(self._peers):
            self._forget(peer)
        Session.bmc_handlers.pop(self, None)
        if self._transport is not None:
            self._transport.close()
            await self._ended.wait()


class _Server(Bmc):  # type: ignore[misc]  # the library tells no types
    """The library's controller without the library's thread, with DCMI and sensors."""

    def __init__(self, door: _Door, bmc: IpmiBmc, plant: Twin, port: int) -> None:
        # Not the parent's: that one opens a socket and starts a thread that nothing ends.
        self.revision = self.deviceid = self.additionaldevices = 0
        self.firmwaremajor, self.firmwareminor, self.ipmiversion = 1, 0, 2
        self.mfgid = self.prodid = 0
        self.uuid = UUID(int=1)
        self.authdata = bmc.account
        self.authcap = _ABILITIES
        self.kg = None
        self.port = port
        self.serversocket = door
        self.pktqueue: deque[tuple[Any, ...]] = deque()
        self._bmc = bmc
        self._plant = plant
        Session.bmc_handlers[door] = {0: self}

    def get_power_state(self) -> str:
        """A simulated server runs."""
        return "on"

    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        """Answers one command of a session."""
        self._bmc.commands += 1
        netfn, command, asked = request["netfn"], request["command"], bytes(request["data"])
        gauges = self._plant.gauges()
        if netfn == _DCMI:
            code, data = dcmi_answer(command, asked, gauges=gauges, faults=self._plant.faults)
        elif netfn in (LIST, SENSOR):
            code, data = sdr_answer(netfn, command, asked, gauges=gauges)
        else:
            super().handle_raw_request(request, session)
            return
        session.send_ipmi_response(data=data, code=code)


def dcmi_answer(
    command: int, data: bytes, *, gauges: Gauges, faults: frozenset[str]
) -> tuple[int, bytes]:
    """Completion code, and what follows it, for one DCMI command."""
    if not data or data[0] != _GROUP:
        return _INVALID_COMMAND, b""
    if command == _CAPABILITIES:
        # DCMI 1.5, power is measured, over LAN and from inside.
        return 0, bytes((_GROUP, 1, 5, 2, 0, 1, 7))
    if command != _POWER_READING:
        return _INVALID_COMMAND, bytes((_GROUP,))
    if len(data) != 4:
        return _INVALID_LENGTH, bytes((_GROUP,))
    if data[1] != 1:
        return _INVALID_FIELD, bytes((_GROUP,))
    return 0, power_reading(gauges, faults)


def power_reading(gauges: Gauges, faults: frozenset[str]) -> bytes:
    """The power reading after its completion code: DCMI 1.5, table 6-16."""
    is_active = "ipmi_not_activated" not in faults
    power_w = gauges.server.shown.electric_w if is_active else 0.0
    scale = _mixed(power_w) if "ipmi_mw_mix" in faults else 1.0
    now_s = _WRONG_S if "ipmi_wrong_clock" in faults else gauges.at_ns // _NS_PER_S
    watts = (power_w * frac * scale for frac in (1.0, _LEAST_FRAC, _MOST_FRAC, _MEAN_FRAC))
    return struct.pack(
        "<B4HIIB",
        _GROUP,
        *(min(round(w), _MOST_W) for w in watts),
        now_s & 0xFFFF_FFFF,
        _SAMPLED_S * 1000,
        _ACTIVE if is_active else 0,
    )


def _mixed(power_w: float) -> float:
    """Watts for milliwatts, or the other way where that would not fit into 16 bits."""
    return 1000.0 if power_w * 1000.0 * _MOST_FRAC <= _MOST_W else 0.001
