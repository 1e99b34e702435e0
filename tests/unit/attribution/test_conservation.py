"""The sum of relevance is the explained quantity, end to end and layer by layer."""

import pytest
import torch
from torch import nn

from glioma_xai.attribution import build_composite, compute_relevance
from tests.unit.attribution import nets


def without_biases(model: nn.Module) -> nn.Module:
    """Take out what absorbs relevance; let each neuron have something that raises it.

    In networks as narrow as these some neurons have none, and z+ then has nobody to give their
    relevance to.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            module.weight.data += module.weight.std()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.zeros_(module.running_mean)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    return model.eval()


WIDE = nets.NETS | {
    "residual_2d": lambda: nets.residual(2, width=16),
    "residual_3d": lambda: nets.residual(3, width=16),
}


@pytest.mark.parametrize("composite", ["epsilon", "zplus", "epsilon_plus", "epsilon_plus_flat"])
@pytest.mark.parametrize("net", WIDE)
def test_relevance_sums_to_the_explained_logit(net: str, composite: str) -> None:
    model, images = without_biases(WIDE[net]()), nets.images(net)
    built = build_composite(
        composite, model, input_shape=images.shape[1:], epsilon=1e-12, stabilizer=1e-12
    )
    logits, relevance = compute_relevance(model, images, built, labels=nets.LABELS)
    explained = logits[range(3), nets.LABELS]
    torch.testing.assert_close(relevance.flatten(1).sum(1), explained, rtol=1e-4, atol=0)


@pytest.mark.parametrize("net", ["paper_cnn", "vgg", "plain", "unusual_norms"])
def test_relevance_sums_to_the_explained_logit_at_every_layer(net: str) -> None:
    model, images = without_biases(nets.NETS[net]()), nets.images(net)
    for layer, _ in list(model.named_children()):
        built = build_composite(
            "epsilon_plus",
            model,
            input_shape=images.shape[1:],
            epsilon=1e-12,
            stabilizer=1e-12,
            layer=layer,
        )
        logits, relevance = compute_relevance(model, images, built, labels=nets.LABELS)
        explained = logits[range(3), nets.LABELS]
        torch.testing.assert_close(relevance.flatten(1).sum(1), explained, rtol=1e-4, atol=0)


def test_contrastive_relevance_sums_to_the_decision() -> None:
    model, images = without_biases(nets.plain()), nets.images("plain")
    built = build_composite("epsilon", model, input_shape=images.shape[1:], epsilon=1e-12)
    logits, relevance = compute_relevance(
        model, images, built, labels=nets.LABELS, target="contrastive"
    )
    own = logits[range(3), nets.LABELS]
    decision = own - (logits.sum(1) - own) / 2
    torch.testing.assert_close(relevance.flatten(1).sum(1), decision, rtol=1e-4, atol=0)
