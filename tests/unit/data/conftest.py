"""A small BraTS cohort and the settings that read it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.data.small_cohorts import small_settings, write_case


@pytest.fixture
def brats_root(tmp_path: Path) -> Path:
    """Six HGG and six LGG patients of two sites in the layout of BraTS 2018."""
    root = tmp_path / "brats"
    for number in range(12):
        grade = "HGG" if number < 6 else "LGG"
        site = "CBICA" if number % 2 else "TCIA01"
        write_case(root / grade, f"Brats18_{site}_{number:03d}_1", seed=number)
    return root


@pytest.fixture
def settings(tmp_path: Path, brats_root: Path) -> Callable[..., dict[str, object]]:
    """Arguments of a GliomaDataModule that reads ``brats_root``, with changes."""

    def make(**changes: object) -> dict[str, object]:
        return small_settings(brats_root, tmp_path / "cache", **changes)

    return make
