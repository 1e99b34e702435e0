"""Relevance on the parts of a tumour, on the samples' own grid."""

import numpy as np
import pytest
import torch

from glioma_xai.experiment.parts import (
    focus_on_part,
    parts_of,
    prepared_labels,
    score_parts,
    shares_of_parts,
)
from tests.unit.experiment.conftest import Cohort

FORMS = {
    "slices": {},
    "volume": {"spatial_dims": 3, "spatial_size": [16, 20, 6]},
    "moved window": {"jitter": 2},
    "resampled": {"spacing_mm": 1.25},
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_lie_on_the_samples_as_the_tumour_does(cohort: Cohort, form: str) -> None:
    data = cohort(**FORMS[form])
    for subject in data.table["subject_id"].unique()[:3]:
        samples = data.sample(subject)
        labels = prepared_labels(data, subject, [s["slice_index"] for s in samples])
        assert labels is not None
        assert set(np.unique(labels)) >= {0, 2, 4}
        tumour = torch.stack([s["lesion_mask"][0] for s in samples]).numpy() > 0.5
        differing = ((labels > 0) != tumour).mean()
        assert differing == 0 if form != "resampled" else differing < 0.05


def test_parts_share_what_lies_on_the_tumour(cohort: Cohort) -> None:
    data = cohort()
    batch = next(iter(data.evaluation_loader("test")))
    maps = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(0))
    assert set(parts_of(data)) >= {"necrosis", "oedema", "enhancing"}
    scores = score_parts(data, batch, maps)
    on = torch.stack([v for name, v in scores.items() if name.startswith("relevance_on_")])
    mass = maps.abs().sum(dim=1, keepdim=True)
    inside = (mass * (batch["lesion_mask"] > 0.5)).flatten(1).sum(1) / mass.flatten(1).sum(1)
    torch.testing.assert_close(on.nansum(dim=0), inside)
    for name, values in scores.items():
        known = values[~values.isnan()]
        assert bool(((known >= 0) & (known <= 1)).all()), name


def test_a_focus_score_of_a_part_leaves_the_other_parts_out() -> None:
    relevance = torch.tensor([[[[6.0, 100.0, 2.0, -5.0, 50.0]]]])
    part = torch.tensor([[[[True, False, False, False, False]]]])
    tumour = torch.tensor([[[[True, True, False, False, False]]]])
    brain = torch.tensor([[[[True, True, True, True, False]]]])
    found = focus_on_part(relevance, part, tumour, brain)
    assert found.item() == pytest.approx(6 / (6 + 1))  # the rest: 2 and 0 over two pixels
    nothing = focus_on_part(relevance, torch.zeros_like(part), tumour, brain)
    assert bool(nothing.isnan().all())


def test_shares_by_hand() -> None:
    labels = np.array([0.0, 1.0], np.float32)
    assert shares_of_parts(np.array([1.0, 3.0]), labels, {"a": 1}) == {"a": 0.75, "elsewhere": 0.25}
    assert np.isnan(shares_of_parts(np.zeros(2), labels, {"a": 1})["a"])
