"""What every suite may ask for. Real captures are read in place and never copied in."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real captures, or a skip that says where it was sought."""
    told = os.environ.get("HEATPOOL_REALDATA")
    folder = Path(told) if told else REPOSITORY.parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; HEATPOOL_REALDATA names another folder")
    return folder
