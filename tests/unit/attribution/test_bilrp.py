"""BiLRP against explicit second-order computations on small networks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glioma_xai.attribution import build_composite
from glioma_xai.attribution.bilrp import (
    HiddenFeatures,
    largest_products,
    link_regions,
    region_factors,
    similarity_map,
)
from glioma_xai.errors import CompatibilityError, ConfigError, ShapeError
from tests.reference import lrp
from tests.unit.attribution import nets
from tests.unit.attribution.described import Description, record

SMALL = (2, 8, 8)


def images(size: tuple[int, ...] = SMALL) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn((2, *size), generator=generator, dtype=torch.float64)
    return first, second


def pixels_of(image: Tensor) -> Tensor:
    """Every pixel is a region of its own."""
    return torch.arange(image[0].numel()).reshape(image.shape[1:])


def small_net(*, bias: bool) -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 7, bias=bias),
        nn.ReLU(),
        nn.Linear(7, 2, bias=bias),
    )
    nets.prepared(net)
    return net.eval()


def links_of(
    model: nn.Module,
    composite: str,
    *,
    layer: str | None = None,
    size: tuple[int, ...] = SMALL,
    **options: float,
) -> tuple[Tensor, HiddenFeatures]:
    """Link of every pair of pixels."""
    features = HiddenFeatures(model, input_shape=size, layer=layer)
    built = build_composite(composite, features, input_shape=size, **options)  # type: ignore[arg-type]
    width = features(images(size)[0][None]).shape[1]
    first, second = (
        region_factors(
            features,
            image,
            built,
            coefficients=torch.eye(width, dtype=torch.float64),
            regions=pixels_of(image),
            chunk=3,
        )
        for image in images(size)
    )
    return link_regions(first, second), features


def hessian_product(features: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """x_i x'_j d^2 y / dx_i dx'_j of y = <f(x), f(x')>, summed over channels: (pixels, pixels)."""
    size = first.numel()

    def dot(joint: Tensor) -> Tensor:
        one, two = (features(x.view(1, *first.shape))[0] for x in (joint[:size], joint[size:]))
        product: Tensor = one @ two
        return product

    joint = torch.cat([first.flatten(), second.flatten()])
    hessian: Tensor = torch.autograd.functional.hessian(dot, joint)  # type: ignore[no-untyped-call]
    product = first.flatten()[:, None] * hessian[:size, size:] * second.flatten()[None]
    channels = first.shape[0]
    return product.view(channels, -1, channels, size // channels).sum(dim=(0, 2))


@pytest.mark.parametrize("composite", ["epsilon", "gradient_times_input"])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_hessian_times_input_on_a_piecewise_linear_net(composite: str, bias: bool) -> None:
    model = small_net(bias=bias)
    links, features = links_of(model, composite, epsilon=1e-12, stabilizer=1e-12)
    expected = hessian_product(features, *images())
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(links, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "layer"), [("dense", None), ("residual_2d", None), ("residual_2d", "4"), ("vgg", "6")]
)
def test_equals_hessian_times_input_where_branches_meet_and_inside(
    name: str, layer: str | None
) -> None:
    """Inner layers with maps of features are averaged over space; batch norms are folded."""
    model, size = nets.NETS[name]().eval(), (2, 16, 16)
    links, features = links_of(model, "gradient_times_input", layer=layer, size=size)
    expected = hessian_product(features, *images(size))
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(links, expected, rtol=1e-6, atol=1e-9)


def test_equals_outer_products_of_the_slow_reference() -> None:
    """z+ in convolutions and epsilon in the dense layer, feature by feature, in loops."""
    model = small_net(bias=True)
    links, _ = links_of(model, "epsilon_plus")
    layers = list(model)[:-1]
    maps = []
    for image in images():
        known = record(nn.Sequential(*layers), image[None])
        rules = ("zplus", "epsilon", "")
        steps, _ = Description(known, 0, rules, 1e-6)(layers, SMALL)
        rows = [
            lrp.explain(steps, image.numpy().ravel(), lambda f, m=m: np.eye(len(f))[m])[1]
            for m in range(7)
        ]
        maps.append(np.array(rows).reshape(7, 2, -1).sum(axis=1))  # features pixels
    expected = sum(np.outer(one, two) for one, two in zip(*maps, strict=True))
    np.testing.assert_allclose(links.numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "zplus"])
def test_links_sum_to_the_dot_product(composite: str) -> None:
    model = small_net(bias=False)
    links, features = links_of(model, composite, epsilon=1e-12, stabilizer=1e-12)
    one, two = features(torch.stack(images())).detach()
    assert links.sum().item() == pytest.approx(float(one @ two), rel=1e-6)


def test_regions_sum_over_their_pixels_and_a_map_over_the_other_image() -> None:
    model, (first, second) = small_net(bias=True), images()
    links, features = links_of(model, "epsilon_plus")
    composite = build_composite("epsilon_plus", features, input_shape=SMALL)
    regions = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 3).clamp(max=3)
    coefficients = torch.eye(7, dtype=torch.float64)
    one, two = (
        region_factors(features, image, composite, coefficients=coefficients, regions=regions)
        for image in (first, second)
    )
    member = torch.nn.functional.one_hot(regions.flatten(), 4).double()  # pixels regions
    torch.testing.assert_close(link_regions(one, two), member.T @ links @ member)
    relevance = similarity_map(features, first, composite, coefficients=coefficients, other=two)
    torch.testing.assert_close(relevance.sum(0).flatten(), links.sum(dim=1))


def test_few_features_are_exact_if_the_others_are_silent() -> None:
    first, others = torch.tensor([1.0, 0.0, 3.0, 2.0]), torch.tensor([[1.0, 5.0, 2.0, 0.0]])
    assert largest_products(first, others, most=9).argmax(dim=1).tolist() == [2, 0]
    assert largest_products(first, others, most=1).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    model, (one, two) = small_net(bias=True), images()
    links, features = links_of(model, "epsilon_plus")
    composite = build_composite("epsilon_plus", features, input_shape=SMALL)
    read = features(torch.stack([one, two])).detach()
    few = largest_products(read[0], read[1:], most=7)
    assert len(few) < 7
    factors = [
        region_factors(features, x, composite, coefficients=few, regions=pixels_of(x))
        for x in (one, two)
    ]
    torch.testing.assert_close(link_regions(*factors), links)


def test_volumes_and_named_layers() -> None:
    model, size = nets.residual(3).eval(), (2, 8, 8, 8)
    features = HiddenFeatures(model, input_shape=size)
    volume = images(size)[0]
    torch.testing.assert_close(features(volume[None]), model[:7](volume[None]))
    composite = build_composite("epsilon_plus", features, input_shape=size)
    factors = region_factors(
        features,
        volume,
        composite,
        coefficients=torch.eye(4, dtype=torch.float64),
        regions=pixels_of(volume),
    )
    assert factors.shape == (4, 512)
    assert bool((factors.abs().sum(dim=1) > 0).any())
    inner = HiddenFeatures(model, input_shape=size, layer="3.conv1")
    expected = model[3].conv1(model[:3](volume[None])).flatten(2).mean(2)
    torch.testing.assert_close(inner(volume[None]), expected)


def test_the_model_is_left_as_it_was() -> None:
    model = small_net(bias=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    links_of(model, "epsilon_plus")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not model.training


def test_what_does_not_fit_is_said() -> None:
    model, (image, _) = small_net(bias=True), images()
    with pytest.raises(ConfigError, match=r"layer: expected one of 0, 1, .* got conv9"):
        HiddenFeatures(model, input_shape=SMALL, layer="conv9")
    features = HiddenFeatures(model, input_shape=SMALL)
    composite = build_composite("epsilon_plus", features, input_shape=SMALL)
    eye = torch.eye(7, dtype=torch.float64)
    corner = torch.zeros(4, 4, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"expected \(8, 8\), got \(4, 4\)"):
        region_factors(features, image, composite, coefficients=eye, regions=corner)
    model.train()
    everywhere = pixels_of(image)
    with pytest.raises(ConfigError, match="expected a model in eval"):
        region_factors(features, image, composite, coefficients=eye, regions=everywhere)


class WithSpare(nn.Module):
    """A network with a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.spare = small_net(bias=True), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


def test_a_layer_that_is_not_called_is_refused() -> None:
    features = HiddenFeatures(WithSpare().double().eval(), input_shape=SMALL, layer="spare")
    with pytest.raises(CompatibilityError, match="layer spare must be called"):
        features(images()[0][None])
