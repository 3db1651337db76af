"""A whole site on loopback for the technicians' commands: benches, settings, the real program."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

MACHINE = ("rapl", "hwmon", "nvml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its output as JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def check(self, name: str) -> dict[str, str]:
        """One check of doctor."""
        (found,) = [one for one in self.document["checks"] if one["id"] == name]
        return dict(found)


async def ran(*arguments: str, folder: Path, **environ: str) -> Done:
    """A command of the agent in a process of its own, whose home is `folder`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "heatpool_agent", *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "100", **environ},
    )  # fmt: skip
    async with asyncio.timeout(150):
        out, err = await child.communicate()
    return Done(code=child.returncode or 0, out=out.decode(), err=err.decode())


class Site:
    """Benches by kind, and the settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.benches: dict[str, Any] = {}
        self.blocks: list[dict[str, Any]] = []
        self.text = ""
        self.roots: dict[str, str] = {"sys": str(folder / "no"), "proc": "/proc"}

    def write(self, extra: str = "") -> str:
        """The settings as a file; its path."""
        path = self.folder / "agent.toml"
        lines = [self.text, extra]
        for block in self.blocks:
            lines += ["[[sensor]]", *(f"{key} = {_toml(value)}" for key, value in block.items())]
        lines += ["[roots]", *(f"{key} = {_toml(value)}" for key, value in self.roots.items())]
        lines += ["[http]", 'listen = ""']
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    async def doctor(self, extra: str = "", **environ: str) -> Done:
        """The real program, as JSON."""
        path = await asyncio.to_thread(self.write, extra)
        return await ran("doctor", "--json", "--config", path, folder=self.folder, **environ)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@asynccontextmanager
async def opened(folder: Path, *kinds: str) -> AsyncIterator[Site]:
    """A site with a device of each kind, its sensor called after the kind."""
    site = Site(folder)
    async with AsyncExitStack() as stack:
        for kind in kinds:
            place = folder / kind
            await asyncio.to_thread(place.mkdir)
            bench = await stack.enter_async_context(
                import_module(f"ports.benches.{kind}").opened(place)
            )
            site.benches[kind] = bench
            site.blocks.append({"id": kind, **bench.settings})
            if kind in MACHINE:
                roots = bench.roots
                site.roots = {"sys": str(roots.sys), "proc": str(roots.proc), "nvml": roots.nvml}
        yield site
