"""A small BraTS cohort and a network that has not been trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glioma_xai.data import GliomaDataModule
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier
from tests.unit.data.small_cohorts import small_settings, write_case

Cohort = Callable[..., GliomaDataModule]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """A function that reads twelve patients of two grades, with changes."""
    root = tmp_path / "brats"
    for number in range(12):
        grade = "HGG" if number < 6 else "LGG"
        write_case(root / grade, f"Brats18_CBICA_{number:03d}_1", seed=number)

    def read(**changes: object) -> GliomaDataModule:
        options = small_settings(root, tmp_path / "cache", **changes)
        data = GliomaDataModule(**options)  # type: ignore[arg-type]
        data.setup("test")
        return data

    return read


def untrained(data: GliomaDataModule, composite: str = "epsilon_plus") -> GuidedClassifier:
    """A network that fits the data."""
    torch.manual_seed(0)
    model = SmallCNN(input_shape=data.input_shape, channels=(4, 8), hidden=8)
    return GuidedClassifier(
        model,
        attribution=Attribution(composite),
        guidance=Guidance(),
        objective=Objective(),
        optimizer=torch.optim.Adam,
    ).eval()
