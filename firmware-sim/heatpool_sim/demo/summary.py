"""What the demo found out, as one tree: told by the programs, checked against the plant. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heatpool_sim.demo.settings import MACHINE

MODULUS_WH = 10**8  # eight digits, as on our meters' displays
_LOOK_AROUND_NS = 5 * 10**9  # two reading periods and a step: between them a register is a guess

Page = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Registers of all plants at an instant, read from the plants themselves."""

    at_ns: int
    registers_wh: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Pages as they were read at the end, None where a program gave no answer."""

    sites: Page | None
    sources: Page | None
    statements: Page | None
    balance: Page | None
    status: Page | None
    agents: Sequence[Page | None]
    restarts_count: int
    seen: Sequence[Seen]


def summary(found: Findings) -> dict[str, Any]:
    """One tree of figures; what no program told is None, never 0."""
    statements = _items(found.statements, "statements")
    known = _items(found.sites, "sites")
    sites = [site["site_id"] for site in known if site.get("event_ns") is not None]
    return {
        "sites": len(sites),
        "real_sites": sites.count(MACHINE),
        "batches_sent": _total(found.agents, "uplink", "batches_sent"),
        "batches_acked": _total(found.agents, "uplink", "batches_acked"),
        "duplicates_ignored": ((found.status or {}).get("ingest") or {}).get("duplicates_ignored"),
        "spool_unacked": unacked(found.agents),
        "virtual_sources": [_source(source) for source in _items(found.sources, "virtual_sources")],
        "statement": _statement(_newest_whole(statements)),
        "balance_error_wh": unaccounted_wh(statements),
        "balance": found.balance,
        "plant_error_wh": plant_error_wh(statements, found.seen),
        "periods": len(statements),
        "restarts": found.restarts_count,
        "setpoints": [
            {"site": site["site_id"], **site["setpoint"]}
            for site in known
            if isinstance(site.get("setpoint"), Mapping)
        ],
    }


def unaccounted_wh(statements: Iterable[Page]) -> int | None:
    """Wh that the statements and the registers they name do not agree on; None without any.

    Per meter: the energies must add up to its last register minus its first, wraps included, and
    each line to its own two registers.
    """
    chains: dict[tuple[str, ...], list[Page]] = defaultdict(list)
    for statement in sorted(statements, key=lambda one: int(one["start_ns"])):
        for line in statement["lines"]:
            chains[line["site_id"], line["metering_point_id"], line["meter_id"]].append(line)
    if not chains:
        return None
    return sum(_chain_error_wh(lines) for lines in chains.values())


def plant_error_wh(statements: Iterable[Page], seen: Sequence[Seen]) -> int | None:
    """Largest distance, Wh, of a billed register from what the plant's meter showed around then.

    None if no line falls into the time in which the plants were watched.
    """
    errors = [
        error
        for statement in statements
        for line in statement["lines"]
        for at_ns, register_wh in _edges(statement, line)
        if (error := _distance_wh(register_wh, _shown(seen, line["site_id"], at_ns))) is not None
    ]
    return max(errors, default=None)


def unacked(agents: Iterable[Page | None]) -> int | None:
    """Frames that agents hold and know of no durable copy; None if an agent did not say."""
    marks = [
        mark.get("unacked")
        for agent in agents
        for mark in ((agent or {}).get("spool") or {"": {}}).values()
    ]
    return None if None in marks else sum(marks)


def _chain_error_wh(lines: Sequence[Page]) -> int:
    billed_wh = sum(int(line["energy_wh"]) for line in lines)
    moved_wh = sum(_moved_wh(line["register_open_wh"], line["register_close_wh"]) for line in lines)
    whole_wh = _moved_wh(lines[0]["register_open_wh"], lines[-1]["register_close_wh"])
    return max(abs(billed_wh - moved_wh), abs(billed_wh - whole_wh) % MODULUS_WH)


def _edges(statement: Page, line: Page) -> Iterator[tuple[int, int]]:
    """Times and registers of a line's edges that lie on the edges of its period."""
    flags = set(line.get("flags", ()))
    if not flags & {"opening", "exchange"}:
        yield int(statement["start_ns"]), int(line["register_open_wh"])
    if "exchange" not in flags:
        yield int(statement["end_ns"]), int(line["register_close_wh"])


def _moved_wh(opened_wh: int, closed_wh: int) -> int:
    return (int(closed_wh) - int(opened_wh)) % MODULUS_WH


def _shown(seen: Sequence[Seen], site_id: str, at_ns: int) -> list[int]:
    """Registers that the plant showed around an instant; none where nobody watched."""
    if not seen or not seen[0].at_ns <= at_ns <= seen[-1].at_ns:
        return []
    return [
        one.registers_wh[site_id]
        for one in seen
        if abs(one.at_ns - at_ns) <= _LOOK_AROUND_NS and site_id in one.registers_wh
    ]


def _distance_wh(register_wh: int, shown_wh: Sequence[int]) -> int | None:
    if not shown_wh:
        return None
    beyond_wh = _moved_wh(shown_wh[0], register_wh)
    if beyond_wh <= max(_moved_wh(shown_wh[0], one) for one in shown_wh):
        return 0
    return min(min(_moved_wh(one, register_wh), _moved_wh(register_wh, one)) for one in shown_wh)


def _newest_whole(statements: Sequence[Page]) -> Page | None:
    """The newest statement to which nothing is missing; without one, that with most lines."""
    whole = [one for one in statements if one.get("is_complete") and one["lines"]]
    if whole:
        return max(whole, key=lambda one: int(one["start_ns"]))
    return max(statements, key=lambda one: (len(one["lines"]), int(one["start_ns"])), default=None)


def _statement(statement: Page | None) -> dict[str, Any] | None:
    if statement is None:
        return None
    return {
        "period_start": statement["period_start"],
        "period_end": statement["period_end"],
        "is_complete": statement.get("is_complete"),
        "lines": [
            {
                "virtual_source": line["virtual_source_id"],
                "site": line["site_id"],
                "register_open_wh": line["register_open_wh"],
                "register_close_wh": line["register_close_wh"],
                "energy_wh": line["energy_wh"],
                "amount_eur": line["amount_eur"],
                "meter_id": line["meter_id"],
                "flags": line.get("flags", []),
            }
            for line in statement["lines"]
        ],
    }


def _source(source: Page) -> dict[str, Any]:
    names = (
        "kind",
        "heat_rate_w",
        "heat_rate_w_u",
        "hot_c",
        "cold_c",
        "energy_wh",
        "quality_class",
        "members_count",
        "fresh_count",
    )
    return {"id": source["virtual_source_id"], **{name: source.get(name) for name in names}}


def _items(page: Page | None, key: str) -> list[Any]:
    return list((page or {}).get(key) or [])


def _total(agents: Iterable[Page | None], room: str, key: str) -> int | None:
    counts: list[int | None] = [((agent or {}).get(room) or {}).get(key) for agent in agents]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
