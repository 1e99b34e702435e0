"""What takes the place of a region, and that curves start and end where they must."""

import torch
from torch.utils.data import default_collate

from glioma_xai.experiment.conditions import Backgrounds
from glioma_xai.experiment.faithfulness import _fills, _regions, measure_faithfulness
from tests.unit.experiment.conftest import Cohort, untrained


def test_fills_are_healthy_tissue_and_leave_air(cohort: Cohort) -> None:
    data = cohort()
    batch = default_collate([data.evaluation_loader("test").dataset[i] for i in (0, 2)])
    donor = Backgrounds(data, "test", seed=0).give(batch)
    assert all(a != b for a, b in zip(donor["patient_id"], batch["patient_id"], strict=True))
    fills = _fills(batch, donor)
    air = (batch["brain_mask"] <= 0.5).expand_as(batch["image"])
    for name in ("mean tissue", "another patient"):
        assert fills[name][air].abs().max() == 0
    tumour = (donor["lesion_mask"] > 0.5).expand_as(batch["image"])
    given = fills["another patient"]
    healthy = ~tumour & (donor["brain_mask"] > 0.5) & ~air
    assert torch.equal(given[healthy], donor["image"][healthy])
    assert not torch.equal(given[tumour & ~air], donor["image"][tumour & ~air])
    regions = _regions(batch)
    inside = batch["lesion_mask"] > 0.5
    for region in regions["regions"][inside].unique():
        assert not bool((regions["regions"][~inside] == region).any())


def test_every_setting_starts_at_the_image_and_ends_at_the_fill(cohort: Cohort) -> None:
    data = cohort()
    module = untrained(data, "gradient_times_input")
    found = measure_faithfulness(module, data, split="test", resamples=20, seed=0)
    assert len(found.areas) == 6
    for setting, curves in found.curves.items():
        assert set(curves) == {"most", "least", "random"}
        for place in (0, -1):
            ends = torch.tensor([curve[place] for curve in curves.values()])
            torch.testing.assert_close(ends, ends[:1].expand(3), rtol=1e-4, atol=1e-5)
        assert set(found.areas[setting]) == {"most_first", "least_first"}
    most = found.areas["patches, mean tissue"]["most_first"]["value"]
    assert float(most) > 0  # type: ignore[arg-type]
    assert next(iter(found.similarity)) == "dense2"
