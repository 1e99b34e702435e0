import numpy as np
import pytest

from glioma_xai.data.slices import SliceSelection, select_slices
from glioma_xai.errors import ConfigError

AREA = np.array([0, 1, 5, 30, 90, 100, 60, 50, 10, 0])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (SliceSelection(1), [5]),
        (SliceSelection(4, 1, 0.2), [3, 4, 5, 6]),  # 5, then 4, 6, 3
        (SliceSelection(5, 2, 0.2), [3, 5, 7]),  # 1 and 9 are below a fifth of 100
        (SliceSelection(6, 1, 0.5), [4, 5, 6, 7]),  # 3 ends the way down
        (SliceSelection(None, 1, 0.0), [1, 2, 3, 4, 5, 6, 7, 8]),  # no slice without tumour
    ],
)
def test_largest_slice_and_neighbours(selection: SliceSelection, expected: list[int]):
    assert select_slices(AREA, selection) == expected


def test_the_ends_of_the_volume_are_kept():
    assert select_slices(np.array([9, 8, 7]), SliceSelection(5)) == [0, 1, 2]


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"must be 1 or more, got slice_count=0, slice_step=1"):
        SliceSelection(0)
    with pytest.raises(ConfigError, match=r"slice_min_area must be a share in \[0, 1\], got 2"):
        SliceSelection(3, 1, 2)
