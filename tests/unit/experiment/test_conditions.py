"""Conditions change what they say they change, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from glioma_xai.experiment.conditions import (
    Backgrounds,
    background_alone,
    noise_outside,
    tumour_removed,
)
from glioma_xai.records import Batch


def batch_of(
    images: torch.Tensor, lesion: torch.Tensor, brain: torch.Tensor | None = None
) -> Batch:
    count = len(images)
    return {
        "image": images,
        "lesion_mask": lesion,
        "brain_mask": torch.ones_like(lesion) if brain is None else brain,
        "label": torch.tensor([n % 2 for n in range(count)]),
        "index": torch.arange(count),
        "slice_index": torch.arange(count),
        "patient_id": [f"p{n}" for n in range(count)],
        "subject_id": [f"p{n}" for n in range(count)],
        "site": [""] * count,
    }


@pytest.fixture
def cohort() -> Batch:
    """Four patients; patient n's image is n + 1 everywhere, its tumour another pixel."""
    images = torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 2, 6, 5).clone()
    lesion = torch.zeros(4, 1, 6, 5)
    for n in range(4):
        lesion[n, 0, n, n] = 1
    return batch_of(images, lesion)


def backgrounds(batch: Batch, patients: list[str] | None = None) -> Backgrounds:
    """Of a cohort in memory, with what `Backgrounds` asks of a DataModule."""
    lesion = batch["lesion_mask"]
    rows = pd.DataFrame(
        {
            "patient_id": patients or batch["patient_id"],
            "label": batch["label"].numpy(),
            "lesion_area": (lesion > 0).flatten(1).sum(dim=1).numpy(),
        }
    )
    samples = [
        {"image": image, "lesion_mask": mask}
        for image, mask in zip(batch["image"], lesion, strict=True)
    ]
    data = SimpleNamespace(
        cohort=SimpleNamespace(rows=lambda split: rows),
        evaluation_loader=lambda split: SimpleNamespace(dataset=samples),
    )
    return Backgrounds(data, "test", seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["any", "same", "other"])
def test_backgrounds_come_from_patients_of_the_wanted_class(cohort: Batch, of: str) -> None:
    given = backgrounds(cohort).exchange(cohort, of=of)  # type: ignore[arg-type]
    for n in range(4):
        lesion = cohort["lesion_mask"][n, 0] > 0
        assert (given[n][:, lesion] == n + 1).all()  # the tumour stays
        donors = set(given[n][:, ~lesion].unique().tolist()) - {n + 1.0}
        assert len(donors) == 1
        donor = int(donors.pop()) - 1
        if of == "same":
            assert donor % 2 == n % 2
        if of == "other":
            assert donor % 2 != n % 2
        where_donor_has_its_tumour = cohort["lesion_mask"][donor, 0] > 0
        assert (given[n][:, where_donor_has_its_tumour] == n + 1).all()


def test_a_batch_of_one_gets_the_same_donor_as_a_batch_of_all(cohort: Batch) -> None:
    together = backgrounds(cohort).exchange(cohort, of="any")
    for n in range(4):
        tensors = {k: v[n : n + 1] for k, v in cohort.items() if isinstance(v, torch.Tensor)}
        alone = backgrounds(cohort).exchange({**cohort, **tensors}, of="any")  # type: ignore[typeddict-item]
        assert torch.equal(alone[0], together[n])


def test_nobody_gives_to_himself_and_without_donors_images_stay(cohort: Batch) -> None:
    one_patient = backgrounds(cohort, patients=["same"] * 4)
    assert one_patient.donors([0, 1, 2, 3], of="any") == [0, 1, 2, 3]
    assert torch.equal(one_patient.exchange(cohort, of="any"), cohort["image"])
    unknown = {**cohort, "lesion_mask": torch.full_like(cohort["lesion_mask"], torch.nan)}
    assert torch.equal(backgrounds(unknown).exchange(unknown, of="any"), cohort["image"])  # type: ignore[arg-type]


def test_noise_spares_tumour_and_air(cohort: Batch) -> None:
    cohort["brain_mask"][..., :2] = 0
    noisy = noise_outside(cohort, seed=0)
    changed = (noisy != cohort["image"]).any(dim=1, keepdim=True)
    expected = (cohort["brain_mask"] > 0) & (cohort["lesion_mask"] == 0)
    assert torch.equal(changed, expected)


def test_the_other_side_fills_the_tumour_by_hand() -> None:
    """A brain at x = 1..4 of six columns: the mirror of x is 5 - x, that of 1 is 4."""
    image = torch.tensor([0.0, 10, 20, 30, 40, 0]).view(1, 1, 6, 1)
    brain = torch.tensor([0.0, 1, 1, 1, 1, 0]).view(1, 1, 6, 1)
    lesion = torch.tensor([0.0, 1, 0, 0, 0, 0]).view(1, 1, 6, 1)
    removed = tumour_removed(batch_of(image, lesion, brain))
    assert removed.flatten().tolist() == [0, 40, 20, 30, 40, 0]
    shifted = tumour_removed(batch_of(image.roll(1, 2), lesion.roll(1, 2), brain.roll(1, 2)))
    assert shifted.flatten().tolist() == [0, 0, 40, 20, 30, 40]


def test_where_the_other_side_has_tumour_the_mean_of_the_brain_fills_it() -> None:
    image = torch.tensor([10.0, 20, 30, 90]).view(1, 1, 4, 1)
    lesion = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 4, 1)
    removed = tumour_removed(batch_of(image, lesion))
    assert removed.flatten().tolist() == [25, 20, 30, 25]


def test_without_a_mask_the_tumour_cannot_be_taken_away(cohort: Batch) -> None:
    unknown: Batch = {**cohort, "lesion_mask": torch.full((4, 1, 6, 5), torch.nan)}
    for change in (tumour_removed, background_alone):
        assert torch.equal(change(unknown), cohort["image"])


def test_the_black_box_hides_the_outline() -> None:
    lesion = torch.zeros(1, 1, 6, 5)
    lesion[0, 0, 1, 2] = lesion[0, 0, 3, 1] = 1
    image = torch.rand(1, 2, 6, 5) + 1
    boxed = background_alone(batch_of(image, lesion))
    black = np.argwhere((boxed[0] == 0).all(dim=0).numpy())
    assert black.min(axis=0).tolist() == [1, 1]
    assert black.max(axis=0).tolist() == [3, 2]
    assert len(black) == 6
    assert torch.equal(boxed[0, :, 4:], image[0, :, 4:])
