import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from glioma_xai.config import conf_dir
from glioma_xai.errors import ConfigError
from glioma_xai.models import networks
from glioma_xai.models.networks import SmallCNN, densenet, resnet, vgg

TINY_RESNET = {"channels": (4, 6, 8, 10), "first_kernel": 3}
TINY_DENSENET = {"blocks": (2, 2), "growth_rate": 4, "first_channels": 8}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_small_cnn_is_the_papers_cnn():
    model = SmallCNN(input_shape=(3, 160, 160))
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == [
        *["Conv2d", "ReLU", "MaxPool2d", "BatchNorm2d", "Dropout"],
        *["Conv2d", "ReLU", "MaxPool2d"] * 2,
        *["Conv2d", "ReLU", "MaxPool2d", "Dropout"],
        *["Flatten", "Linear", "ReLU", "Linear"],
    ]
    # 3*9*16+16, 2*16, 16*9*32+32, 32*9*64+64, 64*9*128+128, 128*10*10*64+64, 64*2+2
    assert parameters(model) == 448 + 32 + 4640 + 18496 + 73856 + 819264 + 130


@pytest.mark.parametrize(
    "shape", [(3, 160, 160), (1, 48, 56), (2, 2, 2), (3, 9, 33), (4, 16, 24, 8), (1, 2, 20, 3)]
)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_small_cnn_works_at_any_size(shape, batch_norm):
    model = SmallCNN(input_shape=shape, classes=3, batch_norm=batch_norm)
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_small_cnn_options():
    model = SmallCNN(input_shape=(1, 8, 8), dropout=0.0, batch_norm=False, channels=(2, 3))
    kinds = {type(layer) for layer in model}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear}
    assert model.dense1.in_features == 3 * 2 * 2


@pytest.mark.parametrize("shape", [(3, 20, 9), (1, 8, 12, 2)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_vgg(shape, batch_norm):
    model = vgg(input_shape=shape, channels=((2, 3), (4,)), hidden=5, batch_norm=batch_norm)
    assert model(torch.randn(2, *shape)).shape == (2, 2)
    kinds = [type(layer).__name__.rstrip("23d") for layer in model]
    block = ["Conv", "BatchNorm", "ReLU"] if batch_norm else ["Conv", "ReLU"]
    head = ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert kinds == [*block * 2, "MaxPool", *block, "MaxPool", *head]


@pytest.mark.parametrize("shape", [(3, 24, 20), (2, 12, 16, 10)])
@pytest.mark.parametrize("depth", [10, 18, 50])
def test_resnet(shape, depth):
    model = resnet(input_shape=shape, classes=3, depth=depth, **TINY_RESNET)
    assert model(torch.randn(2, *shape)).shape == (2, 3)
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    shortcuts = [name for name, _ in model.named_modules() if name.endswith("downsample.0")]
    assert len(weighted) - len(shortcuts) == depth
    assert not any(getattr(m, "inplace", False) for m in model.modules())


def test_resnet_first_stage_follows_the_options():
    kept = resnet(input_shape=(1, 16, 16), max_pool=False, **TINY_RESNET)
    halved = resnet(input_shape=(1, 16, 16), first_stride=2, max_pool=True, **TINY_RESNET)
    sizes = []
    for model in (kept, halved):
        model.layer1.register_forward_hook(lambda m, i, output: sizes.append(output.shape[2:]))
        model(torch.randn(2, 1, 16, 16))
    assert sizes == [(16, 16), (4, 4)]


@pytest.mark.parametrize("shape", [(3, 24, 20), (2, 16, 16, 24)])
def test_densenet(shape):
    model = densenet(input_shape=shape, classes=3, **TINY_DENSENET)
    assert model(torch.randn(2, *shape)).shape == (2, 3)
    assert not any(getattr(m, "inplace", False) for m in model.modules())


def test_densenet_keeps_small_images_large():
    model = densenet(input_shape=(1, 8, 8), first_stride=1, max_pool=False, **TINY_DENSENET)
    sizes = []
    model.features.denseblock1.register_forward_hook(
        lambda m, inputs, output: sizes.append(output.shape[2:])
    )
    model(torch.randn(2, 1, 8, 8))
    assert sizes == [(8, 8)]


def test_building_draws_no_more_than_the_weights():
    torch.manual_seed(0)
    first = resnet(input_shape=(1, 16, 16), **TINY_RESNET)
    assert first.conv1.weight.device.type == "cpu"
    assert all(int(b) == 0 for name, b in first.named_buffers() if name.endswith("tracked"))


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (SmallCNN, {"input_shape": (3, 16)}, r"two or three spatial sizes, got \(3, 16\)"),
        (SmallCNN, {"input_shape": (3, 1, 16)}, r"2 pixels along each axis, got \(3, 1, 16\)"),
        (SmallCNN, {"input_shape": (3, 16, 16), "classes": 1}, "classes must be at least 2, got 1"),
        (SmallCNN, {"input_shape": (3, 16, 16), "dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        (SmallCNN, {"input_shape": (3, 16, 16), "channels": ()}, "widths >= 1"),
        (SmallCNN, {"input_shape": (3, 16, 16), "hidden": 0}, "widths >= 1"),
        (vgg, {"input_shape": (3, 16, 16), "channels": ()}, "widths >= 1, got"),
        (vgg, {"input_shape": (3, 16, 1)}, r"2 pixels along each axis, got \(3, 16, 1\)"),
        (resnet, {"input_shape": (3, 16, 16), "depth": 12}, r"one of \[10, 18, 34, 50\], got 12"),
        (resnet, {"input_shape": (3, 16, 16), "channels": (1, 2)}, "four channel numbers"),
        (densenet, {"input_shape": (3, 16, 16)}, r"densenet needs a larger input than \(3, 16, 16"),
        (densenet, {"input_shape": (0, 16, 16)}, "at least 1 channel"),
    ],
)
def test_arguments_out_of_range(build, options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 16, 16, 16)], ids=["2d", "3d"])
@pytest.mark.parametrize(
    ("name", "depth"), [("small_cnn", 6), ("vgg", 10), ("resnet10", 10), ("resnet18", 18)]
)
def test_networks_by_name_have_their_depth(name, depth, shape):
    model = by_name(name, input_shape=shape)
    assert model(torch.randn(2, *shape)).shape == (2, 3)
    assert depth_of(model) == depth


def test_resnet50_by_name_has_its_depth():
    model = by_name("resnet50", input_shape=(1, 16, 16))
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    assert depth_of(model) == 50
    assert model.fc.in_features == 2048  # four times the last stage's width


def by_name(name, *, input_shape):
    options = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    build = getattr(networks, options.pop("_target_").removeprefix(f"{networks.__name__}."))
    return build(input_shape=input_shape, classes=3, **options)


def depth_of(model):
    kinds = nn.Conv2d | nn.Conv3d | nn.Linear
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return sum(not name.endswith("downsample.0") for name in names)
