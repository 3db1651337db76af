"""What systemd is told: started, alive, stopping. Without systemd nobody is told anything."""

import logging
import socket
from collections.abc import Mapping

from heatpool.process.journal import facts

logger = logging.getLogger(__name__)


def notify(text: str, environ: Mapping[str, str]) -> None:
    """Sends one `sd_notify` message to the socket that systemd named; never waits for it.

    Source: sd_notify(3); an address that begins with @ lies in the abstract namespace.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(0)  # a full socket must not hold the sampling loop
            line.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        logger.warning("watchdog.unheard", extra=facts(told=text, reason=error.strerror))


def ready(environ: Mapping[str, str]) -> None:
    """The first tick is done: whoever waits for this unit may go on."""
    notify("READY=1", environ)


def alive(environ: Mapping[str, str]) -> None:
    """The sampling loop ticked; it alone may say so, else a dead one behind a page looks alive."""
    notify("WATCHDOG=1", environ)


def stopping(environ: Mapping[str, str]) -> None:
    """A clean stop has begun."""
    notify("STOPPING=1", environ)
