"""Models from torch.compile: relevance runs layer by layer, the plain step around it compiled."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from glioma_xai.attribution import build_composite, compute_relevance, uncovered_layers
from glioma_xai.attribution.guards import unwrapped
from glioma_xai.attribution.rules import ZPlus
from tests.unit.attribution import nets

BACKEND = "aot_eager"  # as the others do, it traces the backward pass; it needs no compiler


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend=BACKEND)
    return model


def whole(model: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(model, backend=BACKEND)  # type: ignore[assignment]
    return compiled


def guided_gradients(model: nn.Module, pixels: Tensor) -> list[Tensor]:
    labels = torch.tensor([0, 2, 1])[: len(pixels)]
    plain = cross_entropy(model(pixels), labels)  # compiled, if the model is
    composite = build_composite("epsilon_plus", model, input_shape=pixels.shape[1:])
    logits, relevance = compute_relevance(
        model, pixels, composite, labels=labels, target="contrastive", create_graph=True
    )
    share = relevance[..., :3, :].abs().sum() / relevance.abs().sum()
    (plain + cross_entropy(logits, labels) + share).backward()  # type: ignore[no-untyped-call]
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("compiled", [whole, in_place])
def test_a_compiled_model_gets_the_gradients_of_the_model_itself(
    compiled: Callable[[nn.Module], nn.Module],
) -> None:
    pixels = nets.images("vgg")
    expected = guided_gradients(nets.prepared(nets.NETS["vgg"]()).train(), pixels)
    model = compiled(nets.prepared(nets.NETS["vgg"]()).train())
    found = guided_gradients(model, pixels)
    assert len(found) == len(expected)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


def test_layers_keep_their_names_behind_wrappers() -> None:
    model = nets.prepared(nets.NETS["vgg"]())
    name = next(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    shape = nets.images("vgg").shape[1:]
    composite = build_composite("epsilon", whole(model), input_shape=shape, rules={name: "zplus"})
    assert isinstance(composite.rules[name], ZPlus)
    wrong = whole(nn.Sequential(nn.Flatten(), nn.SiLU()))
    assert [problem.where for problem in uncovered_layers(wrong, "epsilon", (1, 2, 2))] == [
        "SiLU at 1"
    ]


def test_unwrapped_takes_off_both_wrappers_in_either_order(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    assert unwrapped(model) is model
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        assert unwrapped(whole(DistributedDataParallel(model))) is model
        assert unwrapped(DistributedDataParallel(whole(model))) is model
    finally:
        distributed.destroy_process_group()
