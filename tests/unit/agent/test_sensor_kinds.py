"""Drivers are found by kind, and only the one that is named is imported."""

import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

from heatpool.errors import ConfigError
from heatpool_agent import actuators, sensors


@pytest.mark.parametrize("kind", sensors.local_kinds())
def test_every_local_kind_has_a_driver_behind_the_port(kind: str) -> None:
    module = sensors.driver(kind)
    assert module.Config(id="one", kind=kind).id == "one"
    assert callable(module.open)


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'lidar' is unknown; known kinds: .*hwmon.*rapl"):
        sensors.driver("lidar")


@pytest.mark.parametrize("room", [sensors, actuators])
def test_our_own_kinds_are_those_that_the_package_declares(room: Any) -> None:
    declared = {p.name: p.value for p in entry_points(group=room.GROUP) if p.dist}
    ours = {n: v for n, v in declared.items() if v.startswith("heatpool_agent.")}
    assert ours == {kind: f"{room.__name__}.{kind}" for kind in room.OWN}


def test_only_the_named_driver_is_imported() -> None:
    script = (
        "import sys; from heatpool_agent import sensors; sensors.driver('rapl')\n"
        "found = {name for name in sys.modules if name.startswith('heatpool_agent.sensors.')}\n"
        "assert found == {'heatpool_agent.sensors.rapl', 'heatpool_agent.sensors.kernel_file'}\n"
        "assert not {'pynvml', 'psutil', 'pymodbus', 'importlib.metadata'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
