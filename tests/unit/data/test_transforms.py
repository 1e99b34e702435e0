import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from glioma_xai.data.annotations import UNKNOWN
from glioma_xai.data.grids import native_slices
from glioma_xai.data.slices import SliceSelection
from glioma_xai.data.subject_space import restore
from glioma_xai.data.transforms import Preparation, Prepared, prepare
from glioma_xai.data.volumes import LoadedSubject
from glioma_xai.errors import ShapeError
from tests.unit.data.small_cohorts import LPS, SHAPE, brain_of, case_arrays

PLAIN = Preparation(
    modalities=("t1", "t2"),
    label_values={"necrosis": 1, "oedema": 2, "enhancing": 4},
    spatial_size=None,
    spacing_mm=None,
    slices=SliceSelection(2),
    normalisation="none",
)


def loaded(affine: np.ndarray = LPS, **changes: object) -> LoadedSubject:
    arrays = case_arrays()
    image = np.stack([arrays["t1"], arrays["t2"]]).astype(np.float32)
    values = {"image": image, "labels": arrays["seg"].astype(np.float32), "affine": affine}
    return LoadedSubject(**(values | changes))  # type: ignore[arg-type]


def changed(settings: Preparation, **changes: object) -> Preparation:
    return Preparation(**(vars(settings) | changes))


def reoriented(subject: LoadedSubject, codes: str) -> LoadedSubject:
    """The same anatomy stored along other axes."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(subject.affine), nib.orientations.axcodes2ornt(codes)
    )
    channels = [nib.orientations.apply_orientation(c, turn) for c in subject.image]
    affine = subject.affine @ nib.orientations.inv_ornt_aff(turn, subject.image.shape[1:])
    labels = nib.orientations.apply_orientation(subject.labels, turn)
    return LoadedSubject(np.stack(channels), labels, affine)


def test_nothing_but_orientation_and_slices():
    prepared = prepare(loaded(), PLAIN)
    arrays = case_arrays()
    assert prepared.samples.shape == (2, 5, *SHAPE[:2])
    assert prepared.geometry["slices"] == [2, 3]  # the largest and the one below
    for row, k in enumerate((2, 3)):
        for channel, name in enumerate(("t1", "t2")):
            flipped = arrays[name][::-1, ::-1, k]  # LPS to RAS
            np.testing.assert_array_equal(prepared.samples[row, channel], flipped)
        for mask in (2, 3):  # annotation and lesion
            np.testing.assert_array_equal(
                prepared.samples[row, mask], arrays["seg"][::-1, ::-1, k] > 0
            )
        np.testing.assert_array_equal(prepared.samples[row, 4], brain_of()[::-1, ::-1, k])


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PIR", "SAL"])
def test_result_does_not_depend_on_the_order_of_axes(codes: str):
    first, second = prepare(loaded(), PLAIN), prepare(reoriented(loaded(), codes), PLAIN)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_allclose(first.geometry["model_affine"], second.geometry["model_affine"])


@pytest.mark.parametrize(
    ("region", "values"), [("tumour_core", (1, 4)), ("enhancing_tumour", (4,))]
)
def test_regions(region: str, values: tuple[int, ...]):
    prepared = prepare(loaded(), changed(PLAIN, region=region))
    expected = np.isin(case_arrays()["seg"], values)[::-1, ::-1]
    k = prepared.geometry["slices"][0]
    np.testing.assert_array_equal(prepared.samples[0, 2], expected[..., k])


def test_slices_show_the_tumour_even_where_it_lacks_the_region():
    """Else one could tell who has enhancing tumour by the level of the slice."""
    labels = np.where(case_arrays()["seg"] > 0, 2, 0).astype(np.float32)  # oedema alone
    labels[..., 4] = 0  # largest in slice 3, where the brain is as large as anywhere
    subject = loaded(labels=labels)
    prepared = prepare(subject, changed(PLAIN, region="enhancing_tumour"))
    assert prepared.geometry["slices"] == prepare(subject, PLAIN).geometry["slices"] == [2, 3]
    assert (prepared.samples[:, -2] == UNKNOWN).all()


def test_twice_the_spacing_is_the_mean_of_four_pixels():
    prepared = prepare(loaded(), changed(PLAIN, spacing_mm=(2.0, 2.0)))
    k = prepared.geometry["slices"][0]
    fine = case_arrays()["t1"][::-1, ::-1, k].astype(np.float64)
    mean = fine.reshape(10, 2, 12, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(prepared.samples[0, 0], mean, rtol=1e-3)
    affine = np.array(prepared.geometry["model_affine"])
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), [2, 2, 1])
    corner = affine @ [-0.5, -0.5, 0, 1]  # the outer edge stays where it was
    np.testing.assert_allclose(corner[:2], [-SHAPE[0] + 0.5, 239 - SHAPE[1] + 0.5])


def test_window_is_centred_on_the_brain_but_cuts_nothing_without_need():
    image = np.zeros((2, 30, 24, 6), np.float32)
    image[:, 10:30] = loaded().image
    labels = np.zeros((30, 24, 6), np.float32)
    labels[10:30] = case_arrays()["seg"]
    subject = loaded(image=image, labels=labels, affine=np.eye(4))
    settings = changed(PLAIN, spatial_size=(16, 28))
    prepared = prepare(subject, settings)
    assert prepared.samples.shape[2:] == (16, 28)
    brain_x = np.nonzero(brain_of().any(axis=(1, 2)))[0]
    middle = 10 + (brain_x[0] + brain_x[-1] + 1 - 16) // 2
    np.testing.assert_array_equal(
        prepared.samples[0, 0, :, 2:26], image[0, middle : middle + 16, :, 2]
    )
    assert prepared.geometry["brain_fits"]
    assert not prepare(subject, changed(PLAIN, spatial_size=(8, 28))).geometry["brain_fits"]


def test_air_is_0_and_a_marker_keeps_its_place_on_the_scale():
    image = np.where(loaded().image == 0, -3.0, loaded().image / 100).astype(np.float32)
    image[:, :2, :2] = 4.0
    prepared = prepare(loaded(image=image), changed(PLAIN, normalisation="zscore"))
    inside = image[0][brain_of()]
    expected = (4.0 - inside.mean()) / inside.std()
    np.testing.assert_allclose(prepared.samples[0, 0, -2:, -2:], expected, rtol=1e-3)
    assert prepared.samples[0, 0, 0, 0] == 0


def test_slices_keep_the_file_s_numbers_however_it_is_turned():
    numbers = np.stack(np.indices((3, 4, 5))).astype(np.float32)  # each axis' own numbering
    for seed in range(200):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(random_state=seed).as_matrix()
        turned = nib.as_closest_canonical(
            nib.Nifti1Image(np.moveaxis(numbers, 0, -1), affine)
        ).get_fdata()
        axis = next(a for a in range(3) if np.ptp(turned[0, 0, :, a]) > 0)
        expected = turned[0, 0, :, axis].astype(int).tolist()
        found = native_slices(range(len(expected)), len(expected), affine)
        assert found == expected, affine


def test_unknown_lesions():
    without = prepare(loaded(labels=None), PLAIN)
    assert (without.samples[:, 2] == UNKNOWN).all()
    labels = case_arrays()["seg"].astype(np.float32)
    labels[..., 4] = 0
    partly = prepare(loaded(labels=labels), changed(PLAIN, slices=SliceSelection(None, 1, 0)))
    assert 4 not in partly.geometry["slices"]


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR"])
def test_restore_is_the_exact_inverse_without_resampling(codes: str):
    subject = reoriented(loaded(), codes)
    prepared = prepare(subject, changed(PLAIN, spatial_size=(30, 16)))
    image = restore(prepared.geometry, prepared.samples[:, 0].astype(np.float32))
    np.testing.assert_array_equal(image.affine, subject.affine)
    back = image.get_fdata()
    kept = back != 0
    np.testing.assert_array_equal(back[kept], subject.image[0][kept])
    numbers = prepared.geometry["native_slices"]
    axis = int(np.abs(subject.affine[2, :3]).argmax())
    others = tuple(other for other in range(3) if other != axis)
    assert sorted(np.nonzero(kept.any(axis=others))[0]) == sorted(numbers)
    assert kept.sum() == (prepared.samples[:, 0] != 0).sum()


def test_restore_interpolates_where_the_grid_changed():
    subject = loaded()
    x, y, _ = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    smooth = np.where(brain_of(), 100.0 + x + 2 * y, 0).astype(np.float32)
    subject = loaded(image=np.stack([smooth] * 2))
    prepared = prepare(subject, changed(PLAIN, spacing_mm=(2.0, 2.0)))
    back = restore(prepared.geometry, prepared.samples[:, 0].astype(np.float32)).get_fdata()
    k = prepared.geometry["native_slices"][0]
    core = (slice(7, 13), slice(8, 16), k)
    np.testing.assert_allclose(back[core], smooth[core], atol=0.5)


def test_restore_takes_some_slices_and_refuses_others():
    prepared = prepare(loaded(), PLAIN)
    one = np.ones((1, *SHAPE[:2]), np.float32)
    assert restore(prepared.geometry, one, [3]).get_fdata()[..., 3].all()
    with pytest.raises(ShapeError, match=r"expected some of \[2, 3\], got \[4\]"):
        restore(prepared.geometry, one, [4])
    with pytest.raises(ShapeError, match=r"expected \(2, 20, 24\), got \(1, 20, 24\)"):
        restore(prepared.geometry, one)


def test_half_precision_keeps_three_digits():
    prepared: Prepared = prepare(loaded(), changed(PLAIN, normalisation="zscore"))
    image = loaded().image[0]
    inside = image[brain_of()]
    exact = ((image - inside.mean()) / inside.std())[::-1, ::-1, 2]
    brain = brain_of()[::-1, ::-1, 2]
    np.testing.assert_allclose(prepared.samples[0, 0][brain], exact[brain], atol=2e-3)
