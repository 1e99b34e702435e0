"""What breaks hooks elsewhere: in-place steps, shared modules, odd precision, frozen weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glioma_xai.attribution import build_composite, compute_relevance, guards
from glioma_xai.errors import CompatibilityError, ConfigError, NumericsError, ShapeError
from tests.unit.attribution import nets
from tests.unit.attribution.differences import compare

SHAPE = (2, 16, 16)


def relevance_of(model: nn.Module, name: str = "epsilon_plus", **options: object) -> Tensor:
    composite = build_composite(name, model, input_shape=SHAPE)
    images = nets.images("plain")
    return compute_relevance(model, images, composite, labels=nets.LABELS, **options)[1]


class InPlace(nn.Module):
    """Every in-place step that can follow a hooked layer; ``safe`` does the same out of place."""

    def __init__(self, safe: bool) -> None:
        super().__init__()
        self.safe = safe
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=not safe)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.relu(self.a(x))
        y = self.b(skip)
        y = functional.leaky_relu(y, 0.1) if self.safe else functional.leaky_relu_(y, 0.1)
        z = self.norm(self.c(y))
        z = z + skip if self.safe else z.add_(skip)
        z = z * 0.5 if self.safe else z.mul_(0.5)
        z = functional.relu(z) if self.safe else functional.relu_(z)
        return self.out(z.mean((2, 3)))


@pytest.mark.parametrize("name", ["epsilon", "epsilon_plus", "gamma", "epsilon_alpha2_beta1_flat"])
def test_in_place_steps_change_nothing(name: str) -> None:
    safe, fast = nets.prepared(InPlace(safe=True)), nets.prepared(InPlace(safe=False))
    torch.testing.assert_close(
        relevance_of(fast, name), relevance_of(safe, name), rtol=1e-9, atol=1e-12
    )
    for model in (safe, fast):
        relevance_of(model, name, create_graph=True).abs().sum().backward()
    for ours, theirs in zip(fast.parameters(), safe.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)


class Shared(nn.Module):
    """One convolution and one BatchNorm used twice; ``copied`` has two of each."""

    def __init__(self, copied: bool) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b2 = nn.Conv2d(4, 4, 3, padding=1) if copied else self.b
        self.norm2 = nn.BatchNorm2d(4) if copied else self.norm
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.a(x))
        x = self.relu(self.norm(self.b(x)))
        x = self.relu(self.norm2(self.b2(x)))
        return self.out(x.mean((2, 3)))


@pytest.mark.parametrize("name", ["epsilon", "zplus"])
def test_weight_layer_used_twice_equals_two_layers(name: str) -> None:
    shared, copied = nets.prepared(Shared(copied=False)), nets.prepared(Shared(copied=True))
    copied.load_state_dict(
        shared.state_dict()
        | {
            key.replace("b.", "b2.").replace("norm.", "norm2."): value
            for key, value in shared.state_dict().items()
            if key.startswith(("b.", "norm."))
        }
    )
    assert torch.equal(relevance_of(shared.eval(), name), relevance_of(copied.eval(), name))
    composite = build_composite(name, shared, input_shape=SHAPE, epsilon=1e-2, stabilizer=1e-2)
    found = compare(
        shared,
        lambda graph: (
            compute_relevance(
                shared, nets.images("plain"), composite, labels=nets.LABELS, create_graph=graph
            )[1]
            .square()
            .sum()
        ),
        directions=5,
    )
    assert found.worst <= 1e-6


def test_unused_and_frozen_parts_do_not_matter() -> None:
    model = nets.vgg().eval()
    expected = relevance_of(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(relevance_of(model), expected)
    model[0].weight.requires_grad_(True)
    relevance_of(model, create_graph=True).abs().sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_model_without_parameters() -> None:
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Unflatten(1, (2, 4)), nn.Flatten())
    composite = build_composite("epsilon", model, input_shape=SHAPE, epsilon=1e-12)
    images = torch.rand(2, *SHAPE) + 1
    _, relevance = compute_relevance(model, images, composite, labels=torch.tensor([0, 5]))
    expected = torch.zeros_like(images)
    expected[0, 0, :8, :8] = images[0, 0, :8, :8] / 64
    expected[1, 1, :8, 8:] = images[1, 1, :8, 8:] / 64
    torch.testing.assert_close(relevance, expected)


def test_relevance_is_differentiable_in_the_images_too() -> None:
    model = nets.plain()
    composite = build_composite(
        "epsilon_plus", model, input_shape=SHAPE, epsilon=1e-2, stabilizer=1e-2
    )
    holder = nn.ParameterList([nn.Parameter(nets.images("plain"))])

    def value(create_graph: bool) -> Tensor:
        _, relevance = compute_relevance(
            model, holder[0] * 2, composite, labels=nets.LABELS, create_graph=create_graph
        )
        return relevance.square().sum()

    assert compare(holder, value, directions=5).worst <= 1e-6


def test_plain_images_get_no_gradient() -> None:
    model, images = nets.plain(), nets.images("plain")
    composite = build_composite("zplus", model, input_shape=SHAPE)
    _, relevance = compute_relevance(
        model, images, composite, labels=nets.LABELS, create_graph=True
    )
    relevance.sum().backward()
    assert images.grad is None
    assert not images.requires_grad


def test_autocast_changes_nothing() -> None:
    model = nets.vgg().float().eval()
    images = nets.images("vgg").float()
    composite = build_composite("epsilon_plus", model, input_shape=SHAPE)
    plain = compute_relevance(model, images, composite, labels=nets.LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = compute_relevance(model, images, composite, labels=nets.LABELS)
        assert torch.is_autocast_enabled("cpu")
    for ours, theirs in zip(mixed, plain, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_half_precision() -> None:
    model = nets.plain().float()
    composite = build_composite("epsilon", model, input_shape=SHAPE)
    images = nets.images("plain").half()
    _, relevance = compute_relevance(model, images, composite, labels=nets.LABELS)
    assert relevance.dtype == torch.float32
    with pytest.raises(NumericsError, match=r"expected float32 or float64 weights, got bfloat16"):
        compute_relevance(model.bfloat16(), images, composite, labels=nets.LABELS)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float64, r"expected float32, got float64\. Call images\.to\(torch\.float32\)"),
        (torch.complex64, "images must be real: expected float32 or float64, got complex64"),
    ],
)
def test_images_of_another_kind_than_the_model(dtype: torch.dtype, message: str) -> None:
    model = nets.plain().float()
    composite = build_composite("epsilon", model, input_shape=SHAPE)
    with pytest.raises(ConfigError, match=message):
        compute_relevance(model, nets.images("plain").to(dtype), composite, labels=nets.LABELS)


@pytest.mark.parametrize(
    ("mode", "name"), [(torch.no_grad, "no_grad"), (torch.inference_mode, "inference_mode")]
)
def test_modes_without_gradients(mode: Callable[[], object], name: str) -> None:
    model = nets.vgg().eval()
    expected = relevance_of(model)
    composite = build_composite("epsilon_plus", model, input_shape=SHAPE)
    with mode():
        images = nets.images("vgg") + 0
        logits, found = compute_relevance(model, images, composite, labels=nets.LABELS)
        with pytest.raises(ConfigError, match=f"create_graph=True needs gradients.*{name}"):
            compute_relevance(model, images, composite, labels=nets.LABELS, create_graph=True)
    assert torch.equal(found, expected)
    assert not logits.requires_grad


def test_first_layer_with_nan_is_named() -> None:
    model = nets.plain()
    model[2].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"first in the output of Conv2d at 2"):
        relevance_of(model)
    images = nets.images("plain")
    images[0, 0, 0, 0] = torch.inf
    model = nets.plain()
    composite = build_composite("epsilon", model, input_shape=SHAPE)
    with pytest.raises(NumericsError, match="first in the image itself"):
        compute_relevance(model, images, composite, labels=nets.LABELS)


def test_batch_norm_over_single_values_is_refused() -> None:
    model = nets.vgg().train()
    composite = build_composite("epsilon", model, input_shape=SHAPE)
    with pytest.raises(ShapeError, match=r"BatchNorm 11 in train\(\) .* got \(1, 8\)"):
        compute_relevance(model, nets.images("vgg", batch=1), composite, labels=nets.LABELS[:1])


def test_detached_path_is_named() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nets.plain()

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x.detach())

    with pytest.raises(CompatibilityError, match="expected a differentiable path"):
        relevance_of(Detached())


def test_images_and_labels_on_another_device_than_the_model() -> None:
    """The meta device stands in for a GPU."""
    model, images = nets.plain(), nets.images("plain")
    composite = build_composite("epsilon", model, input_shape=SHAPE)
    with pytest.raises(CompatibilityError, match=r"images must be where the model is: .*got meta"):
        compute_relevance(model, images.to("meta"), composite, labels=nets.LABELS)


def test_batch_of_one_is_fine_where_maps_are_larger_than_a_pixel() -> None:
    model = nets.paper_cnn().train()
    images = nets.images("paper_cnn", batch=1)
    composite = build_composite("epsilon_plus", model, input_shape=images.shape[1:])
    _, relevance = compute_relevance(
        model, images, composite, labels=nets.LABELS[:1], create_graph=True
    )
    relevance.abs().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["epsilon", "epsilon_plus_flat"])
def test_bfloat16_autocast_on_cuda_leaves_relevance_in_single_precision(name: str) -> None:
    model = nets.vgg().float().cuda().train()
    images, labels = nets.images("vgg").float().cuda(), nets.LABELS.cuda()
    composite = build_composite(name, model, input_shape=SHAPE)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = functional.cross_entropy(model(images), labels)
        _, relevance = compute_relevance(
            model, images, composite, labels=labels, create_graph=True, update_statistics=False
        )
    assert relevance.dtype == torch.float32
    (loss + relevance.abs().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_looking_for_what_is_not_finite_asks_no_other_process() -> None:
    """In train() SyncBatchNorm waits for the others, which have nothing to look for."""
    model = nn.Sequential(nn.SyncBatchNorm(2), nn.Flatten(), nn.Linear(32, 2)).train()
    seen = []
    model[0].register_forward_pre_hook(lambda module, _: seen.append(module.training))
    images = torch.full((2, 2, 4, 4), torch.nan)
    with pytest.raises(NumericsError, match="first in the image itself"):
        guards.refuse_infinite(model, images, images)
    assert seen == [False]
    assert model[0].training
