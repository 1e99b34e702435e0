"""Division by what may be 0."""

import itertools

import pytest
import torch

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.attribution.layers import LinearMap
from glioma_xai.attribution.shares import Contraction, Division
from glioma_xai.attribution.stabilizer import Stabilizer
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare


def scale(
    coefficient: torch.Tensor,
    output: torch.Tensor,
    denominator: torch.Tensor | None,
    epsilon: torch.Tensor | float = 0.1,
    sign: int = 0,
) -> torch.Tensor:
    return Division(output, output.detach(), denominator, epsilon, sign).scale(coefficient)


VALUES = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("epsilon", [0.1, 1e-6])
def test_scale_by_loops(epsilon: float) -> None:
    triples = torch.tensor(list(itertools.product(VALUES, repeat=3)), dtype=torch.float64)
    coefficient, output, denominator = triples.unbind(1)
    stabilizer = Stabilizer(epsilon)
    stable = [d + epsilon if d >= 0 else d - epsilon for d in denominator.tolist()]
    expected = coefficient * output / torch.tensor(stable, dtype=torch.float64)
    found = scale(coefficient, output, denominator, epsilon)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(stabilizer.divide(coefficient * output, denominator), expected)
    own = scale(coefficient, output, None, epsilon)
    torch.testing.assert_close(own, scale(coefficient, output, output.clone(), epsilon))


def test_known_sign_changes_nothing() -> None:
    coefficient, output = torch.randn(2, 7, dtype=torch.float64)
    positive = torch.rand(7, dtype=torch.float64)
    for sign in (1, -1):
        known = scale(coefficient, output, sign * positive, sign=sign)
        torch.testing.assert_close(known, scale(coefficient, output, sign * positive))
    known = scale(coefficient, positive, None, sign=1)
    torch.testing.assert_close(known, scale(coefficient, positive, None))


@pytest.mark.parametrize("copies", [1, 2], ids=["one target", "two targets in a batch"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("sign", [0, 1])
def test_derivatives(sign: int, relative: bool, copies: int) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    c, z, d, weight = draw(2 * copies, 3, 4), draw(2, 3, 4), draw(2, 3, 4).abs(), draw(3, 5, 3)
    d = d + 0.1 if sign else d - 1.1 * d.mean()
    epsilon = draw(2, 1, 1).abs() + 0.1 if relative else 0.1
    linear, like = LinearMap(torch.nn.Conv1d(5, 3, 3, padding=1)), draw(2 * copies, 5, 4)
    inputs = [t.requires_grad_() for t in (c, z, d, weight)]
    inputs += [epsilon.requires_grad_()] if isinstance(epsilon, torch.Tensor) else []

    def spread(
        c: torch.Tensor, z: torch.Tensor, d: torch.Tensor | None, w: torch.Tensor, *e: torch.Tensor
    ) -> torch.Tensor:
        division = Division(z, z.detach(), d, e[0] if e else 0.1, sign if d is not None else 0)
        return division.spread(c, w, like, linear)

    assert torch.autograd.gradcheck(spread, inputs)
    assert torch.autograd.gradcheck(lambda c, z, _, *rest: spread(c, z, None, *rest), inputs)
    assert torch.autograd.gradcheck(lambda c, z, d, _, *e: scale(c, z, d, *e, sign=sign), inputs)
    assert torch.autograd.gradcheck(lambda c, z: Contraction.apply(c, z, z.detach(), 3), [c, z])


def test_zero_epsilon_gives_zero_for_a_silent_unit() -> None:
    zero = torch.zeros(1, requires_grad=True)
    assert scale(torch.ones(1), zero, None, 0.0).item() == 0


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
