"""What proves who this site is: there, for us alone, of one piece, and valid by our clock."""

import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from heatpool.errors import StoreError
from heatpool.units import NS_PER_S
from heatpool_agent.core.renewal import due_ns
from heatpool_agent.doctor.place import Place, user_name
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.enrol import files
from heatpool_agent.enrol.files import Enrolled
from heatpool_agent.enrol.mark import SITE
from heatpool_agent.ports import Identity

_FOR_OTHERS = 0o077
_JOIN = "heatpool-agent join URL --token TOKEN --ca-hash HASH; whoever runs the aggregator has both"
_CLOCK = "timedatectl; if the clock is right: " + files.JOIN_AGAIN
# The next certificate comes at the latest some hours after it is due, unless something is wrong.
_LATE_NS = 6 * 3600 * NS_PER_S
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySeen:
    """The identity on disk; `refusal` says why it, or its key with its certificate, is no use."""

    folder: str
    site_id: str = ""
    enrolled: Enrolled | None = None
    refusal: str = ""
    open_files: tuple[str, ...] = ()


def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room; blocking."""
    seen = look(place)
    return (identity(seen, user=user_name()), certificate(seen, now_ns=place.clock.event_ns()))


def look(place: Place) -> IdentitySeen:
    """The files of the identity; nothing is written."""
    folder = files.folder_of(place.folder)
    site_id = "" if place.config.site.id == "auto" else place.config.site.id
    try:
        enrolled, refusal = files.load(place.folder), ""
        if enrolled is not None:
            context(enrolled.identity)
    except StoreError as error:
        enrolled, refusal = None, str(error)
    except (OSError, ValueError) as error:  # of one who trusts no bytes: the TLS library
        refusal = f"{folder / SITE}: key and certificate do not belong together ({error})"
    there = (folder, *folder.glob("*")) if folder.is_dir() else ()
    return IdentitySeen(
        folder=str(folder),
        site_id=site_id,
        enrolled=enrolled,
        refusal=refusal,
        open_files=tuple(str(path) for path in there if _is_open(path.stat())),
    )


def context(own: Identity) -> ssl.SSLContext:
    """What a line is opened with: our CA alone, and our certificate.

    Raises:
        OSError: key, certificate or CA cannot be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=own.root_pem.decode("ascii"))
    made.set_alpn_protocols(["h2"])
    # The library reads keys from files alone; this one is in memory and has no name.
    handle = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(handle, own.key_pem + own.chain_pem)
        made.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return made


def identity(seen: IdentitySeen, *, user: str) -> Verdict:
    """Whether there is one that can be used, and by us alone."""
    if seen.refusal:
        return fail(
            "identity",
            seen.refusal,
            why="without it nothing is sent; rows wait on this disk",
            fix=files.JOIN_AGAIN,
        )
    if seen.enrolled is None:
        return skip("identity", f"this site has not joined; {_JOIN}")
    if seen.open_files:
        return fail(
            "identity",
            f"others may read {', '.join(seen.open_files)}, or it is not ours",
            why="who reads the key can speak for this site",
            fix=f"chown -R {user} {seen.folder} && chmod -R go= {seen.folder}; if somebody may "
            "have read it: " + files.JOIN_AGAIN,
        )
    place, own = seen.enrolled.place, seen.enrolled.certificate
    named = {place.site_id, seen.site_id or place.site_id, *own.site_ids}
    if len(named) > 1:
        return fail(
            "identity",
            f"site.id is {seen.site_id or 'auto'}, joined as {place.site_id}, the certificate is "
            f"for {', '.join(own.site_ids) or 'no site'}",
            why="the aggregator refuses rows of another site than the certificate's",
            fix=f"set site.id to {place.site_id}, or heatpool-agent join --force as the right site",
        )
    found = f"site {place.site_id} at {place.grpc}, fingerprint {own.fingerprint[:_SHOWN_DIGITS]}"
    return ok("identity", found)


def certificate(seen: IdentitySeen, *, now_ns: int) -> Verdict:
    """Whether the certificate is valid by this machine's clock, and renewed in time."""
    if seen.enrolled is None:
        return skip("certificate", "this site has none; it joins by: heatpool-agent join")
    own, place = seen.enrolled.certificate, seen.enrolled.place
    life = f"valid from {_day(own.start_ns)} to {_day(own.end_ns)}"
    if not own.start_ns <= now_ns <= own.end_ns:
        return fail(
            "certificate",
            f"{life}, and this machine's clock says {_day(now_ns)}",
            why="no aggregator lets this site in",
            fix=_CLOCK,
        )
    latest_ns = due_ns(renew_after_ns=place.renew_after_ns, end_ns=own.end_ns, spread_frac=1.0)
    if now_ns > latest_ns + _LATE_NS:
        return warn(
            "certificate",
            f"{life}; the next one was due {_day(place.renew_after_ns)}",
            why="after its end this site has to be enrolled again",
            fix="journalctl -u heatpool-agent | grep identity says why; if no agent runs: "
            "systemctl start heatpool-agent",
        )
    return ok("certificate", life)


def _is_open(found: os.stat_result) -> bool:
    is_ours = found.st_uid == os.geteuid() or os.geteuid() == 0
    return bool(stat.S_IMODE(found.st_mode) & _FOR_OTHERS) or not is_ours


def _day(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // NS_PER_S, UTC):%Y-%m-%d %H:%M} UTC"
