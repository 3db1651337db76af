"""DMTF's validators against the simulated coolant unit and server; `make redfish-conformance`.

Both tools live in an environment of their own. CSDL and OCP's profile lie in the real data:
nothing is fetched. Prints one row per run; with --mockup also DMTF's own coolant unit, as it is.
"""

import asyncio
import os
import re
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from heatpool_sim import scenario
from heatpool_sim.devices import redfish_folder
from heatpool_sim.devices.redfish_bmc import RedfishBmc
from heatpool_sim.devices.redfish_cdu import RedfishCdu
from heatpool_sim.devices.redfish_service import RedfishService
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.meter import MeterState
from heatpool_sim.ports import Address, Device

REPOSITORY = Path(__file__).resolve().parents[2]
USER, PASSWORD = "operator", "correct horse"
PROFILE = Path("02_redfish/ocp_cdu_profile/OCPCoolantDistributionUnit.v1_0_0.json")
CSDL = Path("02_redfish/dmtf_csdl.tar.gz")
MOCKUP = Path("02_redfish/dmtf_publications/public-cooling-unit")
# What DMTF's mock-up of a coolant unit gets behind a plain static server, with these versions.
MOCKUP_SERVICE_FAILURES, MOCKUP_PROFILE_FAILURES, MOCKUP_PROFILE_PASSES = 79, 38, 221
_LONGEST_S = 180.0
_COUNTS = re.compile(r"^\|\s+(\d+)\s+\|\s+(\d+)\s+\|\s+(\d+)\s+\|\s+(\d+)\s+\|$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a validator counted, and what it said on the way."""

    passed: int
    warned: int
    failed: int
    skipped: int
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the tools and the real data are."""

    tools: Path
    realdata: Path

    @property
    def missing(self) -> str:
        """What is not there; empty if all is."""
        wanted = (
            self.tools / "rf_service_validator",
            self.tools / "rf_interop_validator",
            self.realdata / CSDL,
            self.realdata / PROFILE,
        )
        return ", ".join(str(path) for path in wanted if not path.exists())


def found() -> Bench:
    """The tools of `make redfish-conformance`, and the real data beside the repository."""
    tools = os.environ.get("HEATPOOL_REDFISH_VALIDATORS")
    data = os.environ.get("HEATPOOL_REALDATA")
    return Bench(
        tools=Path(tools) if tools else REPOSITORY / ".venv-redfish" / "bin",
        realdata=Path(data) if data else REPOSITORY.parent / "shared" / "realdata",
    )


def plant() -> RunningSite:
    """A site of the demo that has run for a minute with its valve open."""
    spec = scenario.load("demo").sites[1]
    first = plants.steady(
        spec.plant, at_ns=1_750_000_000 * 10**9, meter=spec.meter, metered=MeterState(register_wh=1)
    )
    first = replace(first, control=Control(mode=Mode.NETWORK))
    running = RunningSite(spec.plant, first, errors=spec.errors)
    running.advance(60.0, boot_ns=0)
    return running


def served(kind: str, *, realdata: Path) -> AbstractAsyncContextManager[Address]:
    """The device of this kind behind its port: cdu, bmc, or DMTF's mockup."""
    if kind == "mockup":
        folder = redfish_folder.read(realdata / MOCKUP)
        return RedfishService(folder, user=USER, password=PASSWORD).serve()
    device: Device = (RedfishCdu if kind == "cdu" else RedfishBmc)(user=USER, password=PASSWORD)
    return device.serve(plant())


async def service_counts(bench: Bench, address: Address) -> Counts:
    """What rf_service_validator counts, against DMTF's schemas as they lie in the real data."""
    async with _scratch() as folder:
        await asyncio.to_thread(_unpack, bench.realdata / CSDL, folder)
        schemas = ("--schema_directory", str(folder / "csdl"), "--skipschema")
        return await _run(bench, "rf_service_validator", address, folder, *schemas)


async def profile_counts(bench: Bench, address: Address) -> Counts:
    """What rf_interop_validator counts against OCP's profile of a coolant unit."""
    async with _scratch() as folder:
        profile = str(bench.realdata / PROFILE)
        return await _run(bench, "rf_interop_validator", address, folder, profile)


async def _run(bench: Bench, tool: str, address: Address, folder: Path, *more: str) -> Counts:
    login = ("--user", USER, "--password", PASSWORD, "--logdir", str(folder / "logs"))
    process = await asyncio.create_subprocess_exec(
        str(bench.tools / tool),
        *("--rhost", f"http://{address.host}:{address.port}", *login, *more),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_LONGEST_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = _COLOUR.sub("", out.decode(errors="replace"))
    match = _COUNTS.search(said)
    if match is None:
        raise RuntimeError(f"{tool} counted nothing:\n{said[-2000:]}")
    passed, warned, failed, skipped = (int(count) for count in match.groups())
    return Counts(passed=passed, warned=warned, failed=failed, skipped=skipped, said=said)


@asynccontextmanager
async def _scratch() -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="redfish-") as name:
        yield Path(name)


def _unpack(bundle: Path, folder: Path) -> None:
    with tarfile.open(bundle) as packed:
        packed.extractall(folder, filter="data")


async def _report(bench: Bench, kinds: list[str]) -> bool:
    """Whether nothing failed; DMTF's mock-up is shown, not judged."""
    runs = {"service": service_counts, "OCP CDU profile": profile_counts}
    is_clean = True
    for kind in kinds:
        opened = await asyncio.to_thread(partial(served, kind, realdata=bench.realdata))
        async with opened as address:
            for name in runs if kind != "bmc" else ["service"]:
                counts = await runs[name](bench, address)
                row = f"pass {counts.passed:5d}  warn {counts.warned:3d}  fail {counts.failed:3d}"
                sys.stdout.write(f"{kind:8s}{name:18s}{row}\n")
                is_clean &= kind == "mockup" or not counts.failed
    return is_clean


def main() -> int:
    """Exit code: 0 if nothing failed, 1 if something did, 2 if a tool or the data is missing."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mockup", action="store_true", help="DMTF's own coolant unit as well")
    wishes = parser.parse_args()
    bench = found()
    if bench.missing:
        sys.stderr.write(f"missing: {bench.missing}; run make redfish-conformance\n")
        return 2
    kinds = ["cdu", "bmc", *(["mockup"] if wishes.mockup else [])]
    return 0 if asyncio.run(_report(bench, kinds)) else 1


if __name__ == "__main__":
    sys.exit(main())
