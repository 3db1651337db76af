"""What a newcomer trusts, what it tells to whom, and what it says when it is not let in."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from integration.aggregator_door import TOKEN, Answer, Door, door, enrolled, told
from integration.uplink_site import HEAT, Clock
from unit.agent.certificates import Ca

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.sample import Row, SpoolKind
from heatpool_agent.__main__ import EXIT_RUN, EXIT_USAGE
from heatpool_agent.commands.join import command
from heatpool_agent.enrol import files
from heatpool_agent.enrol.https import Unreachable
from heatpool_agent.enrol.joining import Ask, waited
from heatpool_agent.enrol.keys import Request
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool as Spool
from heatpool_agent.spool_schema import migrate

OURS, THEIRS = Ca("ours"), Ca("theirs")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, as the program around it tells it."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(slots=True)
class Site:
    """One site that wants to join."""

    folder: Path
    id: str = "e1"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def run(self, *words: str, stdin: str = "") -> Done:
        config = self.folder / "agent.toml"
        config.write_text(f'[site]\nid = "{self.id}"\nstate_dir = "{self.state}"\n')
        # A proxy of the environment is asked for nothing.
        environ = {"https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}
        told = CliRunner().invoke(
            command, [*words, "--config", str(config)], input=stdin, env=environ
        )
        if isinstance(told.exception, HeatpoolError):
            code = EXIT_USAGE if isinstance(told.exception, ConfigError) else EXIT_RUN
            return Done(code, told.stdout, f"{told.stderr}{told.exception}")
        assert isinstance(told.exception, SystemExit | None), told.exception
        return Done(told.exit_code, told.stdout, told.stderr)

    def join(self, url: str, *words: str) -> Done:
        return self.run(url, "--token", TOKEN, "--ca-hash", OURS.ca_hash, *words)

    @property
    def has_joined(self) -> bool:
        return files.load(self.state) is not None


def written(folder: Path, *, is_sent: bool) -> Spool:
    """An agent's spool after one row and one reading of a meter; closed."""
    migrate(folder)
    spool = Spool(folder, clock=Clock(), rows_per_frame=1, max_bytes=10**9, keep_s=86_400)
    spool.append(Row(event_ns=1, cells={HEAT: 1.0}))
    if is_sent:
        spool.forget(SpoolKind.TELEMETRY, Seq(1))
    return spool


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path, ca=OURS) as made:
        yield made


def test_a_site_joins_once_and_again_only_by_force(site: Site, ours: Door) -> None:
    done = site.join(ours.url, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "heatpool.join/1"
    # It listens everywhere: it is reached where it answered.
    assert (document["site_id"], document["grpc"]) == ("e1", "127.0.0.1:8443")
    found = files.load(site.state)
    assert found is not None
    assert found.certificate.fingerprint == document["fingerprint"]
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    assert not ours.has_seen("PRIVATE KEY")
    again = site.join(ours.url)
    assert (again.returncode, "--force" in again.stderr, "e1" in again.stderr) == (2, True, True)
    assert site.join(ours.url, "--force").returncode == 0
    newer = files.load(site.state)
    assert newer is not None
    assert newer.identity.key_pem != found.identity.key_pem


def test_a_token_comes_from_a_file_or_from_stdin(site: Site, ours: Door) -> None:
    words = (ours.url, "--token-file", "-", "--ca-hash", OURS.ca_hash.upper().replace("SHA", "sha"))
    assert site.run(*words, stdin=f"{TOKEN}\n").returncode == 0
    assert ours.has_seen(TOKEN)


def test_an_identity_is_forgotten_and_the_spool_stays(site: Site, ours: Door) -> None:
    assert site.join(ours.url).returncode == 0
    (site.state / "telemetry.db").write_text("rows")
    assert site.run("--forget").returncode == 0
    assert not site.has_joined
    assert (site.state / "telemetry.db").read_text() == "rows"
    assert "had not joined" in site.run("--forget").stdout


def test_a_man_in_the_middle_with_a_ca_of_his_own_never_sees_the_token(site: Site) -> None:
    with door(site.folder, ca=THEIRS) as middle:
        done = site.join(middle.url)
    assert done.returncode == 1
    assert "the token was not sent" in done.stderr
    assert OURS.ca_hash in done.stderr
    assert THEIRS.ca_hash in done.stderr
    assert [path for path, _ in middle.asked] == ["/v1/ca"]
    assert not site.has_joined


def test_one_who_shows_our_ca_and_is_another_never_sees_the_token(site: Site) -> None:
    with door(site.folder, ca=THEIRS, shown=OURS) as middle:
        done = site.join(middle.url)
    assert done.returncode == 1
    assert "the token was not sent" in done.stderr
    assert [path for path, _ in middle.asked] == ["/v1/ca"]


def test_a_certificate_for_another_name_is_refused_before_the_token(site: Site) -> None:
    with door(site.folder, ca=OURS, host="192.0.2.7") as other:
        done = site.join(other.url)
    assert done.returncode == 1
    assert "renew-server --host 127.0.0.1" in done.stderr
    assert [path for path, _ in other.asked] == ["/v1/ca"]


@pytest.mark.parametrize("path", ["/v1/ca", "/v1/join"])
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_not_followed(site: Site, ours: Door, path: str, status: int) -> None:
    with door(site.folder, ca=OURS) as elsewhere:
        ours.answers[path] = lambda _: (status, {"Location": f"{elsewhere.url}{path}"}, b"")
        done = site.join(ours.url)
    assert (done.returncode, elsewhere.asked) == (1, [])
    assert "not followed" in done.stderr


@pytest.mark.parametrize(
    ("words", "told_text"),
    [
        (("http://127.0.0.1:1", "--token", TOKEN, "--ca-hash", OURS.ca_hash), "https://"),
        (("ftp://127.0.0.1:1", "--token", TOKEN, "--ca-hash", OURS.ca_hash), "https://"),
        (("https://h/v1/join", "--token", TOKEN, "--ca-hash", OURS.ca_hash), "https://"),
        (("https://h:99999", "--token", TOKEN, "--ca-hash", OURS.ca_hash), "https://"),
        (("https://h", "--token", TOKEN, "--ca-hash", "sha256:12"), "token new"),
        (("https://h", "--token", TOKEN), "token new"),
        (("https://h", "--ca-hash", OURS.ca_hash), "--token"),
        (("https://h", "--token", "secret-word", "--ca-hash", OURS.ca_hash), "abc123."),
        (
            ("https://h", "--token", TOKEN, "--ca-hash", OURS.ca_hash, "--site-id", "e2"),
            "site.id",
        ),
    ],
)
def test_a_mistake_on_the_line_is_told_before_anything_is_asked(
    site: Site, words: tuple[str, ...], told_text: str
) -> None:
    done = site.run(*words)
    assert done.returncode == 2
    assert told_text in done.stderr
    assert "secret-word" not in done.stderr


def test_nobody_there_is_69(site: Site) -> None:
    done = site.join("https://127.0.0.1:1")
    assert done.returncode == 69
    assert "firewall" in done.stderr


def test_a_refusal_is_told_in_the_aggregators_own_words(site: Site, ours: Door) -> None:
    ours.answers["/v1/join"] = lambda _: told(403, detail="this token was used up: make a new one")
    done = site.join(ours.url)
    assert (done.returncode, "used up" in done.stderr) == (1, True)
    assert TOKEN not in done.stderr
    assert not site.has_joined


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: told(200),
        lambda _: (200, {}, b"<html>"),
        lambda body: enrolled(OURS, body, site_id="e2"),
        lambda body: enrolled(OURS, body, other_key=True),
        lambda _: told(200, chain_pem="x", ca_pem="y", grpc="h:1", renew_after_ns=1),
        lambda _: told(200, chain_pem=OURS.pem, ca_pem=OURS.pem, grpc="h", renew_after_ns="x"),
    ],
)
def test_an_answer_that_is_no_certificate_of_ours_is_not_kept(
    site: Site, ours: Door, answer: Callable[[bytes], Answer]
) -> None:
    ours.answers["/v1/join"] = answer
    done = site.join(ours.url)
    assert (done.returncode, site.has_joined) == (1, False)


def test_who_waits_keeps_the_key_that_is_to_be_approved(site: Site, ours: Door) -> None:
    ours.answers["/v1/join"] = lambda _: told(202)
    first = site.join(ours.url, "--no-wait")
    assert first.returncode == 3
    assert "site approve e1 --key" in first.stderr
    assert not site.has_joined
    second = site.join(ours.url, "--no-wait")
    assert second.stderr == first.stderr
    ours.answers["/v1/join"] = lambda body: enrolled(OURS, body)
    assert site.join(ours.url, "--no-wait").returncode == 0
    requests = [json.loads(body)["csr_pem"] for path, body in ours.asked if path == "/v1/join"]
    assert len(requests) == 3
    assert not (files.folder_of(site.state) / files.ASKING).exists()


def test_waiting_goes_on_over_an_aggregator_that_is_away_or_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dead(*_: Any, **__: Any) -> Any:
        raise Unreachable("away")

    lines: list[str] = []
    waits_s: list[float] = []

    def sleep(wait_s: float) -> None:
        waits_s.append(wait_s)
        if len(waits_s) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("heatpool_agent.enrol.https.ask", dead)
    ask = Ask(
        door=None,  # type: ignore[arg-type]  # nobody is asked
        token=TOKEN,
        ca_hash="",
        site_id="e1",
        request=Request(key_pem="", csr_pem="", key_sha256=""),
    )
    with pytest.raises(KeyboardInterrupt):
        waited(ask, None, told=lines.append, sleep=sleep)  # type: ignore[arg-type]
    assert (lines, len(waits_s)) == (["away"] * 3, 3)


def test_a_plain_port_is_told_as_one(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = site.join(f"https://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert done.returncode == 1
    assert "heatpool-aggregator init" in done.stderr


# Another name for the same folder


def test_rows_that_wait_are_never_sent_under_another_name(site: Site, ours: Door) -> None:
    assert site.join(ours.url).returncode == 0
    written(site.state, is_sent=False).close()
    site.id = "e2"
    ours.asked.clear()
    done = site.join(ours.url, "--force")
    assert (done.returncode, ours.asked) == (2, [])
    assert "1 telemetry rows of site e1 wait there, and would be sent as e2" in done.stderr
    assert (site.state / "telemetry.db").exists()
    site.id = "e1"
    assert site.join(ours.url, "--force").returncode == 0, "the same name again"


def test_a_name_that_was_forgotten_still_owns_the_rows_that_wait(site: Site, ours: Door) -> None:
    assert site.join(ours.url).returncode == 0
    written(site.state, is_sent=False).close()
    assert site.run("--forget").returncode == 0
    site.id = "e2"
    done = site.join(ours.url)
    assert (done.returncode, "of site e1 wait there" in done.stderr) == (2, True)
    site.id = "e1"
    assert site.join(ours.url).returncode == 0
    assert not (site.state / "spooled_as").exists()


def test_two_names_share_no_boot_id_and_what_was_sent_stays_aside(site: Site, ours: Door) -> None:
    assert site.join(ours.url).returncode == 0
    spool = written(site.state, is_sent=True)
    before = {spool.mark(kind).boot_id for kind in SpoolKind}
    spool.close()
    site.id = "e2"
    assert site.join(ours.url, "--force").returncode == 0
    found = files.load(site.state)
    assert found is not None and found.site_id == "e2"
    names = {path.name.split(".of-e1-")[0] for path in site.state.glob("*.of-e1-*")}
    assert {"telemetry.db", "billing.db"} <= names
    anew = written(site.state, is_sent=False)
    assert not before & {anew.mark(kind).boot_id for kind in SpoolKind}
    assert anew.mark(SpoolKind.TELEMETRY).next_seq == 2
    anew.close()


def test_a_name_is_not_changed_under_a_running_agent(site: Site, ours: Door) -> None:
    assert site.join(ours.url).returncode == 0
    running = written(site.state, is_sent=True)
    site.id = "e2"
    ours.asked.clear()
    done = site.join(ours.url, "--force")
    running.close()
    assert (done.returncode, ours.asked) == (1, [])
    assert "in use by another agent; stop it" in done.stderr


def test_a_site_without_a_name_in_its_settings_keeps_the_one_it_joined_with(
    site: Site, ours: Door
) -> None:
    site.id = "auto"
    assert site.join(ours.url, "--site-id", "e7").returncode == 0
    assert site.join(ours.url, "--force").returncode == 0
    assert site.run("--forget").returncode == 0
    assert site.join(ours.url).returncode == 0
    found = files.load(site.state)
    assert found is not None and found.site_id == "e7"


def test_a_name_that_is_none_is_told_before_anything_is_asked(site: Site, ours: Door) -> None:
    site.id = "auto"
    done = site.join(ours.url, "--site-id", "load-*")
    assert (done.returncode, ours.asked) == (2, [])
    assert "--site-id: is 'load-*', must be one name" in done.stderr
