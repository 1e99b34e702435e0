"""Small changes of a probe: how far they go, and that the worst one is worse than any drawn."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from glioma_xai import losses
from glioma_xai.training.guidance import Guidance
from glioma_xai.training.perturbation import Perturbation, perturbed
from glioma_xai.training.terms import guidance_at_places, shares_a_pass
from tests.unit.training.test_module import make_batch
from tests.unit.training.test_terms import make_module

RADIUS = 0.02


def moved(images: Tensor, perturbation: Perturbation, **more: Any) -> Tensor:
    options: dict[str, Any] = {"radius": RADIUS, "index": torch.arange(len(images)), "key": (1, 2)}

    def height(x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(dim=1)

    return perturbed(images, height, perturbation=perturbation, **(options | more))


def test_no_pixel_goes_further_than_the_radius() -> None:
    images = torch.randn(3, 2, 8, 8)
    assert moved(images, "none") is images
    for perturbation in ("random", "worst"):
        change = moved(images, perturbation) - images  # type: ignore[arg-type]
        assert change.abs().max() <= RADIUS + 1e-6
        assert change.abs().max() > 0.9 * RADIUS
    assert torch.equal(moved(images, "worst"), images + RADIUS * images.sign())


def test_a_random_change_is_a_function_of_key_and_sample() -> None:
    images, index = torch.randn(3, 2, 8, 8), torch.tensor([5, 6, 7])
    whole = moved(images, "random", index=index)
    turned = moved(images.flip(0), "random", index=index.flip(0))
    assert torch.equal(turned.flip(0), whole)
    assert not torch.equal(moved(images, "random", index=index, key=(1, 3)), whole)


def test_the_worst_change_raises_the_guidance_loss_more_than_random_ones() -> None:
    module, batch = make_module(partial(losses.energy)), make_batch(4)

    def values_at(images: Tensor) -> Tensor:
        return guidance_at_places(
            module.model,
            module.attribution,
            module.guidance,
            images,
            batch["label"],
            batch["lesion_mask"],
        )

    def loss_after(perturbation: Perturbation, key: int) -> float:
        images = perturbed(
            batch["image"],
            values_at,
            perturbation=perturbation,
            radius=RADIUS,
            index=batch["index"],
            key=(key,),
        )
        return values_at(images).sum().item()

    worst = loss_after("worst", 0)
    assert worst > loss_after("none", 0)
    assert worst > max(loss_after("random", key) for key in range(10))
    assert all(p.grad is None for p in module.model.parameters())


@pytest.mark.parametrize("perturbation", ["random", "worst"])
def test_a_step_reads_relevance_at_the_changed_input(perturbation: str) -> None:
    batch = make_batch(4)
    options: dict[str, Any] = {"perturbation": perturbation, "perturbation_radius": RADIUS}
    plain = make_module(partial(losses.energy))
    module = make_module(partial(losses.energy), **options)
    as_it_is, changed = (m.losses(batch, step=0, total_steps=1) for m in (plain, module))
    assert changed.classification.item() == pytest.approx(as_it_is.classification.item(), rel=1e-5)
    assert changed.guidance.item() != as_it_is.guidance.item()
    if perturbation == "worst":
        assert changed.guidance > as_it_is.guidance
    gradients = torch.autograd.grad(changed.total, list(module.model.parameters()))
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert shares_a_pass(plain.attribution, Guidance(), batch)
    assert not shares_a_pass(module.attribution, module.guidance, batch)
