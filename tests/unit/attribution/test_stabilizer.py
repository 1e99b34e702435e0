"""Division by what may be 0."""

import itertools

import pytest
import torch

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.attribution.stabilizer import Stabilizer
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare

VALUES = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [0.1, 1e-6])
def test_scale_by_loops(epsilon: float) -> None:
    triples = torch.tensor(list(itertools.product(VALUES, repeat=3)), dtype=torch.float64)
    coefficient, output, denominator = triples.unbind(1)
    stabilizer = Stabilizer(epsilon)
    stable = [d + epsilon if d >= 0 else d - epsilon for d in denominator.tolist()]
    expected = coefficient * output / torch.tensor(stable, dtype=torch.float64)
    found = stabilizer.scale(coefficient, output, denominator)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(stabilizer.divide(coefficient * output, denominator), expected)
    own = stabilizer.scale(coefficient, output, output)
    torch.testing.assert_close(own, stabilizer.scale(coefficient, output, output.clone()))


def test_known_sign_changes_nothing() -> None:
    coefficient, output = torch.randn(2, 7, dtype=torch.float64)
    positive = torch.rand(7, dtype=torch.float64)
    stabilizer = Stabilizer(0.1)
    for sign in (1, -1):
        known = stabilizer.scale(coefficient, output, sign * positive, sign=sign)
        torch.testing.assert_close(known, stabilizer.scale(coefficient, output, sign * positive))


@pytest.mark.parametrize("sign", [0, 1])
def test_derivatives(sign: int) -> None:
    generator = torch.Generator().manual_seed(0)
    c, z = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    d = torch.rand(6, generator=generator, dtype=torch.float64) * (1 if sign else -1)
    c, z, d = (tensor.requires_grad_() for tensor in (c, z, d))
    stabilizer = Stabilizer(0.1)
    assert torch.autograd.gradcheck(lambda *t: stabilizer.scale(*t, sign=sign), (c, z, d))
    assert torch.autograd.gradcheck(lambda c, z: stabilizer.scale(c, z, z), (c, z))


def test_zero_epsilon_gives_zero_for_a_silent_unit() -> None:
    zero = torch.zeros(1, requires_grad=True)
    scaled = Stabilizer(0.0).scale(torch.ones(1), zero, zero)
    assert scaled.item() == 0


def test_relative_epsilon_cannot_be_escaped_by_shrinking_activations() -> None:
    model, images = nets.plain(), nets.images("plain")
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            torch.nn.init.zeros_(module.bias)

    def share(relative: bool) -> torch.Tensor:
        composite = build_composite(
            "epsilon",
            model,
            input_shape=images.shape[1:],
            epsilon=0.1,
            stabilizer=0.1,
            relative_epsilon=relative,
        )
        logits, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
        return relevance.flatten(1).sum(1) / logits[range(3), nets.LABELS]

    before = {relative: share(relative) for relative in (False, True)}
    model[0].weight.data *= 1e-3
    torch.testing.assert_close(share(True), before[True])
    assert share(False).abs().max() < 1e-3 < before[False].abs().max()


def test_relative_epsilon_agrees_with_finite_differences() -> None:
    model, images = nets.vgg().train(), nets.images("vgg")
    composite = build_composite(
        "epsilon_plus",
        model,
        input_shape=images.shape[1:],
        epsilon=1e-2,
        stabilizer=1e-2,
        relative_epsilon=True,
    )

    def value(create_graph: bool) -> torch.Tensor:
        _, relevance = compute_relevance(
            model,
            images,
            composite,
            labels=nets.LABELS,
            create_graph=create_graph,
            update_statistics=False,
        )
        return relevance.square().sum()

    found = compare(model, value, directions=10)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6
