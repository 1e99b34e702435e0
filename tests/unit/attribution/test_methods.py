"""Integrated gradients, smooth-grad, Grad-CAM, and relevance read at a layer."""

import pytest
import torch
from torch import Tensor, nn

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.errors import CompatibilityError, ConfigError
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare

SHAPE = (2, 16, 16)


def run(model: nn.Module, name: str = "gradient", **options: object) -> Tensor:
    composite = build_composite(name, model, input_shape=SHAPE, layer=options.pop("layer", None))
    return compute_relevance(model, nets.images("plain"), composite, labels=nets.LABELS, **options)[
        1
    ]


def test_integrated_gradients_are_complete() -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    relevance = run(model, method="integrated_gradients", steps=300)
    change = (model(images) - model(0 * images))[range(3), nets.LABELS]
    torch.testing.assert_close(relevance.flatten(1).sum(1), change, rtol=0, atol=2e-3)


def test_integrated_gradients_by_hand() -> None:
    """f = relu(x - 1) for x = 3: the gradient is 1 on the last two thirds of the path."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU()).double()
    nn.init.constant_(model[1].weight, 1.0)
    nn.init.constant_(model[1].bias, -1.0)
    composite = build_composite("gradient", model, input_shape=(1, 1, 1))
    _, relevance = compute_relevance(
        model,
        torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64),
        composite,
        labels=torch.tensor([0]),
        method="integrated_gradients",
        steps=30,
    )
    assert relevance.item() == pytest.approx(2.0)


def test_smooth_grad_is_the_mean_over_noisy_copies() -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    found = run(
        model, method="smooth_grad", steps=3, noise=0.1, generator=torch.Generator().manual_seed(2)
    )
    generator = torch.Generator().manual_seed(2)
    width = 0.1 * (images.flatten(1).amax(1) - images.flatten(1).amin(1)).view(3, 1, 1, 1)
    expected = torch.zeros_like(images)
    for _ in range(3):
        noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        copy = (images + width * noise).requires_grad_()
        chosen = model(copy)[range(3), nets.LABELS].sum()
        expected += torch.autograd.grad(chosen, copy)[0] / 3
    torch.testing.assert_close(found, expected)


def test_grad_cam_by_loops() -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    found = run(model, method="grad_cam", layer="5")
    maps = model[:6](images).detach().requires_grad_()
    chosen = model[6:](maps)[range(3), nets.LABELS].sum()
    (gradient,) = torch.autograd.grad(chosen, maps)
    expected = torch.zeros(3, *maps.shape[2:], dtype=torch.float64)
    for sample in range(3):
        for feature in range(maps.shape[1]):
            weight = gradient[sample, feature].mean()
            expected[sample] += weight * maps[sample, feature].detach()
    expected = nn.functional.interpolate(expected.clamp(min=0)[:, None], (16, 16), mode="bilinear")
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad", "grad_cam"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_methods_agree_with_finite_differences(method: str, train: bool) -> None:
    model = nets.paper_cnn().train(train)

    def value(create_graph: bool) -> Tensor:
        torch.manual_seed(5)
        relevance = run(
            model,
            method=method,
            layer="8" if method == "grad_cam" else None,
            steps=3,
            generator=torch.Generator().manual_seed(3),
            create_graph=create_graph,
            update_statistics=False,
        )
        return relevance.square().sum()

    found = compare(model, value, directions=10)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


def test_methods_move_statistics_once() -> None:
    model = nets.vgg().train()
    run(model, method="integrated_gradients", steps=4)
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("name", ["epsilon", "gradient", "gradient_times_input"])
def test_reading_at_a_layer_equals_explaining_the_rest(name: str) -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    found = run(model, name, layer="4")
    maps = model[:5](images).detach()
    composite = build_composite(name, model[5:], input_shape=maps.shape[1:])
    _, expected = compute_relevance(model[5:], maps, composite, labels=nets.LABELS)
    torch.testing.assert_close(found, expected)


def test_reading_at_a_convolution_reads_behind_its_batch_norm() -> None:
    model = nets.vgg().eval()
    assert torch.equal(run(model, "epsilon_plus", layer="3"), run(model, "epsilon_plus", layer="4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "grad_cam"}, "method=grad_cam needs a layer: got layer=None"),
        ({"method": "smooth_grad", "layer": "4"}, "method=smooth_grad reads the input"),
        ({"method": "integrated_gradients", "name": "epsilon"}, "expected the gradient composite"),
        ({"method": "smooth_grad", "target": "all"}, "explains one target a pass"),
        ({"method": "grad_cam", "layer": "11"}, "Grad-CAM reads feature maps"),
        ({"method": "smoothgrad"}, "method must be one of .* got smoothgrad. Did you mean smooth_"),
        ({"method": "lime"}, "or None, got lime. Choose one of these"),
        ({"method": "smooth_grad", "noise": -1.0}, r"expected a finite share .* got noise=-1\.0"),
        ({"method": "smooth_grad", "noise": float("nan")}, "got noise=nan"),
        ({"method": "smooth_grad", "steps": 0}, "a whole number of at least 1, got steps=0"),
        ({"method": "integrated_gradients", "steps": -3}, "got steps=-3"),
        ({"method": "integrated_gradients", "steps": 2.5}, r"got steps=2\.5"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(nets.plain(), **options)


def test_layer_that_is_never_called_is_named() -> None:
    model = nets.plain()
    model.register_module("spare", nn.Identity())
    model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)
    with pytest.raises(CompatibilityError, match="layer spare must be called"):
        run(model, "epsilon", layer="spare")
