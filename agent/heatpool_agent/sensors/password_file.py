"""Reads a password from its file, and says the command that mends one that cannot be read."""

import os
import pwd
import shlex
from pathlib import Path

from heatpool.errors import SensorGone


def password_of(path: Path) -> str:
    """The file's first line without its end; blocking.

    Raises:
        SensorGone: no file, no right to read it, or no text in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SensorGone(f"password_file {path}: is not there", fix=_written(path)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SensorGone(f"password_file {path}: {reason}", fix=_readable(path)) from error
    except UnicodeDecodeError as error:
        raise SensorGone(f"password_file {path}: is no text", fix=_written(path)) from error
    password = text.split("\n", 1)[0].removesuffix("\r")
    if not password.strip():
        raise SensorGone(f"password_file {path}: is empty", fix=_written(path))
    return password


def _readable(path: Path) -> str:
    file = shlex.quote(str(path))
    return f"chown {_user()} {file} && chmod 0400 {file}"


def _written(path: Path) -> str:
    return f"write the password into it: nano {shlex.quote(str(path))}; then {_readable(path)}"


def _user() -> str:
    """Who reads it: the user of this process, by name where it has one."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
