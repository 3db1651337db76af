"""`heatpool-agent init`: a commented file of settings to begin with."""

import os
from pathlib import Path

import click

from heatpool.errors import ConfigError

# Beside the code, as wheels install it.
EXAMPLE = Path(__file__).parent.parent / "data" / "agent.example.toml"
# No secret stands in settings, and the service's user must read them.
_MODE = 0o644


@click.command("init")
@click.argument("file", type=click.Path(path_type=Path), default="agent.toml")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(*, file: Path, force: bool) -> None:
    """Write a commented sample of the settings to FILE, by default agent.toml.

    As written it changes nothing: it is what the agent does without any settings.
    """
    written(file, EXAMPLE.read_bytes(), force=force)
    click.echo(
        f"wrote {file}; check it after each change: heatpool-agent config check --config {file}"
    )


def written(file: Path, content: bytes, *, force: bool) -> None:
    """Writes the file whole or not at all.

    Raises:
        ConfigError: it is there and may not be replaced, or its folder takes no file.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            with open(descriptor, "wb") as door:
                door.write(content)
            _place(aside, file, force=force)
        finally:
            aside.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigError(["is there already; --force replaces it"], file=str(file)) from error
    except OSError as error:
        raise ConfigError([f"cannot be written: {error.strerror}"], file=str(file)) from error


def _place(aside: Path, file: Path, *, force: bool) -> None:
    if force:
        os.replace(aside, file)
    else:
        # A link, unlike a renaming, fails where the name is taken, without a moment between.
        os.link(aside, file)
