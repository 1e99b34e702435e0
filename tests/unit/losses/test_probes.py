import math

import numpy as np
import pytest
import torch

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.losses import probes
from glioma_xai.losses.backgrounds import (
    Stream,
    draw_donors,
    exchange_background,
    paste_background,
    sample_generators,
)
from tests.reference import losses as reference

KEY = (7, 2)
PROBES = [probes.image, probes.scaled, probes.mixed, probes.noise]
each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
each_shape = pytest.mark.parametrize("space", [(6, 5), (3, 4, 5)], ids=["2d", "3d"])


def batch(space=(6, 5)):
    """Six samples: three with a lesion, one of them partly unknown; missing; empty; resampled."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 2, *space, generator=generator)
    mask = (torch.rand(6, 1, *space, generator=generator) < 0.3).float()
    mask[:, :, 0, 0] = 1
    mask[2, :, 1] = math.nan
    mask[3], mask[4] = math.nan, 0
    mask[5, :, 2] = 0.5
    return images, mask, torch.tensor([11, 4, 8, 20, 3, 15])


@each_probe
@each_shape
def test_only_the_known_background_of_guided_samples_changes(probe, space):
    images, mask, index = batch(space)
    probed = probe(images, mask, index=index, key=KEY)
    assert torch.isfinite(probed).all()
    guided = torch.tensor([True, True, True, False, False, True])
    background = (mask == 0) & guided.view(-1, *[1] * (len(space) + 1))
    kept = ~background.expand_as(images)
    assert torch.equal(probed[kept], images[kept])
    if probe is not probes.image:
        changed = (probed != images) & background
        assert changed.flatten(1).any(dim=1)[guided].all()


@each_probe
def test_a_sample_is_a_function_of_key_index_and_whom_it_stands_with(probe):
    images, mask, index = batch()
    probed = probe(images, mask, index=index, key=KEY)
    assert torch.equal(probe(images, mask, index=index, key=KEY), probed)
    turned = probe(images.flip(0), mask.flip(0), index=index.flip(0), key=KEY)
    assert torch.equal(turned.flip(0), probed)
    if probe is not probes.image:
        assert not torch.equal(probe(images, mask, index=index, key=(7, 3)), probed)


def test_no_global_random_state_is_used():
    images, mask, index = batch()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for probe in PROBES:
        probe(images, mask, index=index, key=KEY)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_scaled_multiplies_the_background_by_one_factor_a_sample():
    images, mask, index = batch()
    probed = probes.scaled(images, mask, index=index, key=KEY, low=0.5, high=2.0)
    for sample, generator in enumerate(sample_generators(index, KEY, Stream.FACTOR)):
        background = (mask[sample] == 0).expand_as(images[sample])
        if sample in (3, 4):
            continue
        factor = 0.5 + 1.5 * generator.random()
        expected = images[sample][background] * factor
        torch.testing.assert_close(probed[sample][background], expected)


def test_mixed_is_the_stated_mixture():
    images, mask, index = batch()
    donors = draw_donors(mask, index=index, key=KEY)
    probed = probes.mixed(images, mask, index=index, key=KEY)
    for sample, generator in enumerate(sample_generators(index, KEY, Stream.FACTOR)):
        other = int(donors[sample])
        filled = reference.pasted(images[sample], mask[sample], images[other], mask[other])
        a = generator.random()
        torch.testing.assert_close(probed[sample], a * images[sample] + (1 - a) * filled)


def test_mixing_ratio_is_uniform():
    index = torch.arange(4000)
    draws = [generator.random() for generator in sample_generators(index, KEY, Stream.FACTOR)]
    counts = np.histogram(draws, bins=10, range=(0, 1))[0]
    assert (abs(counts - 400) < 5 * math.sqrt(400)).all()


def test_noise_has_the_stated_spread_and_dtype():
    images, mask = torch.zeros(2, 1, 60, 60, dtype=torch.float64), torch.zeros(2, 1, 60, 60)
    mask[:, :, 0, 0] = 1
    noisy = probes.noise(images, mask, index=torch.tensor([0, 1]), key=KEY, std=0.3)
    assert noisy.dtype == torch.float64
    assert noisy.std().item() == pytest.approx(0.3, rel=0.05)
    assert not torch.equal(noisy[0], noisy[1])


@each_shape
def test_exchange_equals_the_slow_reference(space):
    images, mask, _ = batch(space)
    for donors in ([1, 2, 0, 4, 5, 3], [4, 3, 5, 0, 1, 2], [0, 1, 2, 3, 4, 5]):
        expected = torch.stack(
            [reference.pasted(images[i], mask[i], images[j], mask[j]) for i, j in enumerate(donors)]
        )
        result = exchange_background(images, mask, donors=torch.tensor(donors))
        assert torch.equal(result, expected)


def test_the_donor_lesion_never_arrives():
    images = torch.zeros(2, 1, 4, 4)
    images[1, :, 2:, 2:] = 9.0  # the donor's lesion
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 0, 0], mask[1, :, 2:, 2:] = 1, 1
    assert exchange_background(images, mask, donors=torch.tensor([1, 1]))[0].max() == 0
    assert paste_background(images[:1], mask[:1], images[1:], mask[1:]).max() == 0


def test_donors_are_other_patients_with_a_mask():
    _, mask, index = batch()
    patients = ["a", "a", "b", "c", "d", "a"]
    for epoch in range(30):
        donors = draw_donors(mask, index=index, key=(1, epoch), patient_id=patients).tolist()
        assert 3 not in donors[:3] + donors[4:]  # no mask, nothing to give
        assert all(donor in (2, 4) for donor in (donors[0], donors[1], donors[5]))
    drawn = {int(draw_donors(mask, index=index, key=(1, epoch))[0]) for epoch in range(60)}
    assert drawn == {1, 2, 4, 5}


def test_donors_of_another_class():
    _, mask, index = batch()
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    for epoch in range(20):
        donors = draw_donors(mask, index=index, key=(epoch,), labels=labels)
        assert (labels[donors] != labels).all()


def test_without_a_donor_a_sample_stays_as_it_is():
    images, mask, index = batch()
    alone = draw_donors(mask[:1], index=index[:1], key=KEY)
    assert alone.tolist() == [0]
    assert torch.equal(probes.mixed(images[:1], mask[:1], index=index[:1], key=KEY), images[:1])
    one_patient = draw_donors(mask, index=index, key=KEY, patient_id=["a"] * 6)
    assert one_patient.tolist() == [0, 1, 2, 3, 4, 5]
    one_class = draw_donors(mask, index=index, key=KEY, labels=torch.zeros(6, dtype=torch.int64))
    assert one_class.tolist() == [0, 1, 2, 3, 4, 5]


def test_donors_do_not_depend_on_the_order_of_the_batch():
    _, mask, index = batch()
    straight = draw_donors(mask, index=index, key=KEY)
    turned = draw_donors(mask.flip(0), index=index.flip(0), key=KEY)
    assert torch.equal(index[straight], index.flip(0)[turned].flip(0))


def test_shapes_that_do_not_fit():
    images, mask, index = batch()
    with pytest.raises(ShapeError, match=r"lesion_mask must match images .* expected \(6, 1, 6, 5"):
        probes.scaled(images, mask[:, :, :3], index=index, key=KEY)
    with pytest.raises(ShapeError, match="index must have one entry for each sample: expected 6"):
        draw_donors(mask, index=index[:3], key=KEY)
    with pytest.raises(ShapeError, match="patient_id must have one entry"):
        draw_donors(mask, index=index, key=KEY, patient_id=["a"])
    with pytest.raises(ShapeError, match=r"expected \(6,\), got \(2,\)"):
        exchange_background(images, mask, donors=torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="donor_images must match images"):
        paste_background(images, mask, images[:2], mask[:2])


def test_options_out_of_range():
    images, mask, index = batch()
    with pytest.raises(ConfigError, match=r"low <= high, got 2.0 and 1.0"):
        probes.scaled(images, mask, index=index, key=KEY, low=2.0)
    with pytest.raises(ConfigError, match="std >= 0, got -1"):
        probes.noise(images, mask, index=index, key=KEY, std=-1)
