"""How soon, how surely and by what name faults are told, and how often where there is none.

The watch of `core.residual` sees a minute's means of loops whose every nominal and bias is hidden
(`fault_plant`): three clean days, then a fault. Clean runs of every profile of load count false
alarms.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field, fields
from math import inf, isnan
from typing import Any

import click
import numpy as np
from fault_plant import DAY_S, FAULTS, NAMES, PROFILES, SAMPLE_S, Shown, draw

from heatpool.heat import heat_rate_w
from heatpool_agent.core import residual
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

NS = 1_000_000_000
# Since 1970, so that no time is 0.
START_NS = 1_800_000_000 * NS
# physics.md 9 at h = 80: median delay, s, and share caught.
TARGETS = {
    "swapped_sensors": (900.0, 1.0), "air_in_loop": (50 * 60.0, 1.0),
    "power_meter": (70 * 60.0, 1.0), "stuck_hot": (70 * 60.0, 1.0), "stuck_cold": (70 * 60.0, 1.0),
    "stuck_flow": (70 * 60.0, 1.0), "fouling": (3.7 * 3600, 1.0), "pair_offset": (5.6 * 3600, 1.0),
    "sensor_drift": (53 * 3600.0, 0.93), "flow_2": (inf, 0.5),
}  # fmt: skip


@dataclass(slots=True)
class Score:
    """What became of the runs with one fault."""

    delays_s: list[float] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    at_once: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    false_count: int = 0
    site_days: float = 0.0
    evidence: str = ""


def over(shown: Shown, minutes: int) -> Shown:
    """The same with means over several minutes; a span with a gap in it is absent."""
    if minutes == 1:
        return shown
    length = shown.power_w.shape[1] // minutes * minutes
    means = {
        one.name: getattr(shown, one.name)[:, :length]
        .reshape(-1, length // minutes, minutes)
        .mean(2)
        for one in fields(shown)
        if one.name != "start_s"
    }
    return Shown(**means, start_s=shown.start_s)


def watched(
    shown: Shown, run: int, model: LoopModel, span_s: float = SAMPLE_S
) -> list[tuple[float, Fault]]:
    """Every fault that was told, with the time at which it was told or renamed, s."""
    heat_w = heat_rate_w(
        shown.volume_flow_m3_h[run], shown.hot_c[run], shown.cold_c[run], "cold", "water"
    )
    columns = (
        shown.power_w[run], shown.volume_flow_m3_h[run], shown.hot_c[run], shown.cold_c[run],
        heat_w, 0.75 * 0.98 * shown.late_w[run],
    )  # fmt: skip
    rows = np.array(columns).T.tolist()
    watch, told, before = residual.begin(model), [], frozenset[tuple[str, int]]()
    for index, row in enumerate(rows):
        power_w, flow_m3_h, hot_c, cold_c, found_w, late_w = (None if x != x else x for x in row)
        sample = LoopSample(
            span_s=span_s, power_w=power_w, volume_flow_m3_h=flow_m3_h, hot_c=hot_c, cold_c=cold_c
        )
        at_s = (index + 1) * span_s
        residual.observe(
            watch, sample, computed_w=found_w, electric_lagged_w=late_w,
            event_ns=START_NS + round(at_s * NS),
        )  # fmt: skip
        if watch.lasting:
            now = frozenset((f.fault, f.start_ns) for f in watch.lasting.values())
            if now != before:
                kept = watch.lasting.values()
                told += [(at_s, f) for f in kept if (f.fault, f.start_ns) not in before]
                before = now
    return told


def score_faults(shown: Shown, score: Score, model: LoopModel, span_s: float) -> None:
    """Counts the runs of one draw."""
    for run in range(len(shown.start_s)):
        told = watched(shown, run, model, span_s)
        start_s = float(shown.start_s[run])
        early = [one for one in told if one[0] < start_s]
        late = [one for one in told if one[0] >= start_s]
        score.runs += 1
        score.false_count += len({fault.start_ns for _, fault in early})
        score.site_days += start_s / DAY_S
        if not late:
            score.delays_s.append(inf)
            continue
        score.delays_s.append(late[0][0] - start_s)
        score.at_once[late[0][1].fault] += 1
        score.told[late[-1][1].fault] += 1
        score.evidence = late[-1][1].evidence


def score_clean(shown: Shown, score: Score, model: LoopModel, span_s: float) -> None:
    """Counts false alarms of clean runs."""
    score.site_days += shown.power_w.size * span_s / DAY_S
    for run in range(len(shown.power_w)):
        # A fault that gets another name is still one alarm.
        for fault in {
            fault.start_ns: fault for _, fault in watched(shown, run, model, span_s)
        }.values():
            score.false_count += 1
            score.told[fault.fault] += 1
            score.evidence = fault.evidence
        score.runs += 1


def say(text: str) -> None:
    """Progress, for whoever waits."""
    click.echo(text, err=True)


def row_of(fault: str, score: Score) -> dict[str, Any]:
    """One line of the table."""
    delays_s = sorted(score.delays_s)
    caught = sum(d < inf for d in delays_s) / max(1, score.runs)
    median_s = delays_s[len(delays_s) // 2] if delays_s else inf
    name = NAMES.get(fault, fault)
    found = max(1, sum(score.told.values()))
    target_s, least = TARGETS.get(fault, (inf, 0.0))
    return {
        "fault": fault,
        "runs": score.runs,
        "caught_frac": caught,
        "median_delay_s": None if median_s == inf else median_s,
        "target_s": None if target_s == inf else target_s,
        "target_caught_frac": least,
        "named_at_once_frac": score.at_once[name] / found,
        "named_frac": score.told[name] / found,
        "told": dict(score.told.most_common()),
        "example": score.evidence,
    }


def line_of(row: dict[str, Any]) -> str:
    """The row for a person."""

    def hours(seconds: float | None) -> str:
        if seconds is None or isnan(seconds):
            return "     -"
        return f"{seconds / 3600:5.1f}h" if seconds >= 7200 else f"{seconds / 60:3.0f}min"

    told = ", ".join(f"{name} {count}" for name, count in row["told"].items())
    return (
        f"{row['fault']:16} {row['runs']:4} {hours(row['median_delay_s'])} "
        f"({hours(row['target_s'])}) {row['caught_frac']:5.0%} ({row['target_caught_frac']:4.0%}) "
        f"{row['named_at_once_frac']:5.0%} {row['named_frac']:5.0%}  {told}"
    )


@click.command()
@click.option("--runs", default=6, help="Runs of each fault, and of each clean profile.")
@click.option("--days", default=7.0, help="Length of a run; the fault begins on the fourth day.")
@click.option("--seed", default=1, help="Another seed draws other sites.")
@click.option("--only", default="", help="One fault, or `clean`.")
@click.option("--profile", default="base", help="Load of the runs with a fault.")
@click.option("--minutes", default=1, help="Period of the samples.")
@click.option("--clean-days", default=3.0, help="Days before the fault begins.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(
    *,
    runs: int,
    days: float,
    seed: int,
    only: str,
    profile: str,
    minutes: int,
    clean_days: float,
    as_json: bool,
) -> None:
    """Prints delays, catch rates, names told, and false alarms per site-day."""
    model = LoopModel()
    rows: list[dict[str, Any]] = []
    clean: dict[str, dict[str, Any]] = {}
    for fault in FAULTS if not only else [only] if only in FAULTS else []:
        say(f"{fault}: {runs} runs of {days:g} days")
        score = Score()
        shown = draw(profile, fault, seed=seed, runs=runs, days=days, clean_days=clean_days)
        score_faults(over(shown, minutes), score, model, minutes * SAMPLE_S)
        rows.append(row_of(fault, score))
        say(line_of(rows[-1]))
    for name in PROFILES if only in ("", "clean") else ():
        say(f"clean {name}: {runs} runs of {days:g} days")
        score = Score()
        shown = draw(name, "", seed=seed + 1, runs=runs, days=days)
        score_clean(over(shown, minutes), score, model, minutes * SAMPLE_S)
        clean[name] = {
            "site_days": score.site_days,
            "false_count": score.false_count,
            "told": dict(score.told),
            "example": score.evidence,
        }
        say(f"  {score.site_days:.0f} site-days, {score.false_count} false alarms {score.told}")
    if as_json:
        sys.stdout.write(json.dumps({"faults": rows, "clean": clean}) + "\n")
        return
    click.echo("fault            runs median (most)  caught (least) named at once, at last; told")
    for row in rows:
        click.echo(line_of(row))
    site_days = sum(float(one["site_days"]) for one in clean.values())
    false_count = sum(int(one["false_count"]) for one in clean.values())
    click.echo(f"clean: {false_count} false alarms in {site_days:.0f} site-days; {clean}")


if __name__ == "__main__":
    main()
