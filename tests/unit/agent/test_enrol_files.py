"""The identity on disk: whole or not at all, for its owner alone, and told when it is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from unit.agent.certificates import START, Ca, key_pem, new_key

from heatpool.errors import StoreError
from heatpool_agent.core.identity_view import IdentityState
from heatpool_agent.doctor import identity
from heatpool_agent.doctor.verdict import Status
from heatpool_agent.enrol import files
from heatpool_agent.enrol.files import Papers, Place
from heatpool_agent.loops.enrolment import view

CA = Ca()
START_NS = int(START.timestamp()) * 10**9
DAY_NS = 86_400 * 10**9


def papers(site_id: str = "e1", *, key_of: str = "") -> Papers:
    key = new_key()
    chain_pem = CA.site(key.public_key(), key_of or site_id, life=timedelta(days=30))
    return Papers(
        key_pem=key_pem(key),
        chain_pem=chain_pem,
        ca_pem=CA.pem,
        place=Place(site_id=site_id, grpc="127.0.0.1:1", renew_after_ns=START_NS + 20 * DAY_NS),
    )


def test_a_state_folder_made_by_joining_is_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "heatpool" / "agent"
    files.keep(state, papers())
    assert state.stat().st_mode & 0o777 == 0o700


def test_what_is_kept_is_read_again_and_is_nobody_else_s(tmp_path: Path) -> None:
    assert files.load(tmp_path) is None
    given = papers()
    files.keep(tmp_path, given)
    found = files.load(tmp_path)
    assert found is not None
    assert (found.place, found.site_id) == (given.place, "e1")
    assert found.identity.key_pem.decode() == given.key_pem
    assert found.identity.chain_pem.decode() == given.chain_pem
    assert found.identity.root_pem.decode() == CA.pem
    folder = files.folder_of(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {"site.pem", "ca.pem", "place.json", "lock"}


AS_OWNER = """
import os, sys
from pathlib import Path
from heatpool_agent.enrol.files import become_owner
become_owner(Path(sys.argv[1]))
print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_goes_on_as_who_runs_the_agent(tmp_path: Path) -> None:
    os.chown(tmp_path, 12_345, 12_346)
    command = [sys.executable, "-c", AS_OWNER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12345", "12345", "12346", "[]"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = files.make_folder(tmp_path), tmp_path / "elsewhere"
    (folder / "lock").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="lock"):
        files.keep(tmp_path, papers())
    assert not elsewhere.exists()


def test_the_key_stands_in_no_repr(tmp_path: Path) -> None:
    given = papers()
    files.keep(tmp_path, given)
    secret = given.key_pem.splitlines()[1]
    assert secret not in repr(files.load(tmp_path)) + repr(given)


def test_a_mark_changes_with_the_identity_and_only_then(tmp_path: Path) -> None:
    marks = [files.mark(tmp_path)]
    for step in (lambda: files.keep(tmp_path, papers()), lambda: files.forget(tmp_path)):
        step()
        marks += [files.mark(tmp_path)]
        assert files.mark(tmp_path) == marks[-1]
    assert marks[0] != marks[1] != marks[2]


class Killed(BaseException):
    """The end of the process, which nothing may catch."""


def killed(monkeypatch: pytest.MonkeyPatch, moment: int, work: Callable[[], object]) -> bool:
    """Whether the work died before its n-th change of the disk."""
    left = moment

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "replace", "unlink", "mkdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("was_joined", [True, False])
def test_a_kill_at_any_moment_leaves_one_identity_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, was_joined: bool
) -> None:
    old, new = papers("old"), papers("new")
    keys: list[str | None] = []
    is_killed = True
    while is_killed:
        state = tmp_path / str(len(keys))
        if was_joined:
            files.keep(state, old)
        is_killed = killed(monkeypatch, len(keys), lambda: files.keep(state, new))  # noqa: B023
        found = files.load(state)
        keys.append(found.identity.key_pem.decode() if found else None)
        assert (keys[-1], found and found.place) in (
            (new.key_pem, new.place),
            (old.key_pem, old.place) if was_joined else (None, None),
        )
        files.mend(state)
        assert files.load(state) == found
    assert keys[-1] == new.key_pem
    assert len(set(keys)) == 2
    assert len(keys) > 15


def test_a_kill_while_it_is_forgotten_leaves_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, count, is_killed = papers(), 0, True
    while is_killed:
        state = tmp_path / str(count)
        files.keep(state, given)
        is_killed = killed(monkeypatch, count, lambda: files.forget(state))  # noqa: B023
        found = files.load(state)
        assert found is None or found.identity.key_pem.decode() == given.key_pem
        files.forget(state)
        assert {path.name for path in files.folder_of(state).iterdir()} == {"lock"}
        count += 1
    assert count > 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("site.pem", b""),
        ("site.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("site.pem", b"\xff"),
        ("place.json", b"{}"),
        (
            "place.json",
            b'{"schema":"heatpool.place/9","site_id":"e","grpc":"h:1","renew_after_ns":1}',
        ),
        ("whole.json", b"[]"),
        ("whole.json", b"{}"),
        ("ca.pem", None),
    ],
)
def test_a_spoilt_identity_says_what_mends_it(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    files.keep(tmp_path, papers())
    path = files.folder_of(tmp_path) / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(StoreError, match="join --force"):
        files.load(tmp_path)
    assert files.forget(tmp_path)
    assert files.load(tmp_path) is None


def seen(tmp_path: Path, given: Papers, **more: Any) -> identity.IdentitySeen:
    files.keep(tmp_path, given)
    place = identity.IdentitySeen(folder=str(tmp_path), enrolled=files.load(tmp_path))
    return replace(place, **more)


@pytest.mark.parametrize(
    ("more", "status", "fix"),
    [
        ({}, Status.OK, ""),
        ({"enrolled": None}, Status.SKIP, ""),
        ({"refusal": "no PEM"}, Status.FAIL, "join --force"),
        ({"open_files": ("site.pem",)}, Status.FAIL, "chmod -R go="),
        ({"site_id": "e2"}, Status.FAIL, "set site.id to e1"),
    ],
)
def test_doctor_judges_the_identity(
    tmp_path: Path, more: dict[str, Any], status: Status, fix: str
) -> None:
    verdict = identity.identity(seen(tmp_path, papers(), **more), user="hp")
    assert verdict.status is status
    assert fix in verdict.fix


def test_doctor_sees_a_certificate_of_another_site(tmp_path: Path) -> None:
    verdict = identity.identity(seen(tmp_path, papers("e1", key_of="e2")), user="hp")
    assert (verdict.status, "e2" in verdict.found) == (Status.FAIL, True)


@pytest.mark.parametrize(
    ("days", "status", "state"),
    [
        (-1, Status.FAIL, IdentityState.EXPIRED),
        (0, Status.OK, IdentityState.VALID),
        (20.5, Status.OK, IdentityState.VALID),
        (22, Status.WARN, IdentityState.VALID),
        (30.1, Status.FAIL, IdentityState.EXPIRED),
    ],
)
def test_doctor_and_page_judge_the_certificate_by_the_clock(
    tmp_path: Path, days: float, status: Status, state: IdentityState
) -> None:
    found, now_ns = seen(tmp_path, papers()), START_NS + int(days * DAY_NS)
    verdict = identity.certificate(found, now_ns=now_ns)
    assert verdict.status is status
    told = view(found.enrolled, now_ns=now_ns)
    assert told.state is state
    if state is IdentityState.EXPIRED:
        assert "timedatectl" in verdict.fix
        assert "timedatectl" in told.fix
        assert "join" in told.fix


@pytest.mark.parametrize(
    ("site_id", "error", "state"),
    [
        ("", "", IdentityState.VALID),
        ("e1", "", IdentityState.VALID),
        ("e2", "", IdentityState.UNUSABLE),
        ("", "UNAVAILABLE", IdentityState.UNRENEWED),
    ],
)
def test_the_page_says_what_is_wrong_with_an_identity(
    tmp_path: Path, site_id: str, error: str, state: IdentityState
) -> None:
    files.keep(tmp_path, papers())
    told = view(files.load(tmp_path), now_ns=START_NS, site_id=site_id, error=error)
    assert told.state is state
    assert bool(told.fix) == (state is not IdentityState.VALID)


def test_no_identity_is_no_fault_and_an_unreadable_one_is() -> None:
    assert view(None, now_ns=0).state is IdentityState.NONE
    assert view(None, now_ns=0, error="no PEM").state is IdentityState.UNUSABLE


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    mine, other = papers(), papers()
    found = seen(tmp_path, replace(mine, key_pem=other.key_pem)).enrolled
    assert found is not None
    with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
        identity.context(found.identity)
