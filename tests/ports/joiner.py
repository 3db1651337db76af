"""A process to be killed: lets newcomers in, each by its own token, and says what it hands out."""

import asyncio
import json
import sys
import time
from pathlib import Path

from heatpool.sample import SiteId
from heatpool_aggregator.core.enrolment import JoinAsk, JoinRefused, Waiting
from heatpool_aggregator.identity import authority
from heatpool_aggregator.identity.joining import Joining
from heatpool_aggregator.identity.places import places
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities


class Clock:
    """The machine's."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot."""
        return time.monotonic_ns()


async def let_in(directory: Path) -> None:
    """Every newcomer of the list, at most four at once; a line for each certificate."""
    clock = Clock()
    newcomers = json.loads((directory / "newcomers.json").read_bytes())
    async with (
        open_identities(directory, trust_domain="heatpool", clock=clock) as identities,
        open_audit(directory) as audit,
    ):
        joining = Joining(
            authority=authority.load(places(directory)),
            identities=identities,
            audit=audit,
            clock=clock,
            trust_domain="heatpool",
        )
        gate = asyncio.Semaphore(4)

        async def one(site_id: str, token: str, csr_pem: str) -> None:
            ask = JoinAsk(token=token, site_id=SiteId(site_id), key_sha256=b"", peer="192.0.2.7")
            async with gate:
                try:
                    found = await joining.join(ask, csr_pem.encode())
                except JoinRefused:
                    return
            assert not isinstance(found, Waiting)
            line = json.dumps([site_id, csr_pem, found.chain_pem])
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            for number, newcomer in enumerate(newcomers):
                group.create_task(one(*newcomer), name=f"newcomer.{number}")


asyncio.run(let_in(Path(sys.argv[1])))
