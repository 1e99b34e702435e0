"""The map itself: equal to stock Zennit's, and to a slow reference that shares no code."""

import numpy as np
import pytest
import torch
from torch import nn
from zennit import composites as stock
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm

from glioma_xai.attribution import build_composite, compute_relevance
from tests.reference import lrp
from tests.unit.attribution import nets
from tests.unit.attribution.described import Description, record

STOCK = {
    "epsilon_plus": stock.EpsilonPlus,
    "epsilon_plus_flat": stock.EpsilonPlusFlat,
}
RULES = {  # convolution, linear, first
    "epsilon": ("epsilon", "epsilon", ""),
    "zplus": ("zplus", "zplus", ""),
    "epsilon_plus": ("zplus", "epsilon", ""),
    "epsilon_plus_flat": ("zplus", "epsilon", "flat"),
}


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6) -> bool:
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


@pytest.mark.parametrize("name", STOCK)
def test_equals_stock_zennit(name: str) -> None:
    model, images = nets.plain().eval(), nets.images("plain")
    ours = build_composite(name, model, input_shape=images.shape[1:])
    _, relevance = compute_relevance(model, images, ours, labels=nets.LABELS)
    _, expected = compute_relevance(model, images, STOCK[name](), labels=nets.LABELS)
    assert expected.abs().max() > 0
    assert close(relevance, expected)


@pytest.mark.parametrize("name", STOCK)
def test_equals_stock_zennit_with_batch_norm_behind(name: str) -> None:
    model = nets.vgg().eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False  # Zennit's hooks do not survive it
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.0  # Zennit's merged BatchNorm divides by sqrt(1 + eps) once more
    images = nets.images("vgg")
    ours = build_composite(name, model, input_shape=images.shape[1:])
    _, relevance = compute_relevance(model, images, ours, labels=nets.LABELS)
    merged = STOCK[name](canonizers=[SequentialMergeBatchNorm()])
    _, expected = compute_relevance(model, images, merged, labels=nets.LABELS)
    assert close(relevance, expected)


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
        name, model, input_shape=images.shape[1:], epsilon=1e-3, stabilizer=1e-3
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
