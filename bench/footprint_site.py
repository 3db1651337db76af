"""The site that the footprint is measured on: its files, its settings, its fleet."""

from collections.abc import Mapping
from pathlib import Path

FLEET = """
name = "bench"
seed = 1
[[virtual_source]]
id = "loop"
kind = "district_loop"
hot_c = 60.0
cold_c = 48.0
price_eur_mwh = "44.75"
[[site]]
id = "bench"
virtual_source = "loop"
it_w = 30_000
"""

AGGREGATOR = """
[listen]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
[state]
dir = "{folder}/aggregator"
[[virtual_source]]
id = "loop"
kind = "district_loop"
agreement = {{ id = "hpa", price_eur_mwh = "44.75" }}
[[virtual_source.member]]
site_id = "bench"
"""

_MINIMAL = """
[site]
id = "bench"
state_dir = "{state}"
[roots]
sys = "{folder}/sys"
nvml = "{nvml}"
[http]
listen = "{listen}"
[[loop]]
id = "rack"
[[sensor]]
id = "rapl"
kind = "rapl"
[[sensor]]
id = "hwmon"
kind = "hwmon"
"""

_EDGE = """
[[sensor]]
id = "nvml"
kind = "nvml"
[[sensor]]
id = "cdu"
kind = "modbus"
url = "{cdu}"
unit_id = 1
map = "{folder}/cdu.toml"
loop = "rack"
"""

_FULL = """
[aggregator]
url = "http://{grpc}"
"""

# Six of the unit's registers, as the design's figure is for.
CDU_MAP = """
name = "six registers"
verified = "sim"
[[point]]
quantity = "volume_flow"
function = 4
address = 0
type = "uint32"
scale = 0.001
unit = "m3/h"
[[point]]
quantity = "temperature"
pipe = "cold"
function = 4
address = 2
type = "int16"
scale = 0.01
unit = "degC"
[[point]]
quantity = "temperature"
pipe = "hot"
function = 4
address = 3
type = "int16"
scale = 0.01
unit = "degC"
[[point]]
quantity = "reported_heat"
function = 4
address = 6
type = "int32"
unit = "W"
"""


def lay_out(folder: Path) -> None:
    """Two packages and one board chip, whose values stand still: reading them costs the same."""
    for index in (0, 1):
        _files(
            folder / "sys/class/powercap" / f"intel-rapl:{index}",
            {
                "name": f"package-{index}",
                "energy_uj": "123456789",
                "max_energy_range_uj": "262143328850",
            },
        )
    chip = {"name": "power_meter", "power1_average": "350000000", "power1_label": "PSU1"}
    _files(folder / "sys/class/hwmon/hwmon0", chip)
    (folder / "fleet.toml").write_text(FLEET)
    (folder / "cdu.toml").write_text(CDU_MAP)


def _files(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def settings_of(profile: str, folder: Path, *, cdu: str, grpc: str, nvml: str) -> str:
    """The agent's settings of a profile."""
    listen = "" if profile == "minimal" else "127.0.0.1:0"
    parts = {"minimal": [_MINIMAL], "edge": [_MINIMAL, _EDGE], "full": [_MINIMAL, _EDGE, _FULL]}
    return "".join(parts[profile]).format(
        folder=folder,
        state=folder / f"state-{profile}",
        listen=listen,
        cdu=cdu,
        grpc=grpc,
        nvml=nvml,
    )
