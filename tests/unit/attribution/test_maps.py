"""The map itself: equal to stock Zennit's, and to a slow reference that shares no code."""

import numpy as np
import pytest
import torch
from torch import nn
from zennit import composites as stock
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.rules import Flat, WSquare, ZBox

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.attribution.rules import Epsilon, ZPlus
from tests.reference import lrp
from tests.unit.attribution import nets
from tests.unit.attribution.described import Description, record

BOX = {"low": -3.0, "high": 4.0}
STOCK = {
    "epsilon_plus": lambda **k: stock.EpsilonPlus(**k),
    "epsilon_plus_flat": lambda **k: stock.EpsilonPlusFlat(**k),
    "epsilon_alpha2_beta1": lambda **k: stock.EpsilonAlpha2Beta1(**k),
    "epsilon_alpha2_beta1_flat": lambda **k: stock.EpsilonAlpha2Beta1Flat(**k),
    "epsilon_gamma_box": lambda **k: stock.EpsilonGammaBox(low=-3.0, high=4.0, **k),
    "excitation_backprop": lambda **k: stock.ExcitationBackprop(**k),
}
RULES = {  # convolution, linear, first
    "epsilon": ("epsilon", "epsilon", ""),
    "zplus": ("zplus", "zplus", ""),
    "epsilon_plus": ("zplus", "epsilon", ""),
    "epsilon_plus_flat": ("zplus", "epsilon", "flat"),
    "epsilon_gamma_box": ("gamma", "epsilon", "zbox"),
    "epsilon_alpha2_beta1": ("alphabeta", "epsilon", ""),
    "gamma": ("gamma", "gamma", ""),
}


def options(name: str) -> dict[str, float]:
    return BOX if name == "epsilon_gamma_box" else {}


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


@pytest.mark.parametrize("name", STOCK)
def test_equals_stock_zennit(name: str) -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    ours = build_composite(name, model, input_shape=images.shape[1:], **options(name))
    _, relevance = compute_relevance(model, images, ours, labels=nets.LABELS)
    _, expected = compute_relevance(model, images, STOCK[name](), labels=nets.LABELS)
    assert expected.abs().max() > 0
    assert close(relevance, expected)


# Zennit's ExcitationBackprop scales relevance by LeakyReLU's slope, which the paper does not have.
@pytest.mark.parametrize("name", [name for name in STOCK if name != "excitation_backprop"])
def test_equals_stock_zennit_with_batch_norm_behind(name: str) -> None:
    model = nets.vgg().eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False  # Zennit's hooks do not survive it
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.0  # Zennit's merged BatchNorm divides by sqrt(1 + eps) once more
    images = nets.images("vgg")
    ours = build_composite(name, model, input_shape=images.shape[1:], **options(name))
    _, relevance = compute_relevance(model, images, ours, labels=nets.LABELS)
    merged = STOCK[name](canonizers=[SequentialMergeBatchNorm()])
    _, expected = compute_relevance(model, images, merged, labels=nets.LABELS)
    assert close(relevance, expected)


def test_gradients_are_autograds_own() -> None:
    model, images = nets.plain().eval(), nets.images("plain").requires_grad_()
    (expected,) = torch.autograd.grad(model(images)[range(3), nets.LABELS].sum(), images)
    shape = images.shape[1:]
    for name, theirs in (("gradient", expected), ("gradient_times_input", expected * images)):
        composite = build_composite(name, model, input_shape=shape)
        _, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
        assert close(relevance, theirs, 1e-12)


def test_guided_backprop_equals_stock_zennit() -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    composite = build_composite("guided_backprop", model, input_shape=images.shape[1:])
    _, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
    with Gradient(model, stock.GuidedBackprop()) as attributor:
        _, expected = attributor(images, nn.functional.one_hot(nets.LABELS, 3).double())
    assert close(relevance, expected, 1e-12)


@pytest.mark.parametrize("rule", ["wsquare", "zbox", "flat"])
def test_first_layer_rules_equal_stock_zennit(rule: str) -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    theirs = {"wsquare": WSquare(), "zbox": ZBox(low=-3.0, high=4.0), "flat": Flat()}[rule]
    composite = build_composite(
        "epsilon_plus",
        model,
        input_shape=images.shape[1:],
        first_layer=rule,
        **(BOX if rule == "zbox" else {}),
    )
    _, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
    layers = stock.EpsilonPlus().layer_map
    mixed = stock.SpecialFirstLayerMapComposite(layers, [((nn.Conv2d,), theirs)])
    _, expected = compute_relevance(model, images, mixed, labels=nets.LABELS)
    assert close(relevance, expected)


def test_our_rules_work_in_a_stock_composite() -> None:
    """They then take and give relevance, beside Zennit's own Pass and Norm."""
    model, images = nets.plain().eval(), nets.images("plain")
    ours = stock.LayerMapComposite(
        [
            *stock.layer_map_base(),
            ((nn.Conv2d,), ZPlus()),
            ((nn.Linear,), Epsilon()),
        ]
    )
    _, relevance = compute_relevance(model, images, ours, labels=nets.LABELS, create_graph=True)
    _, expected = compute_relevance(model, images, stock.EpsilonPlus(), labels=nets.LABELS)
    assert close(relevance.detach(), expected)
    relevance.abs().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_zennits_attributor_gets_relevance_from_our_composite() -> None:
    model, images = nets.vgg().eval(), nets.images("vgg")
    composite = build_composite("epsilon_plus_flat", model, input_shape=images.shape[1:])
    logits, expected = compute_relevance(model, images, composite, labels=nets.LABELS)
    seed = nn.functional.one_hot(nets.LABELS, 3) * logits.detach()
    with Gradient(model, composite) as attributor:
        _, relevance = attributor(images, seed)
    assert close(relevance, expected, 1e-12)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("net", nets.NETS)
def test_equals_the_reference(net: str, name: str, train: bool) -> None:
    model = nets.NETS[net]().train(train)
    images = nets.images(net)
    images = images[..., :8, :8] if images.ndim == 4 and net == "dense" else images
    composite = build_composite(
        name, model, input_shape=images.shape[1:], epsilon=1e-3, stabilizer=1e-3, **options(name)
    )
    torch.manual_seed(4)
    logits, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
    torch.manual_seed(4)
    for module in model.modules():  # in place, what a module read would be lost
        if hasattr(module, "inplace"):
            module.inplace = False
    known = record(model, images)
    sample, label = 1, int(nets.LABELS[1])
    describe = Description(known, sample, RULES[name], 1e-3)
    steps, _ = describe(list(model), tuple(images.shape[1:]))
    expected_logits, expected = lrp.explain(
        steps, images[sample].numpy().ravel(), lambda logits: np.eye(3)[label]
    )
    np.testing.assert_allclose(logits[sample].detach().numpy(), expected_logits, rtol=1e-9)
    found = relevance[sample].numpy().ravel()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
