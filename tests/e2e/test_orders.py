"""An order goes down and is followed; who dies changes nothing for the worse.

Clocks are real: a lease is the shortest that may be ordered, and nothing waits for one to end that
is not asked for here.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import PATIENCE_S, Rig, rig

from heatpool_aggregator.core.audit import first_break
from heatpool_aggregator.stores.audit import open_audit

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WISH_W = 8_000
LEASE_S = 30


async def asked(running: Rig, *words: str) -> tuple[int, str, str]:
    """What the operator's command says to this aggregator."""
    command = [sys.executable, "-m", "heatpool_aggregator.client", *words]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--address", running.grpc],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def steps_of(lines: str) -> list[dict[str, Any]]:
    """The steps that were watched, a document each."""
    decoder, found = json.JSONDecoder(), []
    rest = lines.strip()
    while rest:
        step, end = decoder.raw_decode(rest)
        found.append(step)
        rest = rest[end:].strip()
    return found


async def overridden(running: Rig, *words: str) -> None:
    """What the local operator says at the site."""
    config = str(running.folder / "agent-e1.toml")
    command = [sys.executable, "-m", "heatpool_agent", "override", "--config", config, *words]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def until_told(running: Rig, state: str, detail: str) -> None:
    """Waits until the aggregator knows that the order stands so, and why."""
    await running.eventually(
        "/v1/sites",
        lambda answer: (
            answer["sites"][0]["setpoint"]["state"] == state
            and answer["sites"][0]["setpoint"]["detail"].startswith(detail)
        ),
    )


async def agent_setpoint(running: Rig) -> dict[str, Any]:
    held: dict[str, Any] = (await running.agent_status("e1"))["setpoint"]
    return held


AUDITED = [
    ("aggregator", "setpoint.sent"),
    ("site/e1", "setpoint.received"),
    ("site/e1", "setpoint.applied"),
    ("site/e1", "setpoint.effect_seen"),
    ("site/e1", "setpoint.overridden"),
    ("site/e1", "setpoint.applied"),
]


async def test_an_order_is_followed_until_the_meter_shows_it_and_ends_with_its_lease(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, sites=1, mode="local", armed=True) as running:
        await running.eventually(
            "/v1/sites", lambda answer: answer["sites"][0]["heat_rate_w"] is not None
        )
        order = ("setpoint", "e1", "--heat-rate-w", str(WISH_W), "--reason", "greenhouse is cold")
        code, told, failed = await asked(
            running, *order, "--lease", f"{LEASE_S}s", "--watch", "--json"
        )
        assert code == 0, (told, failed)
        steps = steps_of(told)
        assert [step["state"] for step in steps] == ["sent", "received", "applied", "effect_seen"]
        assert all(step["event_ns"] and step["received_ns"] for step in steps)
        asked_w = (await running.ask("/v1/sites"))["sites"][0]["setpoint"]["heat_rate_w"]
        assert asked_w == WISH_W
        # All within the lease, so that it costs no time: the local operator decides otherwise.
        await overridden(running, "--for", "60s", "--reason", "filter")
        await until_told(running, "overridden", "local override until")
        await overridden(running, "--end")
        await until_told(running, "applied", "applied")
        code, told, failed = await asked(running, "audit", "--json")
        assert code == 0, failed
        entries = json.loads(told)["entries"]
        (entry,) = [e for e in entries if e["action"] == "setpoint.set"]
        audited = [(e["who"], e["action"]) for e in reversed(entries) if e["who"] != "local"]
        assert audited == AUDITED
        # From here on nobody renews: the site is on its own when the lease has run out.
        await running.aggregator.kill()
        async with asyncio.timeout(PATIENCE_S):
            while (await agent_setpoint(running))["reason"] != "no lease":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        held = await agent_setpoint(running)
        assert (held["applied_heat_rate_w"], held["lease_left_s"]) == (None, 0)
        async with open_audit(tmp_path / "aggregator") as audit:
            kept = await audit.read(100)
        assert first_break(kept[::-1]) is None
        (found,) = [each for each in kept if each.number == entry["number"]]
        assert (found.who, found.subject, found.reason) == (
            "local",
            "site/e1",
            "greenhouse is cold",
        )
        assert json.loads(found.detail)["heat_rate_w"] == WISH_W
