"""What the agent that runs here says of its line, asked at its page."""

import http.client
import json
from collections.abc import Mapping
from typing import Any

ASK_S = 2.0
_STATUS_MOST_BYTES = 16_000_000


def uplink(listen: str) -> Mapping[str, Any] | None:
    """Its `uplink` of /v1/status; None: it cannot be asked, or answers something else; blocking."""
    host, _, port = listen.rpartition(":")
    if not host or port in ("", "0"):
        return None
    asked = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=ASK_S)
    try:
        asked.request("GET", "/v1/status")
        told = json.loads(asked.getresponse().read(_STATUS_MOST_BYTES))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        asked.close()
    line = told.get("uplink") if isinstance(told, dict) else None
    return line if isinstance(line, dict) else None
