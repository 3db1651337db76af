"""How far the estimators of a loop's heat are from the Bayesian limit, and how honest their doubt.

    .venv/bin/python bench/estimator.py [--runs 300] [--hours 6] [--case base ...]
        [--candidate kalman ...] [--seed 1] [--json] [--plot limits.svg]

Six cases of physics.md 7.4, nominal values and biases drawn anew per run and hidden. Errors are RMS
in % of mean heat; "x limit" is against the reference's own posterior. Below 300 runs the exit
status judges by wider gates (agent.md 15), from there by the targets. A day's energy needs
--hours 25. Time per update is printed beside a bare Python loop of the same run.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

# Two processes share two cores: threads of the matrix library would only get in their way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import loop_plot
from loop_candidates import CANDIDATES, RECORD, REFERENCE, STATIC, UNTOLD, estimates, names_of
from loop_plant import CASES, SAMPLE_S, draw, model_of
from loop_scores import GATE, TARGET, Score, joined, scores, spans_of, verdicts

from heatpool_agent.core import kalman

SHARE_RUNS = 25
FULL_RUNS = 300
LOOPS_COUNT = 8
UPDATE_TARGET_US, CORE_TARGET_FRAC = 500.0, 0.0005

Found = dict[str, dict[str, Score]]


def share_scores(
    case_name: str, name: str, *, share: slice, runs: int, hours: float, seed: int
) -> dict[str, Score]:
    """One estimator on some runs of a case."""
    case = CASES[case_name]
    traces = draw(case, seed, runs=runs, hours=hours, share=share)
    spans = spans_of(traces, seed + share.start)
    return scores(estimates(name, case, traces, spans), traces, spans)


def measured(wanted: argparse.Namespace) -> Iterator[tuple[str, Found]]:
    """Every case and estimator, as soon as all of a case's shares are done."""
    shares = [
        slice(first, min(first + SHARE_RUNS, wanted.runs))
        for first in range(0, wanted.runs, SHARE_RUNS)
    ]
    fixed = {"runs": wanted.runs, "hours": wanted.hours, "seed": wanted.seed}
    with ProcessPoolExecutor(max_workers=wanted.processes) as workers:
        for case_name in wanted.case:
            names = names_of(CASES[case_name], wanted.candidate)
            jobs: dict[Future[dict[str, Score]], str] = {
                workers.submit(share_scores, case_name, name, share=share, **fixed): name
                for name in names
                for share in shares
            }
            for done, _ in enumerate(as_completed(jobs), start=1):
                told(f"\r{case_name}: {done} of {len(jobs)} shares ")
            told("\n")
            parts = {name: [job.result() for job in jobs if jobs[job] == name] for name in names}
            yield case_name, {name: joined(one) for name, one in parts.items()}


def told(text: str) -> None:
    """Progress, apart from the figures."""
    sys.stderr.write(text)
    sys.stderr.flush()


def faults_of(case_name: str, found: Found, *, runs: int) -> list[str]:
    """What of the estimator of record falls short."""
    limit, static = found[REFERENCE], found[STATIC]
    bounds = TARGET if runs >= FULL_RUNS else GATE
    return [
        f"{name}: {fault}"
        for name in (RECORD, UNTOLD)
        if name in found
        for fault in verdicts(CASES[case_name], found[name], limit, static, bounds=bounds)
    ]


def table(case_name: str, found: Found) -> str:
    """The figures of one case, a line per estimator."""
    limit = found[REFERENCE]
    spans = list(limit)
    lines = [f"\n{case_name}: RMS error in % of mean heat (x limit) NEES coverage"]
    lines.append(f"{'':18}" + "".join(f"{name:>28}" for name in spans))
    claims = "".join(f"{100 * limit[name].claimed_frac:>9.2f}{'':19}" for name in spans)
    lines.append(f"{'limit':18}{claims}")
    for name, one in found.items():
        cells = [
            f"{100 * score.rms_frac:>9.2f} ({score.rms_frac / limit[span].claimed_frac:4.2f})"
            f" {score.nees:5.2f} {100 * score.coverage_frac:5.1f}%"
            for span, score in one.items()
        ]
        lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def cost() -> dict[str, float]:
    """Time of one update of the estimator of record with two energies, beside a bare loop, us."""
    case = CASES["base"]
    traces = draw(case, 0, runs=1, hours=2)
    model = model_of(case)
    samples = [traces.sample(0, index) for index in range(traces.power_w.shape[1])]
    state = kalman.begin(model)
    for name in ("hour", "period"):
        state = kalman.with_energy(state, name)
    began = time.process_time()
    for sample in samples:
        state = kalman.advance(state, sample, model)
        kalman.heat(state)
    update_us = 1e6 * (time.process_time() - began) / len(samples)
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    bare_us = time.process_time() - began
    core_frac = LOOPS_COUNT * update_us / 1e6 / SAMPLE_S
    return {"update_us": update_us, "bare_loop_us": bare_us, "core_frac": core_frac}


def cost_line(figures: dict[str, float]) -> str:
    """The cost in words."""
    update_us, bare_us = figures["update_us"], figures["bare_loop_us"]
    return (
        f"\ncost: {update_us:.0f} us per update and loop (target {UPDATE_TARGET_US:.0f}), as long "
        f"as {update_us / bare_us:.0f} turns of a bare loop ({1000 * bare_us:.0f} ns a turn); "
        f"{LOOPS_COUNT} loops every {SAMPLE_S} s: {100 * figures['core_frac']:.3f} % of a core "
        f"(target {100 * CORE_TARGET_FRAC} %)"
    )


def asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the caller wants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--candidate", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; 1 when the estimator of record falls short."""
    wanted = asked(arguments)
    results: dict[str, Found] = {}
    faults: dict[str, list[str]] = {}
    for case_name, found in measured(wanted):
        results[case_name] = found
        faults[case_name] = faults_of(case_name, found, runs=wanted.runs)
        if not wanted.json:
            marks = [f"  FAILED {fault}" for fault in faults[case_name]]
            sys.stdout.write("\n".join([table(case_name, found), *marks]) + "\n")
            sys.stdout.flush()
    figures = cost() if RECORD in wanted.candidate else None
    if wanted.json:
        answer = {"cases": plain(results), "faults": faults, "cost": figures, "runs": wanted.runs}
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    elif figures:
        sys.stdout.write(cost_line(figures) + "\n")
    if wanted.plot:
        wanted.plot.write_text(loop_plot.svg(results))
    is_slow = figures is not None and figures["update_us"] > UPDATE_TARGET_US
    return int(is_slow or any(faults.values()))


def plain(results: dict[str, Found]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Results as plain numbers."""
    return {
        case_name: {
            name: {span: asdict(score) for span, score in one.items()}
            for name, one in found.items()
        }
        for case_name, found in results.items()
    }


if __name__ == "__main__":
    sys.exit(main())
