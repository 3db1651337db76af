"""JSON pages of our own programs on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

_TIMEOUT_S = 1.5


class Pages:
    """Reads pages; an answer that does not come or is no JSON object is None."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def read(self, address: str, path: str) -> dict[str, Any] | None:
        """The object at http://address/path."""
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._session.get(f"http://{address}{path}") as answer,
            ):
                if answer.status != 200:
                    return None
                said = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        return said if isinstance(said, dict) else None


@asynccontextmanager
async def opened() -> AsyncIterator[Pages]:
    """A reader of pages for as long as the context is open."""
    async with aiohttp.ClientSession() as session:
        yield Pages(session)
