"""`@route(method, path, out=...)`: one line makes a view an endpoint and its API description.

Parameters are the view's keyword-only arguments: those named in the path come from it, the others
from the query. Answers are msgspec Structs, so that /openapi.json cannot drift from them.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from heatpool_aggregator.web.desk import Desk
from heatpool_aggregator.web.problem import Problem, Refused

View = Callable[..., Awaitable[msgspec.Struct]]
DeskFor = Callable[[], Awaitable[Desk]]
_REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A view with its place; `parameters` by name."""

    method: str
    path: str
    out: type[msgspec.Struct]
    view: View
    parameters: Mapping[str, inspect.Parameter]

    def is_in_path(self, name: str) -> bool:
        """The parameter is part of the path, not of the query."""
        return f"{{{name}}}" in self.path

    def arguments(self, request: web.Request) -> dict[str, Any]:
        """Path and query of this request as the view's keyword arguments.

        Raises:
            Refused: a parameter is unknown, or its value does not fit its type.
        """
        given = {**request.query, **request.match_info}
        if unknown := sorted(given.keys() - self.parameters.keys()):
            known = ", ".join(self.parameters) or "none"
            raise Refused(HTTPStatus.BAD_REQUEST, f"{unknown[0]!r} is unknown; known: {known}")
        return {name: _convert(name, text, self.parameters[name]) for name, text in given.items()}


def route(method: str, path: str, *, out: type[msgspec.Struct]) -> Callable[[View], Endpoint]:
    """The view below this line as an endpoint that answers with `out`."""

    def endpoint(view: View) -> Endpoint:
        signature = inspect.signature(view)
        named = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        return Endpoint(method=method, path=path, out=out, view=view, parameters=named)

    return endpoint


def endpoints_of(room: object) -> list[Endpoint]:
    """Every endpoint of a module, by path."""
    found = [value for value in vars(room).values() if isinstance(value, Endpoint)]
    return sorted(found, key=lambda endpoint: endpoint.path)


def add(app: web.Application, endpoints: Iterable[Endpoint], desk_for: DeskFor) -> None:
    """Puts the endpoints into the application; each request has the desk of who asks."""
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, _handler(endpoint, desk_for))


def _handler(
    endpoint: Endpoint, desk_for: DeskFor
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        desk = await desk_for()
        answer = await endpoint.view(desk, **endpoint.arguments(request))
        return web.Response(
            body=msgspec.json.encode(answer),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return handle


def _convert(name: str, text: str, parameter: inspect.Parameter) -> Any:
    try:
        return msgspec.convert(text, parameter.annotation, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is {text!r}: {error}") from error


def description(endpoints: Iterable[Endpoint], *, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these endpoints."""
    listed = list(endpoints)
    _, components = msgspec.json.schema_components(
        [Problem, *(endpoint.out for endpoint in listed)], ref_template=_REF
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heatpool aggregator",
            "version": version,
            "description": "Units end every name; absent is null, never zero; times are UTC.",
        },
        "paths": {e.path: {e.method.lower(): _operation(e)} for e in listed},
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "operationId": endpoint.view.__name__,
        "summary": (inspect.getdoc(endpoint.view) or "").split("\n")[0],
        "parameters": [_parameter(endpoint, name) for name in endpoint.parameters],
        "responses": {
            "200": _response("The answer.", "application/json", endpoint.out),
            "default": _response("Why there is none.", "application/problem+json", Problem),
        },
    }


def _parameter(endpoint: Endpoint, name: str) -> dict[str, Any]:
    parameter = endpoint.parameters[name]
    in_path = endpoint.is_in_path(name)
    schema = msgspec.json.schema(parameter.annotation)
    if parameter.default is not inspect.Parameter.empty:
        schema = {**schema, "default": parameter.default}
    return {
        "name": name,
        "in": "path" if in_path else "query",
        "required": in_path,
        "schema": schema,
    }


def _response(text: str, media_type: str, out: type[msgspec.Struct]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=out.__name__)}
    return {"description": text, "content": {media_type: {"schema": schema}}}
