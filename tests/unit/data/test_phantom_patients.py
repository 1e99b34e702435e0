from math import erf, sqrt

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glioma_xai.data.anatomy import draw_head, draw_location, load_template, sample_tissue
from glioma_xai.data.fields import draw_field, push
from glioma_xai.data.patient import Stream, build_patient, stream
from glioma_xai.data.plan import PhantomSettings, enrol
from glioma_xai.data.tumours import draw_character
from glioma_xai.records import MODALITIES

SETTINGS = PhantomSettings()


def build(number, slices=8, **changes):
    enrolment = enrol(SETTINGS, number)
    options = {"grade": enrolment.grade, "site": enrolment.site, **changes}
    return build_patient(
        seed=0, number=number, difficulty=SETTINGS.difficulty, slices=slices, **options
    )


@pytest.fixture(scope="module")
def patients():
    return [build(number, slices=3) for number in range(120)]


@pytest.fixture(scope="module")
def labels():
    return np.array([enrol(SETTINGS, number).grade == "HGG" for number in range(120)])


def accuracy(features, labels):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return cross_val_score(model, np.array(features), labels, cv=8).mean()


def distant_from_tumour(number, patient):
    """Brain voxels more than 66 mm away from the tumour's centre, in the plane."""
    head = draw_head(stream(0, number, Stream.ANATOMY))
    centre = draw_location(stream(0, number, Stream.GROWTH), head)
    x, y = np.indices(patient.brain_mask.shape[:2])
    distance = np.hypot(2 * x - 90 - centre[0], 2 * y - 126 - centre[1])
    return patient.brain_mask & (distance > 66)[:, :, None]


def test_a_slab_equals_those_slices_of_the_volume():
    slab, volume = build(3, slices=5), build(3, slices=None)
    first = round((slab.affine[2, 3] - volume.affine[2, 3]) / 2)
    assert volume.segmentation.shape == (91, 109, 91)
    for modality in MODALITIES:
        inside = volume.images[modality][:, :, first : first + 5]
        np.testing.assert_array_equal(slab.images[modality], inside)
    np.testing.assert_array_equal(slab.segmentation, volume.segmentation[:, :, first : first + 5])


def test_air_is_zero_and_the_tumour_lies_in_the_brain(patients):
    for patient in patients:
        regions, _ = ndimage.label(patient.brain_mask)
        assert np.bincount(regions.ravel())[1:].max() > 0.97 * patient.brain_mask.sum()
        for image in patient.images.values():
            np.testing.assert_array_equal(image > 0, patient.brain_mask)
        assert set(np.unique(patient.segmentation)) <= {0, 1, 2, 4}
        assert patient.brain_mask[patient.lesion_mask].all()
        assert patient.lesion_mask.sum() > 60


def test_tissues_have_the_contrast_of_each_sequence(patients):
    order = {
        "t1": ("white", "grey", "fluid"),
        "t1ce": ("white", "grey", "fluid"),
        "t2": ("fluid", "grey", "white"),
        "flair": ("grey", "white", "fluid"),
    }
    for number in range(5):
        patient = build(number, slices=None)
        tissue = healthy_tissue(number, patient)
        for modality, names in order.items():
            means = [patient.images[modality][tissue[name]].mean() for name in names]
            assert means[0] > means[1] > means[2], (number, modality, means)


def healthy_tissue(number, patient):
    """Voxels of pure tissue far from the tumour, found again from the patient's own seed."""
    head = draw_head(stream(0, number, Stream.ANATOMY))
    axes = tuple(
        (patient.affine[i, 3] + 2 * np.arange(n)).astype(np.float32)
        for i, n in enumerate(patient.brain_mask.shape)
    )
    index = np.nonzero(distant_from_tumour(number, patient))
    points = np.stack([axis[i] for axis, i in zip(axes, index, strict=True)], axis=1)
    shift = head.displacement(axes)[(slice(None), *index)].T
    maps = sample_tissue(head.to_template(points, shift))
    found = {}
    for k, name in enumerate(("grey", "white", "fluid")):
        mask = np.zeros(patient.brain_mask.shape, dtype=bool)
        mask[index] = (maps[:, k] > 0.9) & (maps[:, 3] < 0.05)  # away from the ventricles
        found[name] = mask
    return found


def test_enhancing_tumour_is_bright_and_necrosis_dark_on_t1ce(patients):
    seen = 0
    for patient in patients:
        image, seg = patient.images["t1ce"], patient.segmentation
        healthy = np.median(image[patient.brain_mask & (seg == 0)])
        if (seg == 4).sum() > 100 and (seg == 1).sum() > 100:
            seen += 1
            assert np.median(image[seg == 4]) > healthy > np.median(image[seg == 1])
        if (seg == 2).sum() > 100:
            flair = patient.images["flair"]
            assert np.median(flair[seg == 2]) > 1.2 * np.median(flair[patient.brain_mask])
    assert seen > 20


def test_the_tumour_tells_the_class_about_as_well_as_asked(patients, labels):
    features = []
    for patient in patients:
        brain, lesion, seg = patient.brain_mask, patient.lesion_mask, patient.segmentation
        row = [(seg == label).sum() / lesion.sum() for label in (1, 2, 4)]
        for image in patient.images.values():
            scale = np.median(image[brain & ~lesion])
            row += [
                *(np.percentile(image[lesion], (10, 50, 90)) / scale),
                image[lesion].std() / scale,
            ]
        features.append(row)
    assert 0.87 <= accuracy(features, labels) <= 0.97


def test_the_background_tells_nothing_about_the_class(patients, labels):
    features = []
    for number, patient in enumerate(patients):
        outside = distant_from_tumour(number, patient)
        row = [
            outside.sum(),
            patient.brain_mask.sum(),
            *np.argwhere(patient.brain_mask).mean(axis=0),
        ]
        row += [np.ptp(index) for index in np.nonzero(patient.brain_mask)[:2]]
        for image in patient.images.values():
            row += [*np.log(np.percentile(image[outside], (10, 50, 90)))]
        row += [*patient.affine[:3, 3], np.log(patient.lesion_mask.sum())]
        features.append(row)
    assert accuracy(features, labels) < 0.62  # 120 coin tosses exceed it once in 200


def test_the_class_changes_nothing_far_from_the_tumour():
    high, low = build(7, grade="HGG"), build(7, grade="LGG")
    outside = distant_from_tumour(7, high)
    np.testing.assert_array_equal(high.brain_mask, low.brain_mask)
    for modality in MODALITIES:
        np.testing.assert_array_equal(high.images[modality][outside], low.images[modality][outside])
    assert (high.segmentation != low.segmentation).any()


@pytest.mark.parametrize("difficulty", [0.4, 0.6, 1.0])
def test_the_sign_of_the_malignancy_is_right_as_often_as_phi_says(difficulty):
    rng = np.random.default_rng(0)
    right = [
        (draw_character(rng, high_grade=high, difficulty=difficulty).malignancy > 0) == high
        for high in (True, False) * 2000
    ]
    expected = (1 + erf(1 / difficulty / sqrt(2))) / 2
    assert np.mean(right) == pytest.approx(expected, abs=0.02)


def test_a_head_maps_to_the_template_and_back():
    head = draw_head(np.random.default_rng(5))
    point = np.array([30.0, -20.0, 20.0], dtype=np.float32)
    found = head.to_patient(point)
    axes = (found[:1], found[1:2], found[2:])
    shift = head.displacement(axes).reshape(1, 3)
    np.testing.assert_allclose(head.to_template(found[None], shift)[0], point, atol=0.05)


def test_tissue_maps_agree_with_scipy_interpolation():
    template = load_template()
    points = np.random.default_rng(0).uniform(-60, 60, size=(200, 3)).astype(np.float32)
    ours = sample_tissue(points)
    position = (points - template.origin_mm).T
    for k in range(4):
        theirs = ndimage.map_coordinates(template.maps[..., k] / 255.0, position, order=1)
        np.testing.assert_allclose(ours[:, k], theirs, atol=2e-3)


def test_fields_have_unit_spread_and_agree_between_grids():
    field = draw_field(np.random.default_rng(1), spacing_mm=10, functions=2)
    axes = tuple(np.arange(-60, 60, 2, dtype=np.float32) for _ in range(3))
    values = field.on_grid(axes)
    assert values.std() == pytest.approx(1, abs=0.1)
    slab = field.on_grid((axes[0], axes[1], axes[2][20:24]))
    np.testing.assert_allclose(slab, values[..., 20:24], atol=1e-5)


def test_a_push_moves_most_at_its_radius_and_never_folds():
    points = np.zeros((200, 3), dtype=np.float32)
    points[:, 0] = np.linspace(0, 60, 200)
    moved = push(points, centre=(0, 0, 0), radii=(20, 20, 20), share=0.55)
    displacement = points[:, 0] - moved[:, 0]
    assert points[displacement.argmax(), 0] == pytest.approx(20, abs=0.5)
    assert displacement.max() == pytest.approx(0.55 * 20, rel=0.01)
    assert (np.diff(moved[:, 0]) > 0).all()
