"""A machine as its kernel shows it: /sys and /proc as real files, moved on by power and time.

Written in place, so that descriptors which others hold open see each new value, as with a kernel.
Power behind a counter is counted exactly, to the microjoule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heatpool_sim.devices.counting import EnergyCount

# What a counter of 32 bits holds in units of 2**-14 J, and of 2**-16 J: the kernel's own figures.
RANGE_UJ = 262_143_328_850
SHORT_RANGE_UJ = 65_532_610_987
_HZ = 100
_HIDDEN = ".hidden"
FAULTS = frozenset({"unreadable", "masked", "frozen", "reset", "wrap_near", "asleep", "garbled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One hwmon chip: fixed files, and files that show a power, times a factor.

    `shows` maps a file to (part, factor): `power1_average` of 1e6 shows the part's power in uW;
    `counts` maps a file to the part whose energy, uJ, it counts.
    """

    name: str
    device: str = ""
    fixed: Mapping[str, object] = field(default_factory=dict)
    shows: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineModel:
    """What is bolted in. Shares are of the packages' power; absent parts are left out."""

    package_count: int = 1
    cpus_per_package: int = 8
    cpu_name: str = "Simulated CPU @ 2.00GHz"
    package_most_w: float = 250.0
    range_uj: int = RANGE_UJ
    core_frac: float | None = 0.7
    dram_frac: float | None = 0.15
    has_psys: bool = False
    has_mmio_twin: bool = False
    has_perf: bool = False
    idle_w: float = 40.0
    gpu_addresses: tuple[str, ...] = ()
    chips: tuple[Chip, ...] = ()


class SysfsTree:
    """The files of one machine below a folder: `sys` and `proc` in it."""

    def __init__(self, folder: Path, model: MachineModel) -> None:
        self.sys = folder / "sys"
        self.proc = folder / "proc"
        self.model = model
        self._counts = {part: EnergyCount() for part in self._parts()}
        self._power_w = dict.fromkeys(self._counts, 0.0)
        self._shown: dict[Path, str] = {}
        self._busy_s = [0.0, 0.0]
        self._throttled_s = 0.0
        self._faults: set[str] = set()
        self._write_fixed()
        self._write()

    def step(
        self,
        package_w: float,
        dt_s: float,
        *,
        gpu_w: float = 0.0,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Holds a power, W, of each package for so many seconds; `more` names other parts' power.

        A part that only a chip shows, `gpu` or a name of yours, has the power told for it here.
        """
        self._power_w |= self._split(package_w) | {"gpu": gpu_w} | dict(more or {})
        for part, power_w in self._power_w.items():
            if "frozen" not in self._faults:
                self._counts.setdefault(part, EnergyCount()).add(power_w, dt_s)
        most_w, idle_w = self.model.package_most_w, self.model.idle_w
        busy_frac = min(max((package_w - idle_w) / max(most_w - idle_w, 1.0), 0.0), 1.0)
        cpu_s = dt_s * self.model.package_count * self.model.cpus_per_package
        self._busy_s = [self._busy_s[0] + busy_frac * cpu_s,
                        self._busy_s[1] + (1.0 - busy_frac) * cpu_s]  # fmt: skip
        self._throttled_s += dt_s if package_w >= most_w else 0.0
        self._write()

    def energy_uj(self, part: str) -> int:
        """Energy of a part since the start, uJ, without wraps: what a reader must find."""
        return self._counts[part].uj

    def fault(self, name: str) -> None:
        """Makes one last, or happen: see FAULTS."""
        if name not in FAULTS:
            raise ValueError(f"fault {name!r} is unknown; known: {', '.join(sorted(FAULTS))}")
        self._faults.add(name)
        if name == "reset":
            for count in self._counts.values():
                count.begin()
        if name == "wrap_near":
            for count in self._counts.values():
                count.begin(self.model.range_uj - 1_000_000)
        self._apply()

    def heal(self) -> None:
        """Ends every fault that lasts."""
        self._faults.clear()
        self._apply()

    def perf_file(self, config: int, cpu: int) -> Path:
        """Where the count of a perf event lies: eight bytes, for who stands in for the kernel."""
        return self.sys.parent / "perf" / f"{config}-{cpu}"

    def _apply(self) -> None:
        # An owner may go on writing what nobody may read.
        mode = 0o200 if "unreadable" in self._faults else 0o644
        for folder in self._zone_folders().values():
            (self._place(folder) / "energy_uj").chmod(mode)
        for name in ("powercap", "hwmon"):
            self._mask(self.sys / "class" / name)
        stat, hidden = self.proc / "stat", self._hidden(self.proc / "stat")
        if "masked" in self._faults and stat.exists():
            stat.rename(hidden)
        elif "masked" not in self._faults and hidden.exists():
            hidden.rename(stat)
        self._write()

    def _mask(self, tree: Path) -> None:
        """Zones stay listed and lead nowhere, as where a container hides /sys/devices."""
        is_masked, hidden = "masked" in self._faults, self._hidden(tree)
        if is_masked and not hidden.exists() and tree.exists():
            tree.rename(hidden)
            tree.mkdir()
            for folder in hidden.iterdir():
                (tree / folder.name).symlink_to("../../devices/masked")
        if not is_masked and hidden.exists():
            for link in tree.iterdir():
                link.unlink()
            tree.rmdir()
            hidden.rename(tree)

    def _hidden(self, tree: Path) -> Path:
        return tree.with_name(f"{tree.name}{_HIDDEN}")

    def _place(self, folder: Path) -> Path:
        """Where a folder of zones or chips lies now."""
        hidden = self._hidden(folder.parent)
        return hidden / folder.name if hidden.exists() else folder

    def _parts(self) -> list[str]:
        model, parts = self.model, ["psys", "gpu"]
        for number in range(model.package_count):
            parts += [f"package-{number}"]
            parts += [f"core-{number}"] if model.core_frac is not None else []
            parts += [f"dram-{number}"] if model.dram_frac is not None else []
        return parts + [part for chip in model.chips for part in chip.counts.values()]

    def _split(self, package_w: float) -> dict[str, float]:
        model, found = self.model, {}
        for number in range(model.package_count):
            found[f"package-{number}"] = package_w
            found[f"core-{number}"] = package_w * (model.core_frac or 0.0)
            found[f"dram-{number}"] = package_w * (model.dram_frac or 0.0)
        found["psys"] = 1.3 * model.package_count * package_w * (1.0 + (model.dram_frac or 0.0))
        return {part: power_w for part, power_w in found.items() if part in self._counts}

    def _zone_folders(self) -> dict[str, Path]:
        """Part -> its zone; twins have the same part with a mark behind it."""
        tree, model, found = self.sys / "class/powercap", self.model, {}
        for number in range(model.package_count):
            zone = tree / f"intel-rapl:{number}"
            inner = [p for p in (f"core-{number}", f"dram-{number}") if p in self._counts]
            found[f"package-{number}"] = zone
            for place, part in enumerate(inner):
                found[part] = tree / f"{zone.name}:{place}"
            if model.has_mmio_twin:
                found[f"package-{number}~"] = tree / f"intel-rapl-mmio:{number}"
        if model.has_psys:
            found["psys"] = tree / f"intel-rapl:{model.package_count}"
        return found

    def _write_fixed(self) -> None:
        boot = self.proc / "sys/kernel/random/boot_id"
        self._show(boot, "5e1f0000-0000-4000-8000-000000000001")
        for part, folder in self._zone_folders().items():
            label = part.removesuffix("~")
            is_inner = label.startswith(("core", "dram"))
            self._show(folder / "name", label.partition("-")[0] if is_inner else label)
            self._show(folder / "max_energy_range_uj", self.model.range_uj)
            self._show(folder / "enabled", 1)
            if label.startswith("package"):
                most_uw = round(self.model.package_most_w * 1e6)
                self._show(folder / "constraint_0_max_power_uw", most_uw)
        self._write_cpus()
        self._write_devices()
        if self.model.has_perf:
            self._write_events()

    def _write_cpus(self) -> None:
        count = self.model.package_count * self.model.cpus_per_package
        blocks = [f"processor\t: {n}\nmodel name\t: {self.model.cpu_name}\n" for n in range(count)]
        self._show(self.proc / "cpuinfo", "\n".join(blocks))
        for number in range(count):
            cpu = self.sys / f"devices/system/cpu/cpu{number}"
            package = number // self.model.cpus_per_package
            self._show(cpu / "topology/physical_package_id", package)
            self._show(cpu / "cpufreq/cpuinfo_max_freq", 2_000_000)

    def _write_devices(self) -> None:
        for address in self.model.gpu_addresses:
            device = self.sys / "bus/pci/devices" / address
            self._show(device / "vendor", "0x10de")
            self._show(device / "class", "0x030200")
        for number, chip in enumerate(self.model.chips):
            folder = self.sys / f"class/hwmon/hwmon{number}"
            for name, told in {"name": chip.name, **chip.fixed}.items():
                self._show(folder / name, told)
            if chip.device:
                device = self.sys / "devices" / chip.device
                device.mkdir(parents=True, exist_ok=True)
                (folder / "device").symlink_to(device)

    def _write_events(self) -> None:
        unit, per = self.sys / "bus/event_source/devices/power", self.model.cpus_per_package
        self._show(unit / "type", 27)
        firsts = [str(number * per) for number in range(self.model.package_count)]
        self._show(unit / "cpumask", ",".join(firsts))
        for name, config in self._events():
            self._show(unit / f"events/{name}", f"event=0x{config:02x}")
            self._show(unit / f"events/{name}.scale", "2.3283064365386962890625e-10")
            self._show(unit / f"events/{name}.unit", "Joules")

    def _events(self) -> list[tuple[str, int]]:
        events = [("energy-pkg", 2)]
        return events + ([("energy-ram", 3)] if self.model.dram_frac is not None else [])

    def _write(self) -> None:
        for part, folder in self._zone_folders().items():
            # The kernel's range is one unit short of where the count begins anew.
            count = self._counts[part.removesuffix("~")].uj % self.model.range_uj
            self._tell(self._place(folder) / "energy_uj", count)
        for number, chip in enumerate(self.model.chips):
            self._write_chip(self._place(self.sys / f"class/hwmon/hwmon{number}"), chip)
        status = "suspended" if "asleep" in self._faults else "active"
        for address in self.model.gpu_addresses:
            self._show(self.sys / "bus/pci/devices" / address / "power/runtime_status", status)
        self._write_load()
        if self.model.has_perf:
            self._write_counts()

    def _write_chip(self, folder: Path, chip: Chip) -> None:
        for name, (part, factor) in chip.shows.items():
            self._tell(folder / name, round(self._power_w.get(part, 0.0) * factor))
        for name, part in chip.counts.items():
            self._tell(folder / name, self._counts[part].uj)

    def _tell(self, path: Path, told: object) -> None:
        """A measured value, or what a fault makes of it; held descriptors see it too."""
        faulty = {"garbled": "garbage", "masked": ""}
        found = [text for name, text in faulty.items() if name in self._faults]
        self._show(path, found[0] if found else told)

    def _write_load(self) -> None:
        busy, idle = (round(spent_s * _HZ) for spent_s in self._busy_s)
        line = f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0"
        hidden = self._hidden(self.proc / "stat")
        self._tell(hidden if hidden.exists() else self.proc / "stat", line)
        share = busy / max(busy + idle, 1)
        for number in range(self.model.package_count * self.model.cpus_per_package):
            cpu = self.sys / f"devices/system/cpu/cpu{number}"
            self._show(cpu / "cpufreq/scaling_cur_freq", round(800_000 + 1_200_000 * share))
            spent_ms = round(self._throttled_s * 1000)
            self._show(cpu / "thermal_throttle/package_throttle_total_time_ms", spent_ms)

    def _write_counts(self) -> None:
        parts = {2: "package", 3: "dram"}
        for _, config in self._events():
            for number in range(self.model.package_count):
                path = self.perf_file(config, number * self.model.cpus_per_package)
                path.parent.mkdir(parents=True, exist_ok=True)
                # Up, so that cutting off to whole uJ gives the same uJ back.
                count = -(-self._counts[f"{parts[config]}-{number}"].uj * 2**32 // 10**6)
                told = b"" if "masked" in self._faults else (count % 2**64).to_bytes(8, "little")
                path.write_bytes(told)

    def _show(self, path: Path, told: object) -> None:
        """Puts a value into its file, where it differs from what stands there."""
        text = f"{told}\n"
        place = Path(str(path).replace(_HIDDEN, ""))
        if self._shown.get(place) == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+" if place in self._shown else "w", encoding="ascii") as file:
            file.write(text)
            file.truncate()
        self._shown[place] = text


def amd_card(*, has_mean: bool = True) -> Chip:
    """An AMD GPU: older parts show a mean, newer ones the power of the moment."""
    name = "power1_average" if has_mean else "power1_input"
    return Chip(
        name="amdgpu",
        device="pci0000:00/0000:03:00.0",
        fixed={"power1_label": "PPT"},
        shows={name: ("gpu", 1e6)},
    )


def core_sensor(cpu_c: float) -> Chip:
    """The temperature sensor of an Intel CPU."""
    return Chip(name="coretemp", fixed={"temp1_input": round(cpu_c * 1000)})


def rail_monitor(part: str, *, volts: float = 12.0) -> Chip:
    """An INA226 on a rail: bus volts on in1, its shunt on in0, amperes of what flows."""
    return Chip(
        name="ina226",
        fixed={"in0_input": 12, "in1_input": round(volts * 1000)},
        shows={"curr1_input": (part, 1000.0 / volts)},
    )
