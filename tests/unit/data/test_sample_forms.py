"""Volumes, stacks of slices, windows, random crops and the masks that training sees."""

import numpy as np
import pytest
import torch

from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import ConfigError
from tests.unit.data.small_cohorts import brain_of, case_arrays

PLAIN = {"normalisation": "none", "augmentation": {"enabled": False}}
SUBJECT = "Brats18_CBICA_001_1"


def oriented(name: str, number: int = 1) -> torch.Tensor:
    """A modality of a case in RAS, (X, Y, Z)."""
    return torch.from_numpy(case_arrays(number)[name][::-1, ::-1].astype(np.float32).copy())


def test_whole_volumes(settings):
    data = GliomaDataModule(**settings(spatial_dims=3, spatial_size=None, **PLAIN))
    (sample,) = data.sample(SUBJECT)
    assert data.input_shape == (3, 20, 24, 6)
    assert len(data.table) == 12
    assert sample["slice_index"] == -1
    torch.testing.assert_close(sample["image"][0], oriented("t2"))
    torch.testing.assert_close(sample["lesion_mask"][0], (oriented("seg") > 0).float())
    np.testing.assert_array_equal(sample["brain_mask"][0], brain_of())
    restored = data.restore(SUBJECT, sample["image"][:1]).get_fdata()
    np.testing.assert_array_equal(restored, case_arrays(1)["t2"])


def test_volumes_are_augmented_as_one(settings):
    data = GliomaDataModule(**settings(spatial_dims=3, spatial_size=[16, 20, 8]))
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 20, 8)
    assert batch["lesion_mask"].shape == (4, 1, 16, 20, 8)
    plain = GliomaDataModule(**settings(spatial_dims=3, spatial_size=[16, 20, 8]))
    assert (batch["image"] != next(iter(plain.evaluation_loader("train")))["image"]).any()


def test_resampled_volumes_keep_their_extent(settings):
    data = GliomaDataModule(**settings(spatial_dims=3, spatial_size=None, spacing_mm=2.0, **PLAIN))
    (sample,) = data.sample(SUBJECT)
    fine = oriented("t2").reshape(10, 2, 12, 2, 3, 2).mean(dim=(1, 3, 5))
    torch.testing.assert_close(sample["image"][0], fine, rtol=1e-3, atol=0.5)


def test_neighbouring_slices_are_channels_from_the_lowest_up(settings):
    data = GliomaDataModule(
        **settings(neighbours=1, spatial_size=None, modalities=["t2", "t1"], **PLAIN)
    )
    assert data.input_shape == (6, 20, 24)
    sample = data.sample(SUBJECT)[1]
    k = sample["slice_index"]
    assert k == 3
    for group, step in enumerate((-1, 0, 1)):
        for channel, name in enumerate(("t2", "t1")):
            torch.testing.assert_close(
                sample["image"][2 * group + channel], oriented(name)[..., k + step]
            )
    torch.testing.assert_close(sample["lesion_mask"][0], (oriented("seg")[..., k] > 0).float())


def test_the_stack_repeats_the_last_slice_at_the_end(settings):
    data = GliomaDataModule(
        **settings(neighbours=2, slice_count=None, slice_min_area=0, spatial_size=None, **PLAIN)
    )
    last = data.sample(SUBJECT)[-1]
    assert last["slice_index"] == 5
    torch.testing.assert_close(last["image"][3 * 2], last["image"][3 * 3])
    torch.testing.assert_close(last["image"][3 * 2], last["image"][3 * 4])


def test_a_window_around_the_tumour(settings):
    data = GliomaDataModule(**settings(centre="tumour", spatial_size=[8, 8], **PLAIN))
    for sample in data.sample(SUBJECT):
        rows, columns = sample["lesion_mask"][0].nonzero().T
        assert abs(float(rows.float().mean()) - 3.5) <= 0.5
        assert abs(float(columns.float().mean()) - 3.5) <= 0.5
    restored = data.restore(
        SUBJECT, torch.stack([sample["image"][0] for sample in data.sample(SUBJECT)])
    ).get_fdata()
    shown = restored != 0
    np.testing.assert_array_equal(restored[shown], case_arrays(1)["t2"][shown])


def test_random_crops_lie_within_the_jitter_and_evaluation_does_not_move(settings):
    still = GliomaDataModule(**settings(spatial_size=[12, 14], **PLAIN))
    moving = GliomaDataModule(**settings(spatial_size=[12, 14], jitter=2, **PLAIN))
    assert moving.input_shape == still.input_shape
    for one, other in zip(still.sample(SUBJECT), moving.sample(SUBJECT), strict=True):
        torch.testing.assert_close(one["image"], other["image"])
    wide = GliomaDataModule(**settings(spatial_size=[16, 18], **PLAIN))
    whole = {}
    for batch in wide.evaluation_loader("train"):
        keys = zip(batch["subject_id"], batch["slice_index"].tolist(), strict=True)
        whole |= dict(zip(keys, batch["image"], strict=True))
    places = set()
    loader = moving.train_dataloader()
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            for row, image in enumerate(batch["image"]):
                source = whole[batch["subject_id"][row], int(batch["slice_index"][row])]
                places |= {
                    (i, j)
                    for i in range(5)
                    for j in range(5)
                    if torch.equal(source[:, i : i + 12, j : j + 14], image)
                }
    assert len(places) > 15
    maps = torch.stack([sample["image"][0] for sample in moving.sample(SUBJECT)])
    np.testing.assert_array_equal(
        moving.restore(SUBJECT, maps).get_fdata(), still.restore(SUBJECT, maps).get_fdata()
    )


def test_training_sees_the_annotation_and_evaluation_the_contour(settings):
    annotation = {"shape": "box", "margin_mm": 1.0}
    data = GliomaDataModule(**settings(annotation=annotation, **PLAIN))
    trained = {
        (subject, int(k)): mask
        for batch in data.train_dataloader()
        for subject, k, mask in zip(
            batch["subject_id"], batch["slice_index"], batch["lesion_mask"], strict=True
        )
    }
    for batch in data.evaluation_loader("train"):
        for row, mask in enumerate(batch["lesion_mask"]):
            seen = trained[batch["subject_id"][row], int(batch["slice_index"][row])]
            assert not mask.isnan().any()
            assert (seen[mask == 1] == 1).all()
            assert seen.isnan().any()


def test_control_masks_come_from_other_patients(settings):
    data = GliomaDataModule(**settings(annotation={"control": True}, **PLAIN))
    table = data.table
    training = table[table["split"] == "train"]
    owner = dict(zip(table["entry"], table["patient_id"], strict=True))
    donors = training["annotation_entry"].map(owner)
    assert (donors != training["patient_id"]).all()
    assert sorted(donors) == sorted(training["patient_id"])
    rest = table[table["split"] != "train"]
    assert (rest["annotation_entry"] == rest["entry"]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spatial_dims": 3, "spatial_size": None, "neighbours": 1},
            r"data\.neighbours needs data\.spatial_dims=2, got 3 and neighbours=1",
        ),
        (
            {"spatial_size": None, "jitter": 2},
            r"data\.jitter needs data\.spatial_size, got null and jitter=2",
        ),
    ],
)
def test_settings_that_do_not_fit(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        GliomaDataModule(**settings(**changes))
