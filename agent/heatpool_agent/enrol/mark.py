"""Whether anything changed of a site's identity; light, since a site that never joins asks, too."""

from pathlib import Path

SITE, CA, PLACE = "site.pem", "ca.pem", "place.json"
# What replaces the three, whole.
WHOLE = "whole.json"
NAMES = (SITE, CA, PLACE)
JOIN_AGAIN = "heatpool-agent join --force, with a new token, enrols this site again"

Mark = tuple[int, ...]

_UNSEEN = (0, 1)


def folder_of(state: Path) -> Path:
    """Where the identity lies within an agent's state folder."""
    return state / "identity"


def mark(state: Path) -> Mark:
    """Changes whenever the identity does; four looks at a folder, nothing is read.

    All zero: there is none.
    """
    found: list[int] = []
    for name in (WHOLE, *NAMES):
        try:
            seen = (folder_of(state) / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            found += (0, 0)
        except OSError:
            found += _UNSEEN
        else:
            found += (seen.st_ino, seen.st_mtime_ns)
    return tuple(found)
