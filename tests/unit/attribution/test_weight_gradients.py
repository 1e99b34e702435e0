"""Relevance is differentiable in the weights: finite differences, beside stock Zennit's error."""

import pytest
import torch
from torch import Tensor, nn
from zennit import composites as stock

from glioma_xai.attribution import COMPOSITES, build_composite, compute_relevance
from tests.unit.attribution import nets
from tests.unit.attribution.differences import Comparison, compare


def ranked(relevance: Tensor) -> Tensor:
    """GWRP over means of 16 values: fewer of them than pixels, so fewer change places."""
    means = relevance.abs().flatten(1).unflatten(1, (-1, 16)).mean(2)
    weights = 0.9 ** torch.arange(means.shape[1], dtype=means.dtype)
    return (means.sort(1, descending=True).values * weights).sum(1)


LOSSES = {
    "energy": lambda r: 1 - r.abs()[..., :4, :].flatten(1).sum(1) / r.abs().flatten(1).sum(1),
    "absolute": lambda r: r.abs().flatten(1).sum(1),
    "gwrp": ranked,
}


def check(net: str, composite: str, *, train: bool, loss: str = "energy") -> Comparison:
    model = nets.NETS[net]().train(train)
    images = nets.images(net)
    built = build_composite(
        composite, model, input_shape=images.shape[1:], epsilon=1e-2, stabilizer=1e-2
    )

    def value(create_graph: bool) -> Tensor:
        torch.manual_seed(11)  # the same dropout masks each time
        _, relevance = compute_relevance(
            model,
            images,
            built,
            labels=nets.LABELS,
            target="contrastive",
            create_graph=create_graph,
            update_statistics=False,
        )
        return LOSSES[loss](relevance).sum()

    return compare(model, value)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_paper_cnn_agrees_with_finite_differences(composite: str, train: bool) -> None:
    found = check("paper_cnn", composite, train=train)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("net", [name for name in nets.NETS if name != "paper_cnn"])
def test_every_structure_agrees_with_finite_differences(net: str, train: bool) -> None:
    found = check(net, "epsilon_plus_flat", train=train)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


@pytest.mark.parametrize("loss", ["absolute", "gwrp"])
def test_other_losses_agree_with_finite_differences(loss: str) -> None:
    found = check("paper_cnn", "epsilon_plus", train=True, loss=loss)
    assert found.kinks <= 0.1
    assert found.worst <= 1e-6


def test_stock_zennit_disagrees(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason why our rules exist: Zennit's cut the graph where they modify weights."""
    model, images = nets.plain(), nets.images("plain")

    def error(composite: object) -> Comparison:
        def value(create_graph: bool) -> Tensor:
            _, relevance = compute_relevance(
                model, images, composite, labels=nets.LABELS, create_graph=create_graph
            )
            return LOSSES["energy"](relevance).sum()

        return compare(model, value)

    shape = images.shape[1:]
    options = {"epsilon": 1e-2, "stabilizer": 1e-2}
    pairs = {
        "epsilon_plus": stock.EpsilonPlus(**options),
        "epsilon_plus_flat": stock.EpsilonPlusFlat(**options),
    }
    for name, theirs in pairs.items():
        ours = error(build_composite(name, model, input_shape=shape, **options))
        wrong = error(theirs)
        with capsys.disabled():
            print(f"\n{name}: relative error {ours.typical:.0e}, stock Zennit {wrong.typical:.0e}")
        assert ours.worst <= 1e-6
        assert wrong.typical > 1e-2


def test_adam_moves_every_parameter_twice() -> None:
    model, images = nets.paper_cnn().train(), nets.images("paper_cnn")
    composite = build_composite("epsilon_plus_flat", model, input_shape=images.shape[1:])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(2):
        before = [p.detach().clone() for p in model.parameters()]
        logits, relevance = compute_relevance(
            model, images, composite, labels=nets.LABELS, create_graph=True
        )
        loss = nn.functional.cross_entropy(logits, nets.LABELS) + relevance.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for old, new in zip(before, model.parameters(), strict=True):
            assert not torch.equal(old, new)


def test_classification_gradient_is_that_of_a_plain_step() -> None:
    model, images = nets.vgg().train(), nets.images("vgg")
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])
    logits, _ = compute_relevance(model, images, composite, labels=nets.LABELS, create_graph=True)
    nn.functional.cross_entropy(logits, nets.LABELS).backward()
    guided = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    nn.functional.cross_entropy(model(images), nets.LABELS).backward()
    for ours, plain in zip(guided, model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain.grad, rtol=1e-10, atol=1e-12)
