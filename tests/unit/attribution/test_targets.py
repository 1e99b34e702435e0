"""Which combination of logits is explained."""

import pytest
import torch
from zennit import composites as stock

from glioma_xai.attribution import build_composite, compute_relevance
from glioma_xai.attribution.targets import target_coefficients
from glioma_xai.errors import ConfigError, ShapeError
from tests.unit.attribution import nets

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
LABELS = torch.tensor([2, 0])


def test_coefficients_by_hand() -> None:
    def of(target: object) -> list[list[float]]:
        return target_coefficients(LOGITS, target, labels=LABELS).tolist()

    assert of("label") == [[0, 0, 1], [1, 0, 0]]
    assert of("contrastive") == [[-0.5, -0.5, 1], [1, -0.5, -0.5]]
    assert of("predicted") == [[1, 0, 0], [0, 1, 0]]
    assert of(torch.full((2, 3), 2.0)) == [[2, 2, 2], [2, 2, 2]]
    assert of("all") == [[[1, 0, 0]] * 2, [[0, 1, 0]] * 2, [[0, 0, 1]] * 2]


def test_log_probability_coefficients_are_its_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    log_probability = logits.log_softmax(1)
    chosen = log_probability[range(2), LABELS].sum()
    (expected,) = torch.autograd.grad(chosen, logits, retain_graph=True)
    found = target_coefficients(LOGITS, "log_probability", labels=LABELS)
    torch.testing.assert_close(found, expected)
    (expected,) = torch.autograd.grad(log_probability.sum(), logits)
    torch.testing.assert_close(target_coefficients(LOGITS, "sum_log_probability"), expected)


def test_random_target_follows_the_generator_and_draws_every_class() -> None:
    logits = torch.zeros(300, 3)
    draw = lambda seed, target: target_coefficients(  # noqa: E731
        logits, target, generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(1, "random"), draw(1, "random"))
    assert not torch.equal(draw(1, "random"), draw(2, "random"))
    assert (draw(1, "random").sum(0) > 70).all()  # 100 expected, standard deviation 8
    signed = draw(1, "random_sign")
    assert torch.equal(signed.abs(), draw(1, "random"))
    assert abs(float(signed.sum())) < 70  # 0 expected, standard deviation 17


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "name", ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "gradient_times_input"]
)
@pytest.mark.parametrize("net", ["paper_cnn", "unusual_norms", "residual_3d", "dense"])
def test_all_classes_in_one_pass_equal_one_pass_each(net: str, name: str, train: bool) -> None:
    """Maps, weight gradients, and BatchNorm statistics of 3 samples, not of 9."""
    images = nets.images(net)

    def run(targets: list[object]) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        model = nets.NETS[net]().train(train)
        start = {key: value.clone() for key, value in model.named_buffers()}
        composite = build_composite(name, model, input_shape=images.shape[1:])
        maps = []
        for target in targets:
            fresh = {key: value.clone() for key, value in start.items()}
            model.load_state_dict(fresh, strict=False, assign=True)
            torch.manual_seed(5)
            _, relevance = compute_relevance(
                model, images, composite, target=target, create_graph=True
            )
            maps.append(relevance)
        relevance = maps[0] if targets == ["all"] else torch.stack(maps, dim=1)
        weights = list(model.parameters())
        gradients = torch.autograd.grad(relevance.square().sum(), weights, allow_unused=True)
        known = [torch.zeros(1) if gradient is None else gradient for gradient in gradients]
        return relevance, known, list(model.buffers())

    together, gradients, statistics = run(["all"])
    ones = torch.eye(3, dtype=torch.float64).unsqueeze(1).expand(-1, 3, -1)
    apart, expected, moved = run([*ones])
    assert together.shape == (3, 3, *images.shape[1:])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)
    for found, wanted in zip(statistics, moved, strict=True):
        assert torch.equal(found, wanted)


def test_all_classes_under_a_stock_composite() -> None:
    model, images = nets.plain(), nets.images("plain")
    shape, run = images.shape[1:], compute_relevance
    _, ours = run(
        model, images, build_composite("epsilon_plus", model, input_shape=shape), target="all"
    )
    _, theirs = run(model, images, stock.EpsilonPlus(), target="all")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("labels", "target", "error", "message"),
    [
        (None, "label", ConfigError, r"target=label needs labels: expected \(2,\) int64, got None"),
        (torch.tensor([0, 3]), "label", ShapeError, r"labels must lie in 0\.\.2: got 0\.\.3"),
        (torch.tensor([-1, 0]), "contrastive", ShapeError, r"0\.\.2: got -1\.\.0"),
        (torch.tensor([0]), "label", ShapeError, r"expected \(2,\) int64, got \(1,\) int64"),
        (torch.rand(2), "label", ShapeError, r"got \(2,\) float32"),
        (LABELS, "largest", ConfigError, r"target must be one of label, .* got largest"),
        (LABELS, torch.zeros(2, 2), ShapeError, r"expected \(2, 3\), got \(2, 2\)"),
    ],
)
def test_mistakes_are_named(
    labels: object, target: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        target_coefficients(LOGITS, target, labels=labels)
