"""`heatpool-aggregator audit`: who did what and why, and whether nobody changed the record."""

from collections.abc import Sequence
from pathlib import Path

import click

from heatpool.errors import HeatpoolError
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office
from heatpool_aggregator.core.audit import AuditEntry, first_break
from heatpool_aggregator.ports import Audit

_PAGE_COUNT = 1000
# Too wide for people; --json has them.
_IN_JSON = ("detail", "chain_sha256")


@click.command("audit")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, help="At most so many.")
@click.option("--verify", is_flag=True, help="Check the whole chain instead of listing it.")
@office.at_desk
def command(
    *, limit: int, verify: bool, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """List the audit log, newest first.

    --verify finds every change but one: a cut-off end. Note number and hash of the newest entry
    elsewhere, and compare.
    """
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def show(desk: Office) -> None:
        rows = [_row(entry) for entry in await desk.audit.read(limit)]
        brief = [{key: value for key, value in row.items() if key not in _IN_JSON} for row in rows]
        setting.say(rows, lambda: office.table(brief, empty="the audit log is empty"))

    async def check(desk: Office) -> None:
        newest = await _verified(desk.audit, str(setting.state_dir))
        result = {
            "is_whole": True,
            "entries_count": newest.number if newest else 0,
            "newest_sha256": newest.chain_sha256.hex() if newest else None,
        }
        setting.say(
            result,
            lambda: (
                "the audit log is empty"
                if newest is None
                else f"{newest.number} entries, one chain; newest {newest.chain_sha256.hex()}"
            ),
        )

    office.work(setting, check if verify else show)


async def _verified(audit: Audit, where: str) -> AuditEntry | None:
    """The newest entry, once every one has been checked against the one before it."""
    later: Sequence[AuditEntry] = await audit.read(_PAGE_COUNT)
    newest = later[0] if later else None
    while later:
        older = await audit.read(_PAGE_COUNT, later[-1].number)
        number = first_break(reversed(later), before=older[0] if older else None)
        if number is not None:
            raise HeatpoolError(
                f"{where}: the audit log was changed at entry {number} or before it: keep the "
                "file as it is, and compare it with a backup"
            )
        later = older
    return newest


def _row(entry: AuditEntry) -> dict[str, object]:
    return {
        "number": entry.number,
        "at": office.iso(entry.at_ns),
        "who": entry.who,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
        "detail": entry.detail,
        "chain_sha256": entry.chain_sha256.hex(),
    }
