"""The wheel holds what the sources hold; `.ci/run` builds one and names it in HEATPOOL_WHEEL."""

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

PACKAGES = {
    "heatpool": "protos",
    "heatpool_agent": "agent",
    "heatpool_aggregator": "aggregator",
    "heatpool_sim": "firmware-sim",
}
LEFT_OUT = ("__pycache__", ".pyc", ".DS_Store")


@pytest.fixture(scope="module")
def packed() -> set[str]:
    """Names in the wheel, its own metadata left out."""
    told = os.environ.get("HEATPOOL_WHEEL")
    if not told:
        pytest.skip("no wheel to look into; .ci/run builds one and names it in HEATPOOL_WHEEL")
    with ZipFile(told) as wheel:
        return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_of_the_four_packages(
    repository: Path, packed: set[str]
) -> None:
    sources = {
        path.relative_to(repository / shelf).as_posix()
        for package, shelf in PACKAGES.items()
        for path in (repository / shelf / package).rglob("*")
        if path.is_file() and not any(part in path.as_posix() for part in LEFT_OUT)
    }
    assert packed == sources


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_in_the_wheel_is_typed(package: str, packed: set[str]) -> None:
    assert f"{package}/py.typed" in packed
