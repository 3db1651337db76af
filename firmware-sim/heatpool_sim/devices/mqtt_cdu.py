"""A coolant unit that publishes its figures by MQTT, as its maker's manual lays them out.

`BASE/telemetry` is one JSON document with its time, `BASE/heat_kwh` the heat removed since its
start as bare text with a comma, `BASE/state` says `online`, or the broker for it `offline` (last
will). All retained, QoS 1. Faults of its speech: `offline`, `mqtt_retained_old` (yesterday's
figures), `mqtt_duplicate` (everything twice), `mqtt_text` (no figures), `mqtt_will` (vanished).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from amqtt.broker import Broker
from amqtt.errors import BrokerError

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.mqtt_publisher import Publisher, Will
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.ports import LOOPBACK, Address, Twin

BASE = "site/cdu"
_SILENT = frozenset({"offline", "cdu_offline"})
_OLD = timedelta(days=1)
_RETRY_S = 0.05
_LAST_LOOKS = 50
_L_MIN_PER_M3_H = 1000.0 / 60.0
_J_PER_WH, _WH_SHOWN = 3600.0, 1000.0  # the display counts thousands of Wh
_NS = 1_000_000_000
_PLUGIN = "amqtt.plugins.authentication.AnonymousAuthPlugin"


class MqttCdu:
    """One unit; `broker` is where it publishes, none for a broker of its own in this process."""

    def __init__(
        self, *, port: int = 0, broker: Address | None = None, base: str = BASE, period_s: float = 1
    ) -> None:
        self._port = port
        self._broker = broker
        self._base = base
        self._period_s = period_s
        self._heat_j = 0.0
        self._last_ns: int | None = None
        self.published_count = 0

    @asynccontextmanager
    async def serve(self, plant: Twin) -> AsyncIterator[Address]:
        """Publishes for as long as the context is open, and gives the broker's address.

        Raises:
            HeatpoolError: the port is taken.
        """
        async with AsyncExitStack() as stack:
            broker = self._broker
            if broker is None:
                broker = await stack.enter_async_context(_broker(self._port))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            speech = tasks.create_task(self._speak(plant, broker), name="mqtt_cdu.speak")
            try:
                yield broker
            finally:
                speech.cancel()

    async def _speak(self, plant: Twin, broker: Address) -> None:
        """Connects again for ever, as a controller does."""
        while True:
            try:
                await self._session(plant, broker)
            except (OSError, TimeoutError, HeatpoolError):
                pass
            await asyncio.sleep(_RETRY_S)

    async def _session(self, plant: Twin, broker: Address) -> None:
        """One connection, until it breaks or a fault takes it."""
        if "mqtt_will" in plant.faults:
            return
        state = f"{self._base}/state"
        publisher = await Publisher.connected(
            broker.host,
            broker.port,
            client_id=self._base.replace("/", "-"),
            will=Will(topic=state, payload=b"offline"),
        )
        try:
            await publisher.publish(state, b"online")
            while "mqtt_will" not in plant.faults:
                await self._figures(publisher, plant)
                await asyncio.sleep(self._period_s)
        finally:
            await publisher.vanish()

    async def _figures(self, publisher: Publisher, plant: Twin) -> None:
        faults = plant.faults
        if faults & _SILENT:
            return
        times = 2 if "mqtt_duplicate" in faults else 1
        shown = plant.gauges()
        for name, payload in (
            ("telemetry", json.dumps(telemetry(shown, faults=faults)).encode()),
            ("heat_kwh", self._heat(shown, faults=faults)),
        ):
            await publisher.publish(f"{self._base}/{name}", payload, times=times)
        self.published_count += 1

    def _heat(self, shown: Gauges, *, faults: frozenset[str]) -> bytes:
        """Heat removed since the start, kWh with two places behind a comma."""
        if self._last_ns is not None:
            self._heat_j += shown.reported_heat_w * max(shown.at_ns - self._last_ns, 0) / _NS
        self._last_ns = shown.at_ns
        if "mqtt_text" in faults:
            return b"n/a"
        return f"{max(self._heat_j, 0.0) / _J_PER_WH / _WH_SHOWN:.2f}".replace(".", ",").encode()


def telemetry(shown: Gauges, *, faults: frozenset[str] = frozenset()) -> Mapping[str, Any]:
    """The document of one moment, in the cooling loop's words: supply is the cold pipe."""
    moment = datetime.fromtimestamp(shown.at_ns // _NS, UTC) + timedelta(
        microseconds=shown.at_ns % _NS // 1000
    )
    if "mqtt_retained_old" in faults:
        moment -= _OLD
    figures: dict[str, Any] = {
        "supply_c": round(shown.cold_c, 2),
        "return_c": round(shown.hot_c, 2),
        "flow_l_min": round(shown.volume_flow_m3_h * _L_MIN_PER_M3_H, 3),
    }
    unit: dict[str, Any] = {
        "pump_percent": round(shown.pump_frac * 100.0, 1),
        "heat_kw": f"{shown.reported_heat_w / 1000.0:.3f}",
        "rack_w": round(shown.rack_electric_w),
        "leak": shown.has_leak,
    }
    if "mqtt_text" in faults:
        figures = dict.fromkeys(figures, "n/a")
        unit = dict.fromkeys(unit, "n/a")
    return {
        "time": moment.isoformat(),
        "loops": [figures],
        "unit": unit,
    }


class _Broker(Broker):  # type: ignore[misc]  # the library leaves its types untold
    """The library's broker, which leaves a connection open when its client was quicker to go."""

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """One client, until it has left."""
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            writer.close()


@asynccontextmanager
async def _broker(port: int) -> AsyncIterator[Address]:
    """A broker in this process, open to everybody on loopback."""
    door = {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}
    settings = {
        "listeners": {"default": door},
        "plugins": {_PLUGIN: {"allow_anonymous": True}},
    }
    broker = _Broker(settings)
    try:
        await broker.start()
    except BrokerError as error:
        raise HeatpoolError(f"port {port} on {LOOPBACK} is taken; free it or give 0") from error
    # The library tells the port and the connections of a listener nowhere else.
    listener = broker._servers["default"]
    try:
        yield Address(host=LOOPBACK, port=int(listener.instance.sockets[0].getsockname()[1]))
    finally:
        # Those who hung up before are let go first; the library forgets them otherwise.
        for _ in range(_LAST_LOOKS):
            if not listener.conn_count:
                break
            await asyncio.sleep(0.01)
        await broker.shutdown()
