import numpy as np
import pytest
from scipy import ndimage

from glioma_xai.data.intensities import (
    background_value,
    find_foreground,
    normalisation_map,
    otsu_threshold,
)
from tests.unit.data.small_cohorts import SHAPE, brain_of


def image_with(background: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 20, (2, *SHAPE)).astype(np.float32)
    return np.where(brain_of(), values, np.float32(background))


@pytest.mark.parametrize("background", [0.0, -6.2, 61.0])
def test_brain_is_found_whatever_the_background(background: float):
    image = image_with(background)
    image[:, 9:11, 11:13, 2:4] = background  # a hole inside the brain is filled
    image[:, 1:3, 1:3] = 150  # a marker in the corner is neither brain nor air
    found = find_foreground(image)
    brain = found.brain
    air = np.stack([found.is_air(part, channel) & ~brain for channel, part in enumerate(image)])
    np.testing.assert_array_equal(brain, brain_of())
    assert background_value(image[0]) == pytest.approx(background)
    assert not air[:, 1:3, 1:3].any()
    outside = ~brain_of()
    outside[1:3, 1:3] = False
    np.testing.assert_array_equal(air, np.stack([outside] * 2))


def test_a_voxel_that_one_modality_misses_is_brain():
    image = image_with(-2.7)
    image[0, 10, 12] = -2.7
    image[0, :, 20:] = -2.7
    np.testing.assert_array_equal(find_foreground(image).brain, brain_of())


def test_the_head_is_found_in_noise():
    rng = np.random.default_rng(0)
    head = np.repeat(brain_of((64, 64, 1)), 1, axis=2)
    signal = np.where(head, rng.normal(120, 25, (3, 64, 64, 1)), 0)
    noise = np.abs(rng.normal(0, 4, signal.shape))
    image = np.clip(np.round(signal + noise), 0, 255).astype(np.float32)
    found = find_foreground(image)
    brain = found.brain
    air = np.stack([found.is_air(part, channel) & ~brain for channel, part in enumerate(image)])
    differing = float((brain != head).mean())
    assert differing < 0.01
    assert not air[:, head[:, :, 0], 0].any()
    assert float(air[:, ~head].mean()) > 0.99


def test_zscore_uses_the_brain_alone():
    image = image_with(-6.2)
    shift, scale = normalisation_map(image, brain_of(), None, "zscore")
    inside = (image[:, brain_of()] - shift[:, None]) / scale[:, None]
    np.testing.assert_allclose(inside.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_scanner_gain_and_offset_cancel(method):
    image = image_with(0)
    first = normalisation_map(image, brain_of(), None, method)
    second = normalisation_map(1000 * image + 7, brain_of(), None, method)
    one = (image - first[0][:, None, None, None]) / first[1][:, None, None, None]
    other = (1000 * image + 7 - second[0][:, None, None, None]) / second[1][:, None, None, None]
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_healthy_statistics_do_not_know_the_tumour():
    image = image_with(0)
    tumour = np.zeros(SHAPE, bool)
    tumour[8:12, 8:12] = True
    plain = normalisation_map(image, brain_of(), tumour, "healthy")
    image[:, tumour] = 900
    bright = normalisation_map(image, brain_of(), tumour, "healthy")
    np.testing.assert_array_equal(plain, bright)
    whole = normalisation_map(image, brain_of(), None, "healthy")
    np.testing.assert_array_equal(whole, normalisation_map(image, brain_of(), None, "zscore"))
    everything = normalisation_map(image, brain_of(), brain_of(), "healthy")
    np.testing.assert_array_equal(everything, whole)


def test_percentiles_go_to_0_and_1():
    image = image_with(0)
    shift, scale = normalisation_map(image, brain_of(), None, "percentile")
    inside = (image[:, brain_of()] - shift[:, None]) / scale[:, None]
    low, high = np.percentile(inside, (0.5, 99.5), axis=1)
    np.testing.assert_allclose(low, 0, atol=1e-5)
    np.testing.assert_allclose(high, 1, atol=1e-5)


def test_otsu_lies_between_two_heaps():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.03, 500), rng.normal(0.7, 0.03, 500)])
    threshold = otsu_threshold(values.astype(np.float32))
    assert values[:500].max() <= threshold <= values[500:].min()


def test_the_reference_brain_has_no_holes():
    np.testing.assert_array_equal(ndimage.binary_fill_holes(brain_of()), brain_of())
