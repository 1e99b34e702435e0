"""MONAI's networks and ours, as they are, in 2-D and 3-D."""

import copy
from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import DenseNet121, SEResNet50, resnet10, resnet18
from torch import Tensor, nn

from glioma_xai.attribution import (
    COMPOSITES,
    LiveComposite,
    build_composite,
    compute_relevance,
    uncovered_layers,
)
from glioma_xai.models.networks import SmallCNN, vgg
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare
from tests.unit.attribution.test_conservation import without_biases
from tests.unit.attribution.test_weight_gradients import LOSSES

SIZES = {2: (2, 32, 32), 3: (2, 32, 32, 32)}
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet10": lambda dims: resnet10(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "resnet18": lambda dims: resnet18(spatial_dims=dims, n_input_channels=2, num_classes=3),
    "densenet121": lambda dims: DenseNet121(dims, 2, 3),
    "small_cnn": lambda dims: SmallCNN(input_shape=SIZES[dims], classes=3),
    "vgg": lambda dims: vgg(input_shape=SIZES[dims], classes=3),
}
LABELS = torch.tensor([0, 2])


def images(dims: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, *SIZES[dims]), generator=generator, dtype=torch.float64)


def test_resnet_conserves_and_trains() -> None:
    model = nets.prepared(NETWORKS["resnet10"](2))
    still = without_biases(copy.deepcopy(model))
    composite = build_composite(
        "epsilon_plus", still, input_shape=SIZES[2], epsilon=1e-12, stabilizer=1e-12
    )
    logits, relevance = compute_relevance(still, images(2), composite, labels=LABELS)
    torch.testing.assert_close(
        relevance.flatten(1).sum(1), logits[range(2), LABELS], rtol=1e-4, atol=0
    )
    composite = build_composite("epsilon_plus_flat", model.train(), input_shape=SIZES[2])
    _, relevance = compute_relevance(model, images(2), composite, labels=LABELS, create_graph=True)
    relevance.abs().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_squeeze_and_excitation_is_refused_at_its_gate() -> None:
    model = SEResNet50(spatial_dims=2, in_channels=2, num_classes=3)
    problems = uncovered_layers(model, "epsilon", SIZES[2])
    assert problems
    assert all("Sigmoid at" in problem.where for problem in problems)


@pytest.mark.exact
@pytest.mark.parametrize("composite", ["epsilon", "zplus", "epsilon_plus", "epsilon_gamma_box"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", NETWORKS)
def test_conservation(net: str, dims: int, composite: str) -> None:
    model = nets.prepared(NETWORKS[net](dims))
    box = {"low": -6.0, "high": 6.0} if composite == "epsilon_gamma_box" else {}
    still = without_biases(model)
    built = build_composite(
        composite,
        still,
        input_shape=SIZES[dims],
        epsilon=1e-12,
        stabilizer=1e-12,
        **box,
    )
    logits, relevance = compute_relevance(still, images(dims), built, labels=LABELS)
    torch.testing.assert_close(
        relevance.flatten(1).sum(1), logits[range(2), LABELS], rtol=1e-4, atol=0
    )


@pytest.mark.exact
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", ["resnet10", "densenet121", "small_cnn", "vgg"])
def test_weight_gradients(net: str, dims: int, composite: str, train: bool) -> None:
    model = nets.prepared(NETWORKS[net](dims)).train(train)
    built = build_composite(
        composite, model, input_shape=SIZES[dims], epsilon=1e-2, stabilizer=1e-2
    )

    shares = []
    for seed in range(2, 10):  # images that lie on a kink are exchanged for others

        def value(create_graph: bool, seed: int = seed) -> Tensor:
            torch.manual_seed(11)
            _, relevance = compute_relevance(
                model,
                images(dims, seed),
                built,
                labels=LABELS,
                target="contrastive",
                create_graph=create_graph,
                update_statistics=False,
            )
            return LOSSES["energy"](relevance).sum()

        found = compare(model, value, own_directions=False)
        print(f"{net} {dims}-D {composite} {seed}: {found.worst:.0e}, {found.kinks:.0%} kinks")
        assert found.worst <= 1e-6
        shares.append(found.kinks)
        if found.kinks <= 0.1:
            break
    assert min(shares) <= 0.1


@pytest.mark.exact
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("net", nets.NETS)
def test_weight_gradients_of_small_networks(net: str, composite: str, train: bool) -> None:
    model = nets.NETS[net]().train(train)
    for name, loss in LOSSES.items():
        shares = []
        for seed in range(2, 10):  # images that lie on a kink are exchanged for others
            pixels = nets.images(net, seed=seed)
            built = build_composite(
                composite, model, input_shape=pixels.shape[1:], epsilon=1e-2, stabilizer=1e-2
            )

            def value(
                create_graph: bool,
                pixels: Tensor = pixels,
                built: LiveComposite = built,
                loss: Callable[[Tensor], Tensor] = loss,
            ) -> Tensor:
                torch.manual_seed(11)
                _, relevance = compute_relevance(
                    model,
                    pixels,
                    built,
                    labels=nets.LABELS,
                    target="contrastive",
                    create_graph=create_graph,
                    update_statistics=False,
                )
                return loss(relevance).sum()

            found = compare(model, value)
            print(f"{net} {composite} {name} {seed}: {found.worst:.0e}, {found.kinks:.0%} kinks")
            assert found.worst <= 1e-6
            shares.append(found.kinks)
            if found.kinks <= 0.1:
                break
        assert min(shares) <= 0.1
