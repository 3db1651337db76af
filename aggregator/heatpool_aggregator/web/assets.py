"""The page's files, read once at start; each name carries its content's hash, so it never ages."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

from aiohttp import web

_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
Handler = Callable[[web.Request], Awaitable[web.Response]]
_LINK = re.compile(rb"/static/([a-z]+\.[a-z]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file as it is served; links in it are already the hashed ones."""

    url: str
    content_type: str
    body: bytes


def read() -> dict[str, Asset]:
    """Every file of `static/`, by its own name."""
    folder = resources.files("heatpool_aggregator.web").joinpath("static")
    plain = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
    served: dict[str, Asset] = {}
    for name in sorted(plain):
        _serve(name, plain, served)
    return served


def _serve(name: str, plain: dict[str, bytes], served: dict[str, Asset]) -> Asset:
    """The asset, after those it links to: its hash covers theirs. Links make no circle."""
    if name in served:
        return served[name]

    def linked(match: re.Match[bytes]) -> bytes:
        return _serve(match[1].decode(), plain, served).url.encode()

    body = _LINK.sub(linked, plain[name])
    stem, _, kind = name.rpartition(".")
    digest = hashlib.sha256(body).hexdigest()[:12]
    url = f"/static/{stem}.{digest}.{kind}"
    served[name] = Asset(url=url, content_type=_TYPES[kind], body=body)
    return served[name]


def add(app: web.Application, assets: dict[str, Asset]) -> None:
    """Serves the page at / and its files for ever."""
    app.router.add_get("/", _handler(assets["index.html"], cached="no-cache"))
    for name, asset in assets.items():
        if name != "index.html":
            app.router.add_get(asset.url, _handler(asset, cached="max-age=31536000, immutable"))


def _handler(asset: Asset, *, cached: str) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers={"Cache-Control": cached},
        )

    return handle
