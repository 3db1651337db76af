"""Extended errors of Redfish: ids of the Base registry, texts of our own (DSP0266, 8.6)."""

from collections.abc import Mapping
from typing import Any

_REGISTRY = "Base.1.18"
# key: (status, severity, text with its arguments, what to do)
_MESSAGES: Mapping[str, tuple[int, str, str, str]] = {
    "MalformedJSON": (400, "Critical", "the body is no JSON", "send JSON"),
    "UnrecognizedRequestBody": (400, "Warning", "the body is no JSON object", "send an object"),
    "PropertyMissing": (400, "Warning", "property {0} is missing", "add it"),
    "PropertyUnknown": (400, "Warning", "property {0} is unknown here", "leave it out"),
    "PropertyNotWritable": (400, "Warning", "property {0} is read-only", "leave it out"),
    "PropertyValueTypeError": (400, "Warning", "{0} has the wrong type for {1}", "mend the value"),
    "PropertyValueFormatError": (400, "Warning", "{0} is badly formed for {1}", "mend the value"),
    "PropertyValueNotInList": (400, "Warning", "{0} is not allowed for {1}", "choose another"),
    "PropertyValueOutOfRange": (400, "Warning", "{0} is out of range for {1}", "mend the value"),
    "NoOperation": (400, "Warning", "the request changes nothing", "name a property to change"),
    "QueryNotSupportedOnResource": (400, "Warning", "no such query here", "ask without it"),
    "QueryParameterValueTypeError": (400, "Warning", "{0} is no value for {1}", "mend the query"),
    "QueryParameterOutOfRange": (400, "Warning", "{0} for {1} is outside {2}", "mend the query"),
    "QueryCombinationInvalid": (400, "Warning", "these queries do not combine", "ask one of them"),
    "NoValidSession": (401, "Critical", "no valid session", "log in and send X-Auth-Token"),
    "ResourceAtUriUnauthorized": (401, "Critical", "{0}: {1}", "log in with another name"),
    "ResourceMissingAtURI": (404, "Critical", "nothing is at {0}", "follow links from the root"),
    "OperationNotAllowed": (405, "Critical", "the method is not allowed here", "see Allow"),
    "PreconditionFailed": (412, "Critical", "the ETag is another by now", "read it and try again"),
    "QueryNotSupported": (501, "Warning", "this query is not supported", "ask without it"),
    "SessionLimitExceeded": (503, "Critical", "all sessions are taken", "end another session"),
    "ServiceTemporarilyUnavailable": (503, "Critical", "busy; try again in {0} s", "wait"),
    "GeneralError": (500, "Critical", "{0}", "see the text"),
}


def status(key: str) -> int:
    """The HTTP status that goes with a message."""
    return _MESSAGES[key][0]


def body(key: str, *args: str, where: str = "") -> dict[str, Any]:
    """The error response: one message of the Base registry; `where` names the property at fault."""
    _, severity, text, resolution = _MESSAGES[key]
    message: dict[str, Any] = {
        "@odata.type": "#Message.v1_1_2.Message",
        "MessageId": f"{_REGISTRY}.{key}",
        "Message": text.format(*args, "", "", ""),  # a refusal may name less
        "MessageArgs": list(args),
        "MessageSeverity": severity,
        "Severity": severity,
        "Resolution": resolution,
    }
    if where:
        message["RelatedProperties"] = [f"#/{where}"]
    top = {"code": message["MessageId"], "message": message["Message"]}
    return {"error": top | {"@Message.ExtendedInfo": [message]}}
