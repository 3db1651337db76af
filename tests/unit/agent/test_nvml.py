"""NVIDIA cards through the real bindings and a stub of the driver's library, compiled here.

The stub answers from a text file, one line per card, and writes down each call it gets.
"""

import asyncio
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.sensors import nvml

STUB_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned field, scope; long long at, latency; int type, ret;
                 union { double d; unsigned u; unsigned long ul; unsigned long long ull; } value;
               } field_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci_t;
typedef struct { char bus_id[32], name[64], value[3][32], usage[32]; } card_t;

static void note(const char *call) {
    FILE *log = fopen(getenv("STUB_CALLS"), "a");
    if (log) { fprintf(log, "%s\n", call); fclose(log); }
}
static int cards(card_t *out) {
    int n = 0;
    FILE *file = fopen(getenv("STUB_CARDS"), "r");
    while (file && n < 8 && fscanf(file, "%31s %63s %31s %31s %31s %31s", out[n].bus_id,
           out[n].name, out[n].value[0], out[n].value[1], out[n].value[2], out[n].usage) == 6) n++;
    if (file) fclose(file);
    return n;
}
static card_t *card(void *handle) {
    static card_t all[8];
    int n = cards(all);
    return (long)handle <= n ? &all[(long)handle - 1] : 0;
}
int nvmlInitWithFlags(unsigned flags) {
    note(flags == 2 ? "init" : "init-attaching");
    return getenv("STUB_REFUSES") ? 9 : 0;
}
int nvmlShutdown(void) { note("shutdown"); return 0; }
const char *nvmlErrorString(int ret) { return ret == 9 ? "Driver Not Loaded" : "stub error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { card_t all[8]; note("count"); *n = cards(all); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { *h = (void *)(long)(i + 1); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **h) {
    card_t all[8]; int n = cards(all); note("handle");
    for (int i = 0; i < n; i++)
        if (strstr(all[i].bus_id, id)) { *h = (void *)(long)(i + 1); return 0; }
    return 6;
}
int nvmlDeviceGetPciInfo_v3(void *h, pci_t *out) {
    memset(out, 0, sizeof *out); strcpy(out->bus_id, card(h)->bus_id); return 0;
}
int nvmlDeviceGetName(void *h, char *out, unsigned n) {
    note("name"); strncpy(out, card(h)->name, n); return 0;
}
int nvmlDeviceGetPowerUsage(void *h, unsigned *out) {
    note("usage");
    if (card(h)->usage[0] == '-') return 3;
    *out = strtoul(card(h)->usage, 0, 10); return 0;
}
int nvmlDeviceGetFieldValues(void *h, int n, field_t *out) {
    note("fields");
    card_t *c = card(h);
    if (!c || !strcmp(c->name, "lost")) return 15;
    for (int i = 0; i < n; i++) {
        const char *text = c->value[out[i].field == 83 ? 0 : out[i].field == 185 ? 1 : 2];
        out[i].ret = text[0] == '-' ? 3 : 0;
        out[i].type = out[i].field == 83 ? 3 : 1;
        out[i].value.ull = strtoull(text, 0, 10);
    }
    return 0;
}
"""
# Idle and full power as an exporter published them for an H100; its energy is ours.
H100 = "0000:3b:00.0 H100 5000123 69850 69620 69900"
ADDRESS = "0000:3b:00.0"


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stub of the NVIDIA library")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "stub.c").write_text(STUB_C, encoding="ascii")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, folder / "stub.c"], check=True, timeout=60
    )
    return library


class Driver:
    """The stub's cards and the calls it got."""

    def __init__(self, folder: Path) -> None:
        self.cards, self._calls = folder / "cards", folder / "calls"

    def show(self, *lines: str) -> None:
        self.cards.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def calls(self) -> list[str]:
        return self._calls.read_text(encoding="ascii").split() if self._calls.exists() else []


@pytest.fixture
def driver(
    machine: Any, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Driver]:
    monkeypatch.setenv("STUB_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    machine.nvml = str(stub)
    yield Driver(tmp_path)


def plug(machine: Any, address: str, status: str) -> None:
    place = f"sys/bus/pci/devices/{address}"
    machine.write(place, {"vendor": "0x10de", "class": "0x030200"})
    machine.write(f"{place}/power", {"runtime_status": status})


async def test_the_energy_counter_comes_first_and_power_beside_it(
    machine: Any, driver: Driver
) -> None:
    driver.show(H100)
    energy, power = await machine.sense(nvml, "nvml")
    assert (energy.channel, energy.node) == (f"nvml/{ADDRESS}", Node.GPU)
    assert (energy.quantity, energy.kind) == ("energy_j", ReadingKind.COUNTER)
    assert (energy.raw, energy.exponent, energy.value) == (5_000_123, -3, 5_000.123)
    assert (power.quantity, power.value, power.flags) == ("power_w", 69.85, ("field:185",))
    assert {energy.label, power.label} == {"H100"}


@pytest.mark.parametrize(
    ("card", "power_w", "flags"),
    [
        ("- 69850 69620 1", 69.85, ("field:185",)),
        ("- - 69620 1", 69.62, ("field:186",)),
        ("- - - 26780", 26.78, ("power_usage",)),
        # Blanks of both widths are no values.
        ("9223372036854775797 2147483637 69620 1", 69.62, ("field:186",)),
        ("- 4294967295 2147483647 2147483632", None, ()),
        # Cards that never had a sensor.
        ("- - - -", None, ()),
        ("- 0 1 1", 0.0, ("field:185",)),
    ],
)
async def test_power_names_the_field_that_answered_and_blanks_are_absent(
    machine: Any, driver: Driver, card: str, power_w: float | None, flags: tuple[str, ...]
) -> None:
    driver.show(f"{ADDRESS} some {card}")
    readings = await machine.sense(nvml, "nvml")
    assert [(r.value, r.flags) for r in readings] == [(power_w, flags)] * (power_w is not None)


async def test_a_sleeping_card_gets_no_call_at_all(machine: Any, driver: Driver) -> None:
    driver.show(H100)
    plug(machine, ADDRESS, "suspended")
    [reading] = await machine.sense(nvml, "nvml")
    assert (reading.quantity, reading.kind) == ("is_suspended", ReadingKind.STATE)
    assert reading.channel == f"nvml/{ADDRESS}"
    assert driver.calls() == []


async def test_only_the_waking_card_is_asked_and_none_is_attached_unasked(
    machine: Any, driver: Driver
) -> None:
    driver.show(H100, "0000:5e:00.0 T4 - 26780 - -")
    plug(machine, ADDRESS, "suspended")
    plug(machine, "0000:5e:00.0", "active")
    readings = await machine.sense(nvml, "nvml")
    assert [(r.quantity, r.value) for r in readings] == [("is_suspended", 1.0), ("power_w", 26.78)]
    assert driver.calls() == ["init", "handle", "fields", "name", "shutdown"]


async def test_the_library_is_shut_while_all_cards_sleep_and_comes_back(
    machine: Any, driver: Driver
) -> None:
    driver.show(H100)
    plug(machine, ADDRESS, "active")
    async with nvml.open(nvml.Config(id="g", kind="nvml"), machine.roots(), machine) as sensor:
        assert len(await sensor.read()) == 2
        plug(machine, ADDRESS, "suspended")
        assert [r.quantity for r in await sensor.read()] == ["is_suspended"]
        assert driver.calls()[-1] == "shutdown"
        plug(machine, ADDRESS, "active")
        assert len(await sensor.read()) == 2


async def test_another_makers_card_and_a_cards_sound_are_not_ours(
    machine: Any, driver: Driver
) -> None:
    driver.show(H100)
    plug(machine, ADDRESS, "suspended")
    machine.write("sys/bus/pci/devices/0000:3b:00.1", {"vendor": "0x10de", "class": "0x040300"})
    machine.write("sys/bus/pci/devices/0000:00:02.0", {"vendor": "0x8086", "class": "0x030000"})
    assert [r.channel for r in await machine.sense(nvml, "nvml")] == [f"nvml/{ADDRESS}"]


async def test_a_lost_card_takes_no_other_with_it(machine: Any, driver: Driver) -> None:
    driver.show("0000:01:00.0 lost - - - -", H100)
    readings = await machine.sense(nvml, "nvml")
    assert {r.channel for r in readings} == {f"nvml/{ADDRESS}"}


async def test_a_removed_card_gives_no_reading(machine: Any, driver: Driver) -> None:
    driver.show(H100)
    plug(machine, ADDRESS, "active")
    plug(machine, "0000:99:00.0", "active")
    readings = await machine.sense(nvml, "nvml")
    assert {r.channel for r in readings} == {f"nvml/{ADDRESS}"}


async def test_a_refusing_driver_is_told_with_its_cure(
    machine: Any, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_REFUSES", "1")
    with pytest.raises(SensorGone, match="Driver Not Loaded") as caught:
        await machine.sense(nvml, "nvml")
    assert "driver" in caught.value.fix


async def test_cards_without_a_library_are_told_with_their_cure(machine: Any) -> None:
    plug(machine, ADDRESS, "active")
    machine.nvml = str(machine.folder / "libnvidia-ml.so.1")
    with pytest.raises(SensorGone, match="does not load") as caught:
        await machine.sense(nvml, "nvml")
    assert "[roots].nvml" in caught.value.fix


async def test_a_named_library_that_is_missing_is_told(machine: Any) -> None:
    machine.nvml = str(machine.folder / "nothing.so")
    with pytest.raises(SensorGone, match="does not load"):
        await machine.sense(nvml, "nvml")


async def test_a_hanging_call_is_left_alone_and_no_second_one_started(
    machine: Any, driver: Driver
) -> None:
    driver.show(H100)
    ready = driver.cards.rename(driver.cards.with_name("ready"))
    async with nvml.open(nvml.Config(id="g", kind="nvml"), machine.roots(), machine) as sensor:
        # The stub waits on this pipe as a driver would wait on its firmware.
        os.mkfifo(driver.cards)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sensor.read()
        with pytest.raises(SensorBusy):
            await sensor.read()
        pipe = os.open(driver.cards, os.O_WRONLY)
        ready.replace(driver.cards)
        os.close(pipe)
        async with asyncio.timeout(5):
            assert sensor._pass is not None
            await asyncio.wait([sensor._pass])
        assert len(await sensor.read()) == 2
    assert driver.calls().count("init") == 1


def has_driver() -> bool:
    try:
        return bool(ctypes.CDLL(nvml.LIBRARY))
    except OSError:
        return False


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_the_bindings_are_not_imported_where_no_library_loads(tmp_path: Path) -> None:
    script = (
        "import sys, asyncio; from pathlib import Path\n"
        "from heatpool_agent.sensors import nvml; from heatpool_agent.ports import Roots\n"
        f"roots = Roots(sys=Path({str(tmp_path)!r}), proc=Path({str(tmp_path)!r}), nvml='auto')\n"
        "async def main():\n"
        "    async with nvml.open(nvml.Config(id='g', kind='nvml'), roots, None) as sensor:\n"
        "        return await sensor.probe()\n"
        "assert tuple(asyncio.run(main())) == ()\n"
        "assert 'pynvml' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
