import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glioma_xai.errors import ConfigError, ShapeError
from glioma_xai.losses import Term, consistency
from glioma_xai.losses.objective import Objective
from glioma_xai.losses.schedules import constant, increasing, warm_up
from glioma_xai.losses.terms import mean_cross_entropy
from glioma_xai.losses.weighting import balancing_factor, gradient_norm

LOGITS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0])
GUIDED = torch.tensor([True, False, True])
GUIDANCE = torch.tensor([0.4, 0.0, 0.8], dtype=torch.float64)
ONE = torch.ones(())
TERM = Term(GUIDANCE, GUIDED)
AT = {"step": 0, "total_steps": 10}


def test_sum_by_hand():
    objective = Objective(guidance_weight=3.0, consistency_weight=2.0)
    parts = objective(
        LOGITS,
        LABELS,
        guidance=TERM,
        consistency=Term(GUIDANCE / 2, torch.ones(3, dtype=torch.bool)),
        **AT,
    )
    entropy = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-2)), math.log(2)]
    assert parts.classification.item() == pytest.approx(sum(entropy) / 3)
    assert parts.guidance.item() == pytest.approx(0.6)  # over the two guided samples
    assert parts.consistency.item() == pytest.approx(0.2)  # over all three, a count of its own
    assert parts.total.item() == pytest.approx(sum(entropy) / 3 + 3 * 0.6 + 2 * 0.2)
    assert parts.guidance_weight == 3.0


def test_convex_by_hand():
    objective = Objective(guidance_weight=0.7, combine="convex")
    parts = objective(LOGITS, LABELS, guidance=TERM, **AT)
    expected = 0.3 * parts.classification.item() + 0.7 * 0.6
    assert parts.total.item() == pytest.approx(expected)


def test_without_guidance_the_total_is_the_cross_entropy():
    parts = Objective()(LOGITS, LABELS, **AT)
    assert parts.total.item() == F.cross_entropy(LOGITS, LABELS).item()
    assert parts.guidance.item() == 0


def test_a_weight_of_zero_switches_nan_off():
    objective = Objective(guidance_weight=2.0, schedule=lambda step, total_steps: 0.0)
    parts = objective(LOGITS, LABELS, guidance=Term(GUIDANCE * math.nan, GUIDED), **AT)
    assert parts.total.item() == parts.classification.item()


def test_no_guided_sample_gives_zero_and_zero_gradient():
    guidance = GUIDANCE.clone().requires_grad_()
    value = Term(guidance, torch.zeros(3, dtype=torch.bool)).mean()
    value.backward()
    assert value.item() == 0
    assert guidance.grad.tolist() == [0, 0, 0]


def test_two_processes_with_the_global_count_equal_the_joined_batch():
    torch.manual_seed(0)
    values, guided = torch.rand(8, dtype=torch.float64), torch.rand(8) < 0.6
    count = guided.sum() / 2  # global count, two processes
    halves = [Term(values[part], guided[part], count).mean() for part in (slice(3), slice(3, 8))]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, Term(values, guided).mean())


def test_schedule_sets_the_weight():
    objective = Objective(guidance_weight=4.0, schedule=lambda step, total: warm_up(step, total))
    assert [objective.weight_at(step, 100) for step in (0, 10, 20, 99)] == [0, 2, 4, 4]


def test_class_weights():
    parts = Objective(class_weights=[4 / 6, 2.0])(LOGITS, LABELS, **AT)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert parts.classification.item() == pytest.approx(
        (each[0] * 4 / 6 + each[1] * 2 + each[2] * 4 / 6).item() / 3
    )


@pytest.mark.parametrize("name", ["guidance_weight", "consistency_weight"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_weights_out_of_range(name, value):
    with pytest.raises(ConfigError, match=f"loss.{name} must be a finite number >= 0, got"):
        Objective(**{name: value})


def test_other_settings_out_of_range():
    with pytest.raises(ConfigError, match=r"share in \[0, 1\], got 1.5"):
        Objective(guidance_weight=1.5, combine="convex")
    with pytest.raises(ConfigError, match="'sum' or 'convex', got 'product'"):
        Objective(combine="product")
    with pytest.raises(ConfigError, match="'balanced' or 'uncertainty', got 'clever'"):
        Objective(weighting="clever")
    with pytest.raises(ConfigError, match=r"convex needs loss.weighting=fixed, got balanced"):
        Objective(guidance_weight=0.5, combine="convex", weighting="balanced")
    with pytest.raises(ConfigError, match="balance_every must be at least 1, got 0"):
        Objective(balance_every=0)
    with pytest.raises(ConfigError, match="needs the network's parameters, got None"):
        Objective(weighting="balanced")(LOGITS, LABELS, guidance=TERM, **AT)
    with pytest.raises(ConfigError, match=r"class weights must be finite and > 0, got \[1.0, 0.0"):
        Objective(class_weights=[1.0, 0.0])
    with pytest.raises(ConfigError, match="one for each of 2 classes, found 3"):
        Objective(class_weights=[1.0, 1.0, 1.0])(LOGITS, LABELS, **AT)


def linear_losses() -> tuple[list[nn.Parameter], Tensor, Tensor]:
    """Two losses whose gradients over both parameters have the norms 5 and 2."""
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1)), nn.Parameter(ONE)]
    parameters[2].requires_grad_(False)
    return parameters, (3 * parameters[0][0] + 4 * parameters[1]).sum(), 2 * parameters[0][1]


def test_gradient_norms_by_hand():
    parameters, classification, guidance = linear_losses()
    assert gradient_norm(classification, parameters).item() == pytest.approx(5)
    assert gradient_norm(guidance, parameters[1:]).item() == 0
    assert gradient_norm(ONE, parameters).item() == 0
    assert balancing_factor(classification, guidance, parameters).item() == pytest.approx(2.5)
    assert balancing_factor(classification, ONE, parameters).item() == 0
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("factor", [math.nan, -0.1, math.inf])
def test_a_schedule_must_return_a_factor(factor: float):
    objective = Objective(schedule=lambda step, total_steps: factor)
    with pytest.raises(ConfigError, match=r"expected a factor >= 0 at step 3 of 10, found"):
        objective.weight_at(3, 10)


def test_a_label_of_minus_100_is_no_sample_to_leave_out():
    with pytest.raises(ShapeError, match=r"labels must lie in 0\.\.1, got -100"):
        mean_cross_entropy(torch.zeros(2, 2), torch.tensor([0, -100]))


def test_a_gradient_that_vanishes_once_does_not_rule_the_steps_after_it():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    objective = Objective(weighting="balanced", balance_every=2)
    factors = []
    for scale in (1.0, 1.0, 1e-12, 1.0):  # measured at the first and the third
        term = Term(scale * weight.square().sum()[None], torch.tensor([True]))
        logits = torch.stack([weight, -weight])
        parts = objective(logits, LABELS[:2], guidance=term, parameters=[weight], **AT)
        factors.append(parts.guidance_weight)
    assert factors[1] == factors[0] > 0
    assert factors[2] == factors[3] == pytest.approx(2 * factors[0])


def test_balanced_weighting_fixes_the_share_of_the_gradient_norm():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    objective = Objective(guidance_weight=0.3, weighting="balanced", balance_every=2)
    weights = []
    for _ in range(3):
        inputs = torch.randn(3, 4)
        logits = model(inputs)
        guidance = (model.weight[0].square().sum() * torch.tensor([1.0, 2.0, 3.0])) ** 2
        parts = objective(
            logits, LABELS, guidance=Term(guidance, GUIDED), parameters=model.parameters(), **AT
        )
        weights.append(parts.guidance_weight)
    assert weights[1] == weights[0]  # measured at every second call
    share = weights[2] * gradient_norm(parts.guidance, model.parameters())
    assert share / gradient_norm(parts.classification, model.parameters()) == pytest.approx(0.3)
    parts.total.backward()


def test_uncertainty_weighting_by_hand():
    objective = Objective(guidance_weight=2.0, weighting="uncertainty").double()
    with torch.no_grad():
        objective.log_variances.copy_(torch.tensor([1.0, -1.0]))
    parts = objective(LOGITS, LABELS, guidance=TERM, **AT)
    expected = parts.classification.item() / math.e + 0.5 + 2 * (math.e * 0.6 - 0.5)
    assert parts.total.item() == pytest.approx(expected)
    parts.total.backward()
    assert objective.log_variances.grad.tolist() == pytest.approx(
        [0.5 - parts.classification.item() / math.e, 2 * (0.5 - math.e * 0.6)]
    )


def test_schedules_by_hand():
    assert [constant(step, 4) for step in range(4)] == [1, 1, 1, 1]
    rising = [warm_up(step, 10, share=0.4) for step in range(6)]
    assert rising == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    delayed = [warm_up(step, 10, share=0.2, delay=0.3) for step in range(7)]
    assert delayed == pytest.approx([0, 0, 0, 0, 0.5, 1, 1])
    assert [warm_up(step, 4, share=0.0, delay=0.5) for step in range(4)] == [0, 0, 1, 1]
    assert [increasing(step, 5) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [increasing(step, 3, power=2.0) for step in range(3)] == [0, 0.25, 1]
    assert increasing(0, 1) == 1


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (constant, {"step": 4, "total_steps": 4}, "0 <= step < total_steps, got step=4"),
        (warm_up, {"step": -1, "total_steps": 4}, "got step=-1"),
        (warm_up, {**AT, "share": 1.2}, r"share must be a share in \[0, 1\], got 1.2"),
        (warm_up, {**AT, "delay": math.nan}, r"delay must be a share in \[0, 1\], got nan"),
        (increasing, {**AT, "power": 0.0}, "power must be a finite number > 0, got 0.0"),
    ],
)
def test_schedules_out_of_range(schedule, options, message):
    with pytest.raises(ConfigError, match=message):
        schedule(**options)


def test_consistency_by_hand_and_by_finite_differences():
    mask = torch.zeros(3, 1, 2, 2)
    mask[0, 0, 0, 0], mask[1], mask[2, 0, 1, 1] = 1, math.nan, 1
    exchanged = (LOGITS + torch.tensor([[1.0, -3.0], [9.0, 9.0], [0.0, 2.0]])).requires_grad_()
    values = consistency(LOGITS, exchanged, mask)
    assert values.tolist() == pytest.approx([5.0, 0.0, 2.0])
    values.sum().backward()
    assert exchanged.grad[1].tolist() == [0, 0]
    assert torch.autograd.gradcheck(lambda e: consistency(LOGITS, e, mask), exchanged)


def test_consistency_shapes():
    with pytest.raises(ShapeError, match=r"one shape, got \(3, 2\) and \(2, 2\)"):
        consistency(LOGITS, LOGITS[:2], torch.zeros(3, 1, 2, 2))
    with pytest.raises(ShapeError, match="expected 3, got 2"):
        consistency(LOGITS, LOGITS, torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize("options", [{"combine": "convex"}, {"weighting": "uncertainty"}])
@pytest.mark.parametrize(
    "term",
    [None, Term(GUIDANCE, GUIDED, torch.zeros(())), Term(GUIDANCE, torch.zeros_like(GUIDED))],
)
def test_a_step_without_guidance_is_one_of_labels_alone(options, term):
    objective = Objective(guidance_weight=0.5, **options).double()
    if "weighting" in options:
        with torch.no_grad():
            objective.log_variances.copy_(torch.tensor([-2.0, 1.0]))  # learnt before
    parts = objective(LOGITS, LABELS, guidance=term, **AT)
    assert parts.total.item() == pytest.approx(parts.classification.item())
    assert parts.guidance_weight == 0
    if "weighting" in options:  # else the weight of what is not there would grow without end
        parts.total.backward()
        assert objective.log_variances.grad.tolist() == [0, 0]
