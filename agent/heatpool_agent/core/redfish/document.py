"""One answer of a Redfish service: bytes in, the JSON object out, or a refusal with its reason."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from heatpool.errors import WireError

Document = Mapping[str, Any]
# Deeper than any resource; Python's own limit moves with the caller's stack.
MAX_DEPTH = 64


def parse(text: bytes, path: str) -> Document:
    """The resource in an answer.

    Raises WireError with a reason of its own for an empty body, HTML, JSON that is broken or ends
    half way, anything but an object, numbers that are none, absurd nesting, and an error message
    in place of the resource.
    """
    document = _loaded(text, path)
    if not isinstance(document, dict):
        raise _refused(path, f"a JSON {_kind(document)} instead of an object")
    if _depth_exceeds(document, MAX_DEPTH):
        raise _refused(path, f"JSON nested deeper than {MAX_DEPTH}")
    if "error" in document and not _has_content(document):
        raise _refused(path, f"an error instead of the resource: {_told(document['error'])}")
    return document


def _loaded(text: bytes, path: str) -> Any:
    body = text.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise _refused(path, "an empty body")
    if body.startswith(b"<"):
        raise _refused(path, "a page of HTML or XML instead of JSON; is this the web interface?")
    try:
        return json.loads(body, parse_constant=_not_a_number)
    except RecursionError:
        raise _refused(path, f"JSON nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        is_half = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        fault = "JSON that ends half way" if is_half else f"broken JSON ({error.msg})"
        raise _refused(path, fault, offset=error.pos) from None
    except ValueError as error:
        raise _refused(path, f"what is no JSON ({error})") from None


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _depth_exceeds(document: Any, limit: int) -> bool:
    level: list[Any] = [document]
    for _ in range(limit):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _has_content(document: Document) -> bool:
    return any(not key.startswith("@") for key in document if key != "error")


def _told(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:200]


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else type(value).__name__


def _refused(path: str, fault: str, *, offset: int | None = None) -> WireError:
    return WireError(f"redfish: {path} answered {fault}", offset=offset)
