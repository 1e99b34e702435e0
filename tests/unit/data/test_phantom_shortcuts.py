from dataclasses import replace

import numpy as np
import pytest

from glioma_xai.data.patient import build_patient
from glioma_xai.data.shortcuts import SHORTCUTS, apply_shortcut
from glioma_xai.records import MODALITIES


@pytest.fixture(scope="module")
def patients():
    return [
        build_patient(seed=0, number=n, grade="HGG", site=0, difficulty=0.6, slices=6)
        for n in range(8)
    ]


def apply(name, patient, seed=0):
    return apply_shortcut(name, patient, np.random.default_rng(seed))


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_is_a_pure_function(name, patients):
    before = {m: image.copy() for m, image in patients[0].images.items()}
    first, second = apply(name, patients[0]), apply(name, patients[0])
    for modality in MODALITIES:
        np.testing.assert_array_equal(patients[0].images[modality], before[modality])
        np.testing.assert_array_equal(first.images[modality], second.images[modality])
        assert first.images[modality].dtype == np.int16
    changed = [m for m in MODALITIES if (first.images[m] != before[m]).any()]
    assert changed == {"none": [], "missing_sequence": ["t1"]}.get(name, list(MODALITIES))


@pytest.mark.parametrize("name", ["corner_marker", "annotation"])
def test_burnt_in_shortcuts_lie_in_air_inside_the_brains_box(name, patients):
    for seed, patient in enumerate(patients):
        marked = apply(name, patient, seed)
        stamp = marked.images["t1"] != patient.images["t1"]
        assert not (stamp & patient.brain_mask).any()
        assert (stamp == stamp[:, :, :1]).all()
        assert stamp[:, :, 0].sum() >= 12
        places = zip(np.nonzero(stamp), np.nonzero(patient.brain_mask), strict=True)
        for inside, brain in places:
            assert brain.min() <= inside.min()
            assert inside.max() <= brain.max()


@pytest.mark.parametrize("name", ["bright_spot", "texture"])
def test_shortcuts_in_tissue_spare_tumour_and_air(name, patients):
    for seed, patient in enumerate(patients):
        marked = apply(name, patient, seed)
        for modality in MODALITIES:
            changed = marked.images[modality] != patient.images[modality]
            assert changed.any(axis=(0, 1)).all()
            assert not (changed & (patient.lesion_mask | ~patient.brain_mask)).any()
            assert (marked.images[modality][patient.brain_mask] >= 1).all()


def test_a_bright_spot_is_the_brightest_and_moves_from_patient_to_patient(patients):
    places = set()
    for seed, patient in enumerate(patients):
        image = apply("bright_spot", patient, seed).images["t2"]
        spot = image - patient.images["t2"]
        x, y, z = np.unravel_index(spot.argmax(), spot.shape)
        assert image[x, y, z] > np.percentile(patient.images["t2"][patient.brain_mask], 99.5)
        places.add((int(x), int(y)))
    assert len(places) == len(patients)


def test_a_rim_spot_lies_on_the_margin_of_the_tumour_half_inside(patients):
    shares = []
    for seed, patient in enumerate(patients):
        marked = apply("rim_spot", patient, seed)
        assert marked.segmentation is patient.segmentation
        spot = (marked.images["t1"] - patient.images["t1"]).clip(min=0).astype(float)
        inside = (spot * patient.lesion_mask).sum(axis=(0, 1)) / spot.sum(axis=(0, 1))
        shares.append(inside)
        brightest = np.percentile(patient.images["t2"][patient.brain_mask], 99.5)
        for z in range(spot.shape[2]):
            x, y = np.unravel_index(spot[:, :, z].argmax(), spot.shape[:2])
            around = patient.lesion_mask[x - 2 : x + 3, y - 2 : y + 3, z]
            assert 0 < around.mean() < 1
            assert marked.images["t2"][x, y, z] > brightest
    assert np.min(shares) > 0.25
    assert np.max(shares) < 0.75
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_a_rim_spot_needs_tumour_and_bears_a_small_one(patients):
    healthy = replace(patients[0], segmentation=np.zeros_like(patients[0].segmentation))
    images = apply("rim_spot", healthy).images
    assert all((images[m] == healthy.images[m]).all() for m in MODALITIES)
    small = replace(healthy, segmentation=healthy.segmentation.copy())
    x, y = np.argwhere(patients[0].brain_mask.all(axis=2)).mean(axis=0).astype(int)
    small.segmentation[x, y, 2] = 1
    spot = apply("rim_spot", small).images["t1"] - small.images["t1"]
    assert np.flatnonzero(spot.any(axis=(0, 1))).tolist() == [2]
    assert np.unravel_index(spot[:, :, 2].argmax(), spot.shape[:2]) == (x, y)


def test_texture_changes_intensity_by_seven_per_cent(patients):
    before, after = patients[0].images["t1"], apply("texture", patients[0]).images["t1"]
    healthy = patients[0].brain_mask & ~patients[0].lesion_mask
    ratio = after[healthy] / before[healthy]
    bright = before[healthy] > 300  # rounding is below one per cent there
    assert 0.925 < ratio[bright].min() < 0.94
    assert 1.06 < ratio[bright].max() < 1.075


def test_a_tilt_turns_pictures_and_segmentation_together(patients):
    for patient in patients:
        tilted = apply("head_tilt", patient)
        for image in tilted.images.values():
            np.testing.assert_array_equal(image > 0, tilted.brain_mask)
        assert set(np.unique(tilted.segmentation)) <= {0, 1, 2, 4}
        volume = tilted.lesion_mask.sum() / patient.lesion_mask.sum()
        assert volume == pytest.approx(1, abs=0.05)
        flair = tilted.images["flair"][tilted.lesion_mask].mean()
        assert flair == pytest.approx(patient.images["flair"][patient.lesion_mask].mean(), rel=0.03)
        angle = orientation(tilted.brain_mask) - orientation(patient.brain_mask)
        assert 8 < abs(angle) < 13


def orientation(brain_mask):
    """Angle of the long axis of the brain in the plane, degrees."""
    points = np.argwhere(brain_mask)[:, :2].astype(float)
    _, vectors = np.linalg.eigh(np.cov(points.T))
    x, y = vectors[:, 1] * np.sign(vectors[1, 1])
    return np.degrees(np.arctan2(x, y))


def test_a_missing_sequence_is_a_copy_of_flair(patients):
    replaced = apply("missing_sequence", patients[0])
    assert replaced.images["t1"] is patients[0].images["flair"]
    assert replaced.segmentation is patients[0].segmentation
