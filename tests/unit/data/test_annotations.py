import numpy as np
import pytest

from glioma_xai.data.annotations import UNKNOWN, Annotation, annotate
from glioma_xai.errors import ConfigError

LESION = np.zeros((9, 11), bool)
LESION[4, 5] = LESION[4, 6] = LESION[5, 5] = True


def test_the_contour_is_kept():
    np.testing.assert_array_equal(annotate(LESION, Annotation(), (1.0, 1.0)), LESION)


def test_a_box_around_each_part():
    lesion = LESION.copy()
    lesion[0, 0] = True
    expected = np.zeros_like(lesion)
    expected[4:6, 5:7] = expected[0, 0] = True
    np.testing.assert_array_equal(annotate(lesion, Annotation("box"), (1.0, 1.0)), expected)


def test_dilation_and_margin_are_in_mm():
    lesion = np.zeros((9, 11), bool)
    lesion[4, 5] = True
    annotated = annotate(lesion, Annotation(dilation_mm=2, margin_mm=2), (2.0, 1.0))
    x, y = np.meshgrid(2.0 * (np.arange(9) - 4), np.arange(11.0) - 5, indexing="ij")
    distance = np.hypot(x, y)
    np.testing.assert_array_equal(annotated == 1, distance <= 2)
    np.testing.assert_array_equal(annotated == UNKNOWN, (distance > 2) & (distance <= 4))


def test_works_on_volumes():
    lesion = np.zeros((5, 5, 5), bool)
    lesion[2, 2, 2] = True
    annotated = annotate(lesion, Annotation(dilation_mm=1), (1.0, 1.0, 1.0))
    assert annotated.sum() == 7  # the voxel and its six neighbours


def test_no_lesion_is_unknown():
    assert (annotate(np.zeros((3, 3), bool), Annotation(), (1.0, 1.0)) == UNKNOWN).all()


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"shape must be contour or box, got circle\. Choose"):
        Annotation("circle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"must not be negative, got -1 and 0\.0"):
        Annotation(dilation_mm=-1)
