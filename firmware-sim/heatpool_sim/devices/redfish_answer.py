"""What a Redfish service says to a request (DSP0266); whoever holds the socket is elsewhere."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from heatpool_sim.devices import redfish_garble as garble
from heatpool_sim.devices import redfish_message as message
from heatpool_sim.devices import redfish_metadata as metadata
from heatpool_sim.devices import redfish_query as query
from heatpool_sim.devices.redfish_session import SERVICE, SESSIONS, Session, Sessions, service
from heatpool_sim.devices.redfish_tree import (
    JSON_TYPE,
    METADATA,
    ODATA,
    ROOT,
    Captured,
    ChangeRefused,
    Page,
    Resource,
    Tree,
    normal,
)

VERSIONS = "/redfish"
RETRY_AFTER_S = 120  # DSP0266 leaves it open; real BMCs ask for minutes
_OPEN = frozenset({VERSIONS, ROOT, METADATA, ODATA})  # read without a login
_LOGIN = frozenset({SESSIONS, f"{SESSIONS}/Members"})
_ETAG = re.compile(r'(W/)?"[^"]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request; `headers` find their names in any case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer with its headers."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Answers:
    """One service: a tree, its sessions, and the faults of the moment."""

    def __init__(self, tree: Tree, sessions: Sessions) -> None:
        self._tree = tree
        self.sessions = sessions

    def reply(self, ask: Ask, faults: frozenset[str]) -> Reply:
        """The answer to a request while these faults last."""
        path = normal(ask.path)
        try:
            refused = self._refused(ask, path, faults)
            if refused is not None:
                return refused
            if ask.method in ("GET", "HEAD"):
                return self._read(ask, path, faults)
            if path not in _LOGIN and not self._methods(path):
                return _error("ResourceMissingAtURI", ask.path)
            return self._act(ask, path, faults)
        except ChangeRefused as refusal:
            return _error(refusal.key, *refusal.arguments, where=refusal.where)

    def _refused(self, ask: Ask, path: str, faults: frozenset[str]) -> Reply | None:
        """The answer to a request that is not looked into."""
        if garble.BUSY in faults:
            return _unavailable()
        version = ask.headers.get("OData-Version")
        if version is not None and version.strip() != "4.0":
            return _error("GeneralError", f"OData-Version {version} is not 4.0", status=412)
        is_open = ask.method in ("GET", "HEAD") and path in _OPEN
        is_login = ask.method == "POST" and path in _LOGIN
        if garble.SESSION_LOST in faults and not is_open and not is_login:
            self.sessions.lose_all()
            return _unauthorized(_error("NoValidSession"))
        if is_open or is_login or self.sessions.admits(ask.headers):
            return None
        return _unauthorized(_error("NoValidSession"))

    def _act(self, ask: Ask, path: str, faults: frozenset[str]) -> Reply:
        if ask.body and not _is_json(ask.headers.get("Content-Type", "")):
            return _error("GeneralError", "a body must be application/json", status=415)
        if ask.method == "POST" and path in _LOGIN:
            return self._log_in(ask, faults)
        if ask.method == "DELETE" and self._is_session(path):
            self.sessions.close(path.rpartition("/")[2])
            return Reply(status=204, headers=_headers(None))
        if ask.method == "PATCH" and "PATCH" in self._methods(path):
            return self._change(ask, path)
        refusal = _error("OperationNotAllowed")
        allow = ", ".join(self._methods(path))
        return Reply(
            status=refusal.status, headers={**refusal.headers, "Allow": allow}, body=refusal.body
        )

    def _read(self, ask: Ask, path: str, faults: frozenset[str]) -> Reply:
        resource = self._resource(path)
        page = self._page(path, resource)
        if page is None:
            return _error("ResourceMissingAtURI", ask.path)
        if not _accepts(ask.headers.get("Accept", ""), page.content_type):
            return _error("GeneralError", f"only {page.content_type} is served here", status=406)
        if resource is not None:
            asked = query.answered(resource, ask.query, self._resource)
            asked = garble.wrong(asked, find=self._resource, faults=faults)
            page = page if asked is resource else garble.written(asked)
            resource = asked
        sent = garble.broken(page, faults)
        etag = _etag(sent, resource if sent is page else None)
        headers = _headers(sent.content_type) | {"ETag": etag, "Allow": self._allow(path)}
        schema = None if resource is None else metadata.schema_of(resource)
        if schema is not None:
            headers["Link"] = f"<{schema}>; rel=describedby"
        if _matches(ask.headers.get("If-None-Match", ""), etag):
            headers.pop("Content-Type")
            return Reply(status=304, headers=headers)
        return Reply(status=200, headers=headers, body=sent.body)

    def _resource(self, path: str) -> Resource | None:
        """The resource at a path, the service's own among them."""
        if path == VERSIONS:
            return {"v1": f"{ROOT}/"}
        found = self._tree.get(path)
        if path == SESSIONS:
            return _with_sessions(found or {}, self.sessions.members())
        if found is not None:
            return found
        if path == SERVICE:
            return service()
        if path == ODATA:
            return metadata.service_list(self._tree.get(ROOT))
        return self.sessions.resource(path.rpartition("/")[2]) if self._is_session(path) else None

    def _page(self, path: str, resource: Resource | None) -> Page | None:
        """The bytes at a path: as they were captured where they were, else as they are."""
        if path != SESSIONS and isinstance(self._tree, Captured):
            caught = self._tree.captured(path)
            if caught is not None:
                return caught
        if path == METADATA and resource is None:
            return Page(body=metadata.metadata(self._resource), content_type="application/xml")
        return None if resource is None else garble.written(resource)

    def _change(self, ask: Ask, path: str) -> Reply:
        present = self._resource(path) or {}
        if ask.headers.get("If-Match") is not None:
            etag = _etag(garble.written(present), present)
            if not _matches(ask.headers["If-Match"], etag):
                return _error("PreconditionFailed")
        change = _object(ask)
        if not change:
            return _error("NoOperation")
        changed = self._tree.patch(path, change)
        if changed is None:
            return _error("OperationNotAllowed")
        page = garble.written(changed)
        headers = _headers(page.content_type) | {"ETag": _etag(page, changed)}
        return Reply(status=200, headers=headers, body=page.body)

    def _log_in(self, ask: Ask, faults: frozenset[str]) -> Reply:
        wish = _object(ask)
        for name in ("UserName", "Password"):
            if name not in wish:
                return _error("PropertyMissing", name, where=name)
            if not isinstance(wish[name], str):
                return _error("PropertyValueTypeError", str(wish[name]), name, where=name)
        if not self.sessions.is_account(wish["UserName"], wish["Password"]):
            return _error("ResourceAtUriUnauthorized", ask.path, "wrong name or password")
        session = None if garble.NO_SLOT in faults else self.sessions.open(wish["UserName"])
        return _error("SessionLimitExceeded") if session is None else self._opened(session)

    def _opened(self, session: Session) -> Reply:
        page = garble.written(self.sessions.resource(session.id) or {})
        where = {"Location": f"{SESSIONS}/{session.id}", "X-Auth-Token": session.token}
        return Reply(status=201, headers=_headers(page.content_type) | where, body=page.body)

    def _is_session(self, path: str) -> bool:
        folder, _, session_id = path.rpartition("/")
        return folder == SESSIONS and self.sessions.resource(session_id) is not None

    def _methods(self, path: str) -> tuple[str, ...]:
        """What may be done at a path; nothing where there is none."""
        resource = self._resource(path)
        if self._page(path, resource) is None:
            return ()
        if path == SESSIONS:
            return "GET", "HEAD", "POST"
        if self._is_session(path):
            return "GET", "HEAD", "DELETE"
        is_changeable = resource is not None and self._tree.patch(path, {}) is not None
        return ("GET", "HEAD", "PATCH") if is_changeable else ("GET", "HEAD")

    def _allow(self, path: str) -> str:
        return ", ".join(self._methods(path))


def _with_sessions(told: Resource, open_ones: list[dict[str, str]]) -> Resource:
    members = [*told.get("Members", []), *open_ones]
    return {
        "@odata.id": SESSIONS,
        "@odata.type": "#SessionCollection.SessionCollection",
        "Name": "Session Collection",
        **told,
        "Members": members,
        "Members@odata.count": len(members),
    }


def _object(ask: Ask) -> dict[str, Any]:
    try:
        tree = json.loads(ask.body)
    except (ValueError, RecursionError) as error:
        raise ChangeRefused("MalformedJSON") from error
    if not isinstance(tree, dict):
        raise ChangeRefused("UnrecognizedRequestBody")
    return tree


def _is_json(content_type: str) -> bool:
    """Whether a body is called JSON, or nothing: small clients leave the name out."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("", "application/json", "application/octet-stream")


def _headers(content_type: str | None) -> dict[str, str]:
    always = {"OData-Version": "4.0", "Cache-Control": "no-cache"}
    return always if content_type is None else always | {"Content-Type": content_type}


def _error(key: str, *args: str, where: str = "", status: int | None = None) -> Reply:
    page = garble.written(message.body(key, *args, where=where))
    code = message.status(key) if status is None else status
    return Reply(status=code, headers=_headers(JSON_TYPE), body=page.body)


def _unavailable() -> Reply:
    busy = _error("ServiceTemporarilyUnavailable", str(RETRY_AFTER_S))
    headers = {**busy.headers, "Retry-After": str(RETRY_AFTER_S)}
    return Reply(status=busy.status, headers=headers, body=busy.body)


def _unauthorized(refusal: Reply) -> Reply:
    headers = {**refusal.headers, "WWW-Authenticate": 'Basic realm="Redfish"'}
    return Reply(status=refusal.status, headers=headers, body=refusal.body)


def _etag(page: Page, resource: Resource | None) -> str:
    told = None if resource is None else resource.get("@odata.etag")
    if isinstance(told, str) and _ETAG.fullmatch(told) and told.isprintable():
        return told
    return f'"{hashlib.sha256(page.body).hexdigest()[:16]}"'


def _matches(header: str, etag: str) -> bool:
    """Whether one of the tags in a header is this one; weak and strong are alike on reading."""
    told = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in told or etag.removeprefix("W/") in told


def _accepts(header: str, content_type: str) -> bool:
    kind = content_type.partition(";")[0].lower()
    wanted = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    return header.strip() == "" or bool({kind, f"{kind.partition('/')[0]}/*", "*/*"} & set(wanted))
