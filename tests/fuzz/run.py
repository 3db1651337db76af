"""Fuzzes each decoder with coverage as its guide, by hand: `make fuzz SECONDS_EACH=60`.

    run.py [--seconds N] [--found FOLDER] [NAME ...]

Every decoder runs in a process of its own, from our seeds and, where the folder of real captures
is there, from those too, read in place. An input that breaks the law, or takes too long, is kept
in the folder of findings, one for each place in the code; exit 1 if there is one.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
TESTS = HERE.parents[1]
# Our own bounds, ms, with room for the instruments: 5 for a telegram, 50 for all else.
SLOW_MS = {"mbus_telegram": 25.0, "mbus_body": 25.0}
SLOW_ELSE_MS = 500.0
MOST_BYTES = {"mbus_telegram": 300, "mbus_body": 252, "ipmi_words": 65_536, "smi_text": 65_536}
REAL = {
    "mbus_stream": ("03_mbus/libmbus/test-frames", "03_mbus/libmbus/error-frames"),
    "redfish_json": ("02_redfish/telegraf_dell_hp", "02_redfish/lambda_gb300",
                     "02_redfish/dmtf_publications/DSP2046-examples",
                     "02_redfish/ocp_cdu_examples"),
    "ipmi_words": ("01_ipmi",),
    "smi_text": ("01_gpu/nvidia_smi_xml",),
}  # fmt: skip


def main() -> int:
    """Runs the named decoders one after the other, or one of them here."""
    told = argparse.ArgumentParser()
    told.add_argument("names", nargs="*")
    told.add_argument("--seconds", type=int, default=60)
    told.add_argument("--found", type=Path, default=Path(sys.prefix) / "fuzz")
    told.add_argument("--one", action="store_true")
    options = told.parse_args()
    if options.one:
        fuzz(options.names[0], options.seconds, options.found)
        return 0
    sys.path.insert(0, str(TESTS))
    names = options.names or _names()
    results = [_ran(name, options.seconds, options.found) for name in names]
    for line in results:
        sys.stdout.write(f"{line}\n")
    return int(any(" 0 findings" not in line for line in results))


def _names() -> list[str]:
    # Of the text: importing the laws here would import them without instruments.
    text = "".join(path.read_text() for path in sorted(HERE.parent.glob("laws*.py")))
    return re.findall(r"^def ([a-z]\w+)\(data: bytes\)", text, re.M)


def _ran(name: str, seconds: int, found: Path) -> str:
    sys.stdout.write(f"-- {name}\n")
    sys.stdout.flush()
    command = [sys.executable, str(HERE), "--one", "--seconds", str(seconds), "--found", str(found)]
    child = subprocess.run([*command, name], capture_output=True, text=True, errors="replace")
    told = re.search(r"Done (\d+) runs in (\d+) second", child.stderr)
    kept = [line for line in child.stderr.splitlines() if line.startswith("FOUND ")]
    sys.stdout.write("".join(f"{line}\n" for line in kept))
    if told is None:
        return f"{name}: ended with {child.returncode}: {child.stderr[-2000:]}"
    return f"{name}: {told[1]} executions in {told[2]} s, {len(kept)} findings"


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Fuzzes one decoder in this process; never returns."""
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 (not there in the tests)

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["heatpool", "heatpool_agent", "heatpool_aggregator"]):
        from fuzz.laws import DECODERS  # noqa: PLC0415 (instrumented as it is imported)
        from fuzz.seeds import SEEDS  # noqa: PLC0415
    watch = Watch(name, found / "found")
    corpus = found / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES.get(name, 16_384)}",
               "-timeout=30", "-rss_limit_mb=2048", "-verbosity=1"]  # fmt: skip
    places = [str(corpus), *_real(name)]
    atheris.Setup([sys.argv[0], *options, *places], lambda data: watch.run(DECODERS[name], data))
    atheris.Fuzz()


def _real(name: str) -> Iterator[str]:
    told = os.environ.get("HEATPOOL_REALDATA")
    folder = Path(told) if told else TESTS.parents[1] / "shared" / "realdata"
    return (str(folder / place) for place in REAL.get(name, ()) if (folder / place).is_dir())


class Watch:
    """Keeps the first input for each way in which the law is broken, and goes on."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._seen: set[str] = set()

    def run(self, decoder: object, data: bytes) -> None:
        """One execution."""
        start_s = time.process_time()
        try:
            decoder(data)  # type: ignore[operator]
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "heatpool" in frame.filename] or frames
            place = f"{type(error).__name__} {Path(own[-1].filename).name}:{own[-1].lineno}"
            self._keep(place, data, f"{error!r}"[:200])
        spent_ms = (time.process_time() - start_s) * 1e3
        # The first look imports what is imported on use.
        if spent_ms > SLOW_MS.get(self._name, SLOW_ELSE_MS) and self._seen >= {"first"}:
            self._keep("slow", data, f"{spent_ms:.0f} ms for {len(data)} bytes")
        self._seen.add("first")

    def _keep(self, place: str, data: bytes, told: str) -> None:
        if place in self._seen:
            return
        self._seen.add(place)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / re.sub(r"\W+", "_", f"{self._name} {place}")
        path.write_bytes(data)
        sys.stderr.write(f"FOUND {self._name}: {place}: {told}: {path}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
