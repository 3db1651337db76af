"""OpenSSL stays out of a process that never speaks TLS by way of Python: 6 to 7 MB less.

gRPC brings a TLS of its own, and certificates are made and renewed in a short child. So only some
sensors need Python's. The libraries of the others load it all the same, and aiohttp and pymodbus
make contexts of it that nobody uses.
"""

import sys
from types import ModuleType


def leave_out(*, has_page: bool) -> None:
    """Marks OpenSSL as absent, and imports what takes that for a Python built without it.

    Nothing is done where it is loaded already. `has_page`: the HTTP server is needed, too.
    """
    if "ssl" in sys.modules:
        return
    # None in sys.modules is such a Python; hashlib then has CPython's own hashes.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    sys.modules["_hashlib"] = None  # type: ignore[assignment]
    import asyncio  # noqa: F401  # it asks whether there is OpenSSL

    if has_page:
        from aiohttp import web  # noqa: F401  # likewise
    sys.modules["ssl"] = _StandIn("ssl")


class _StandIn(ModuleType):
    """For pymodbus, which cannot be imported without the names in `ssl`.

    It names exceptions, annotates, and builds contexts as defaults: each name is an exception that
    nobody raises. Real use fails at once, by an attribute that is not there.
    """

    def __getattr__(self, name: str) -> type[Exception]:
        if name.startswith("__"):
            raise AttributeError(name)
        found = type(name, (OSError,), {"__module__": "ssl"})
        setattr(self, name, found)
        return found
