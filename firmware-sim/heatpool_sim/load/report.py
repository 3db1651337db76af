"""The report of a run: one tree whose keys stay as they are, and the same for people."""

import resource
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from heatpool.sample import SpoolKind
from heatpool_sim.load.agent import Agent
from heatpool_sim.load.asked import Asked, Storm
from heatpool_sim.load.figures import CHANNELS
from heatpool_sim.load.tally import Tally, Times
from heatpool_sim.wire.garbage import FRAMES

VERSION = 1
_KB = 1_024


class Run(Protocol):
    """What a report is made of."""

    asked: Asked
    tally: Tally
    agents: list[Agent]
    storms: list[tuple[Storm, int, Times]]

    @property
    def running_s(self) -> float:
        """Time since the start, s."""
        ...

    @property
    def left_count(self) -> int:
        """Frames that are complete and not known to be durable."""
        ...


def progress(run: Run) -> dict[str, object]:
    """How far it is, one line."""
    counts, live = run.tally.counts, run.tally.latencies["live"].quantile_s(0.99)
    return {
        "running_s": round(run.running_s, 1),
        "connected": run.tally.connected,
        "batches": counts["batches"] + counts["register_batches"],
        "acked": counts["acked"],
        "left": run.left_count,
        "live_p99_s": round(live or 0.0, 3),
        "refused": run.tally.refused.total(),
        "retry_afters": counts["retry_afters"],
        "ends": run.tally.ends.total(),
        "backlogs_open": run.tally.backlogs_open,
    }


def tree(run: Run, *, lasted_s: float, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The whole report."""
    tally, counts = run.tally, run.tally.counts
    queues = [queue for agent in run.agents for queue in agent.site.queues]
    return {
        "version": VERSION,
        "agents": _agents(run),
        "lasted_s": round(lasted_s, 3),
        "sent": _sent(tally),
        "bytes_per_value": _share(counts["row_bytes"], counts["rows"] * len(CHANNELS)),
        "durable": durable(run.agents),
        "left": run.left_count,
        "lost": sum(queue.denied_count for queue in queues),
        "dropped": sum(b - a + 1 for queue in queues for a, b in queue.dropped.pairs),
        "checked": sum(agent.site.is_checked for agent in run.agents),
        "latency_ms": {name: times.tree() for name, times in tally.latencies.items()},
        "refused": dict(sorted(tally.refused.items())),
        "garbage": {
            "frames": dict(sorted(tally.frames_of_garbage.items())),
            "refusals_due": _refusals_due(tally.frames_of_garbage),
            "enders": dict(sorted(tally.enders.items())),
        },
        "told": {name: counts[name] for name in ("retry_afters", "slows", "resends")},
        "reconnects": max(0, tally.greeted - sum(agent.was_in for agent in run.agents)),
        "ends": dict(sorted(tally.ends.items())),
        "storms": [_storm(*one) for one in run.storms],
        "backlog": _backlog(run),
        "own": _own(len(run.agents), tally.lags),
        "witness": found,
    }


def _agents(run: Run) -> dict[str, Any]:
    return {
        "count": len(run.agents),
        "liars": sum(agent.site.is_liar for agent in run.agents),
        "bad_clocks": sum(bool(agent.site.offset_ns) for agent in run.agents),
        "connected_most": run.tally.connected_most,
        "never_connected": sum(not agent.was_in for agent in run.agents),
        "refused_for_good": dict(run.tally.refused_for_good),
    }


def _sent(tally: Tally) -> dict[str, int]:
    counts = tally.counts
    return {
        "batches": counts["batches"],
        "rows": counts["rows"],
        "values": counts["rows"] * len(CHANNELS),
        "register_batches": counts["register_batches"],
        "registers": counts["registers"],
        "garbage": tally.frames_of_garbage.total(),
        "gaps": counts["gaps"],
        "repeats": counts["repeats"],
        "bytes": counts["bytes"],
    }


def _own(agents_count: int, lags: Times) -> dict[str, Any]:
    """What this process took itself, and how late it was."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    rss_bytes = spent.ru_maxrss * _KB
    return {
        "cpu_s": round(spent.ru_utime + spent.ru_stime, 3),
        "rss_bytes": rss_bytes,
        "rss_agent_bytes": rss_bytes // agents_count,
        "lag_ms": lags.tree(),
    }


def durable(agents: Iterable[Agent]) -> dict[str, int]:
    """What is acknowledged of all sites, by the last that the aggregator said."""
    found: Counter[str] = Counter(batches=0, rows=0, register_batches=0, registers=0, garbage=0)
    for agent in agents:
        for queue in agent.site.queues:
            names = ("batches", "rows")
            if queue.kind is SpoolKind.BILLING:
                names = ("register_batches", "registers")
            for first, last in queue.arrived():
                if agent.site.is_liar and queue.kind is SpoolKind.TELEMETRY:
                    honest_last = min(last, agent.site.live_from_seq - 1)
                    found["garbage"] += last - max(honest_last, first - 1)
                    last = honest_last
                found[names[0]] += max(0, last - first + 1)
                found[names[1]] += queue.course.rows(first, last)
    return dict(found)


def _refusals_due(frames: Mapping[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for kind, count in frames.items():
        found[FRAMES[kind][1]] += count
    return dict(sorted(found.items()))


def _storm(storm: Storm, hit: int, times: Times) -> dict[str, Any]:
    return {
        "at_s": storm.at_s,
        "agents": hit,
        "back": times.count,
        "back_p50_s": _rounded(times.quantile_s(0.5)),
        "back_p99_s": _rounded(times.quantile_s(0.99)),
        "back_all_s": _rounded(times.most_s) if times.count == hit else None,
    }


def _backlog(run: Run) -> dict[str, Any] | None:
    """How fast history came in; `times_real` is by the last site."""
    if not run.asked.backlog_s:
        return None
    drains = run.tally.drains
    is_whole = run.tally.backlogs_open == 0 and drains.count > 0
    median_s = drains.quantile_s(0.5)
    return {
        "length_s": run.asked.backlog_s,
        "drained": drains.count,
        "open": run.tally.backlogs_open,
        "drain_p50_s": _rounded(median_s),
        "drain_all_s": _rounded(drains.most_s) if is_whole else None,
        "times_real_p50": _share(run.asked.backlog_s, median_s or 0.0),
        "times_real": _share(run.asked.backlog_s, drains.most_s) if is_whole else None,
    }


def _share(of: float, by: float) -> float | None:
    return round(of / by, 3) if by else None


def _rounded(length_s: float | None) -> float | None:
    return None if length_s is None else round(length_s, 3)


def text(found: Mapping[str, Any]) -> str:
    """The report for people."""
    agents, sent, durable_ = found["agents"], found["sent"], found["durable"]
    lines = [
        f"{agents['count']} agents, {agents['connected_most']} connected at most, "
        f"{agents['never_connected']} never; {found['lasted_s']:.1f} s",
        f"sent {sent['batches']} batches, {sent['rows']} rows, {sent['values']} values, "
        f"{sent['registers']} registers, {sent['garbage']} of garbage, {sent['repeats']} repeats",
        f"durable {durable_['batches']} batches, {durable_['rows']} rows, "
        f"{durable_['registers']} registers; left {found['left']}, dropped {found['dropped']}, "
        f"acknowledged and later denied {found['lost']}",
        f"bytes a value {_told(found['bytes_per_value'])}",
    ]
    for name, times in found["latency_ms"].items():
        if times["count"]:
            spread = ", ".join(f"{key} {times[key]} ms" for key in ("p50", "p90", "p99", "most"))
            lines.append(f"ack {name}: {spread} of {times['count']}")
    for name in ("refused", "ends", "told", "storms", "backlog", "own", "witness"):
        if found[name]:
            lines.append(f"{name}: {_told(found[name])}")
    return "\n".join(lines)


def _told(value: Any) -> str:
    """A part of the tree in one line."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{key} ({_told(part)})" if isinstance(part, Mapping) else f"{key} {_told(part)}"
            for key, part in value.items()
        )
    if isinstance(value, list):
        return "; ".join(_told(part) for part in value) or "-"
    return "-" if value is None else str(value)
