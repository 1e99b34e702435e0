import numpy as np
import pytest
import torch

from glioma_xai.data.augmentation import (
    Augmentation,
    Change,
    apply_changes,
    draw_change,
    sample_generator,
)
from glioma_xai.errors import ConfigError

NOTHING = Augmentation(True, 0, 0, 0, 0, 0, 0, 0, 0)


def sample(size: tuple[int, ...] = (16, 20)) -> torch.Tensor:
    """Two modalities, annotation and brain."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, *size), generator=generator)
    brain = torch.zeros(1, *size)
    brain[(0, *[slice(3, -3)] * len(size))] = 1
    lesion = torch.zeros(1, *size)
    lesion[(0, *[slice(5, 8)] * len(size))] = 1
    return torch.cat([image * brain, lesion, brain])


def apply_change(before: torch.Tensor, change: Change) -> torch.Tensor:
    image, masks = apply_changes(before[None, :-2], before[None, -2:], [change])
    return torch.cat([image, masks], dim=1)[0]


def drawn(settings: Augmentation, shape: tuple[int, ...], index: int = 0) -> Change:
    return draw_change(settings, shape, sample_generator(0, 0, index))


@pytest.mark.parametrize("size", [(16, 20), (8, 10, 6)])
def test_zeros_change_nothing(size: tuple[int, ...]):
    before = sample(size)
    after = apply_change(before, drawn(NOTHING, (2, *size)))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 20), (8, 10, 6)])
def test_a_flip_is_exact(size: tuple[int, ...]):
    settings = Augmentation(True, 1, 0, 0, 0, 0, 0, 0, 0)
    after = apply_change(sample(size), drawn(settings, (2, *size)))
    torch.testing.assert_close(after, sample(size).flip(1), atol=1e-5, rtol=1e-5)


def test_a_quarter_turn_is_exact_and_pixels_stay_square():
    before = sample((16, 16))
    change = drawn(NOTHING, (2, 16, 16))
    change.matrix[:] = [[0, -1, 0], [1, 0, 0]]
    expected = torch.rot90(before, -1, (1, 2))
    turned = apply_change(before, change)
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=1e-5)
    oblong = torch.zeros(4, 21, 11)
    oblong[:, 10, 2:9] = 1  # seven pixels along y become seven along x
    change = drawn(NOTHING, (2, 21, 11))
    change.matrix[:] = [[0, -1, 0], [1, 0, 0]]
    turned = apply_change(oblong, change)
    torch.testing.assert_close(turned[0, 7:14, 5], torch.ones(7), atol=1e-5, rtol=1e-5)
    assert turned[0].sum() == pytest.approx(7, abs=1e-3)


def test_image_and_masks_move_together():
    before = sample((40, 40))
    before[0], before[1] = before[2], before[3]  # the image shows its own masks
    settings = Augmentation(True, 0.5, 30, 0.2, 0.1, 0.05, 0, 0, 0)
    for index in range(5):
        after = apply_change(before, drawn(settings, (2, 40, 40), index))
        differing = ((after[:2] > 0.5) != (after[2:] > 0.5)).float().mean()
        assert differing < 0.01
        assert set(after[2:].unique().tolist()) <= {0.0, 1.0}


def test_air_stays_0_under_intensity_changes():
    settings = Augmentation(True, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5)
    after = apply_change(sample(), drawn(settings, (2, 16, 20)))
    assert after[:2, sample()[3] == 0].abs().max() < 1e-6
    assert not torch.allclose(after[:2], sample()[:2])


@pytest.mark.parametrize("size", [(16, 20), (8, 10, 6)])
def test_a_batch_is_changed_as_its_samples_are(size: tuple[int, ...]):
    settings = Augmentation(elastic=0.05)
    changes = [drawn(settings, (2, *size), index) for index in range(3)]
    together = apply_changes(*sample(size).expand(3, 4, *size).split(2, dim=1), changes)
    alone = [apply_change(sample(size), change) for change in changes]
    torch.testing.assert_close(torch.cat(together, dim=1), torch.stack(alone), rtol=0, atol=0)
    assert not torch.equal(alone[0], alone[1])


def test_what_comes_in_from_outside_is_air():
    moved = drawn(NOTHING, (2, 16, 20))
    moved.matrix[0, 2] = 100
    assert (apply_change(sample(), moved) == 0).all()


def test_draws_depend_on_seed_epoch_and_index_alone():
    settings = Augmentation(elastic=0.05)

    def draw(seed: int, epoch: int, index: int) -> np.ndarray:
        return draw_change(settings, (2, 16, 20), sample_generator(seed, epoch, index)).matrix

    np.testing.assert_array_equal(draw(1, 2, 3), draw(1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert (draw(1, 2, 3) != draw(*other)).any()


def test_drawn_values_stay_in_their_range():
    settings = Augmentation(rotation_degrees=10, scale=0.2, translation=0.1, flip=0)
    for index in range(50):
        matrix = drawn(settings, (2, 16, 20), index).matrix
        factor = np.sqrt(np.linalg.det(matrix[:, :2]))
        assert 1 / 1.2 - 1e-6 <= factor <= 1 / 0.8 + 1e-6
        assert abs(np.arctan2(matrix[1, 0], matrix[0, 0])) <= np.deg2rad(10) + 1e-6
        assert (np.abs(matrix[:, 2]) <= [1.6, 2.0]).all()


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"augmentation\.flip must lie in \[0, 1\], got 2\. Set"):
        Augmentation(flip=2)
