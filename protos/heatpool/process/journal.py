"""How every program writes its log: logfmt on stderr, facts as keys with units."""

import logging
import sys
from collections.abc import Mapping

_FACTS = "heatpool_facts"


def facts(**values: object) -> Mapping[str, object]:
    """The `extra` of a log call: `logger.warning("sensor.busy", extra=facts(waited_s=2.0))`."""
    return {_FACTS: values}


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        head = f"{stamp}.{int(record.msecs):03d} {record.levelname.lower()} {record.getMessage()}"
        pairs = getattr(record, _FACTS, {})
        line = " ".join([head, *(f"{key}={_quoted(value)}" for key, value in pairs.items())])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    # Others' words may hold line ends and commands for a terminal: neither gets into a log.
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else _marked(sign) for sign in text)
    plain = text and not any(sign in text for sign in ' "=')
    return text if plain else '"' + text.replace('"', "'") + '"'


def _marked(sign: str) -> str:
    """What stands for a sign that cannot be shown; a line end is a space."""
    return " " if sign == "\n" else f"\\x{ord(sign):02x}"


def start(*, level: str = "info") -> None:
    """Sends all log lines of this process to stderr at `level` and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # These write hex dumps and one line per request; their faults reach us as exceptions.
    for neighbour in ("pymodbus", "aiohttp.access", "grpc", "zeroconf", "asyncio"):
        logging.getLogger(neighbour).setLevel(logging.CRITICAL)
