"""Which combination of logits is explained."""

import pytest
import torch

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


def test_all_classes_equal_one_pass_each() -> None:
    model, images = nets.paper_cnn().train(), nets.images("paper_cnn")
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])

    def run(target: object) -> torch.Tensor:
        torch.manual_seed(5)
        return compute_relevance(model, images, composite, labels=nets.LABELS, target=target)[1]

    together = run("all")
    assert together.shape == (3, 3, *images.shape[1:])
    for position in range(3):
        one = torch.zeros(3, 3, dtype=torch.float64)
        one[:, position] = 1
        assert torch.equal(together[:, position], run(one))


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
