"""A model comes back as it was, whatever was raised."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from zennit import composites as stock

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.errors import ShapeError
from tests.unit.attribution import nets


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        [(name, id(p)) for name, p in model.named_parameters()],
        list(model.state_dict()),
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        [(m.training, getattr(m, "inplace", None)) for m in model.modules()],
        [getattr(m, "track_running_stats", None) for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
    )


@pytest.mark.parametrize("net", nets.NETS)
def test_leaves_no_trace(net: str) -> None:
    model, images = nets.NETS[net]().train(), nets.images(net)
    before, random_state = state(model), torch.random.get_rng_state()
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])
    assert state(model) == before
    assert torch.equal(torch.random.get_rng_state(), random_state)
    compute_relevance(
        model, images, composite, labels=nets.LABELS, create_graph=True, update_statistics=False
    )
    assert state(model) == before


@pytest.mark.parametrize("net", nets.NETS)
def test_moves_statistics_and_generator_as_a_plain_forward_pass(net: str) -> None:
    guided, plain = nets.NETS[net]().train(), nets.NETS[net]().train()
    images = nets.images(net)
    composite = build_composite("epsilon_plus_flat", guided, input_shape=images.shape[1:])
    torch.manual_seed(3)
    logits, _ = compute_relevance(guided, images, composite, labels=nets.LABELS)
    after = torch.random.get_rng_state()
    torch.manual_seed(3)
    expected = plain(images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), after)
    for (name, ours), theirs in zip(
        guided.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_probe_does_not_move_statistics() -> None:
    model, images = nets.vgg().train(), nets.images("vgg")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])
    logits, _ = compute_relevance(
        model, images, composite, labels=nets.LABELS, update_statistics=False
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(logits, model(images))  # normalised by the batch all the same


class Boom(RuntimeError):
    """Raised in the middle of a forward pass."""


@pytest.mark.parametrize("update_statistics", [True, False])
def test_leaves_no_trace_after_an_exception_in_the_forward_pass(update_statistics: bool) -> None:
    model, images = nets.vgg().train(), nets.images("vgg")
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])

    def fail(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        raise Boom

    handle = model[8].register_forward_pre_hook(fail)
    before = state(model)
    with pytest.raises(Boom):
        compute_relevance(
            model,
            images,
            composite,
            labels=nets.LABELS,
            update_statistics=update_statistics,
        )
    assert state(model) == before
    handle.remove()
    compute_relevance(model, images, composite, labels=nets.LABELS)  # usable again


def test_leaves_no_trace_after_an_exception_in_the_relevance_pass() -> None:
    model, images = nets.vgg().train(), nets.images("vgg")
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])
    before = state(model)
    with pytest.raises(ShapeError):
        compute_relevance(model, images, composite, labels=torch.tensor([0, 1, 9]))
    assert state(model) == before


def test_two_composites_in_turn_do_not_disturb_each_other() -> None:
    model, images = nets.vgg().eval(), nets.images("vgg")
    shape = images.shape[1:]
    ours = build_composite("epsilon_plus", model, input_shape=shape)
    run: Callable[[object], Tensor] = lambda c: compute_relevance(  # noqa: E731
        model, images, c, labels=nets.LABELS
    )[1]
    first = run(ours)
    run(build_composite("gradient", model, input_shape=shape))
    run(stock.EpsilonPlus())
    assert torch.equal(run(ours), first)


def test_backward_after_the_context_is_that_of_a_plain_network() -> None:
    model, images = nets.residual(2).train(), nets.images("residual_2d")
    composite = build_composite("zplus", model, input_shape=images.shape[1:])
    logits, _ = compute_relevance(model, images, composite, labels=nets.LABELS)
    logits.square().sum().backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(images).square().sum().backward()
    for found, expected in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(found, expected.grad)
