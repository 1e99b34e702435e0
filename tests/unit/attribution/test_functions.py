"""Functions between layers: those that relevance passes conserve it, all others are refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from glioma_xai.attribution import build_composite, compute_relevance, graph, uncovered_layers
from glioma_xai.errors import CompatibilityError

SHAPE = (2, 8, 8)
GENERATOR = torch.Generator().manual_seed(5)
CONSTANT = torch.randn(1, 4, 8, 8, generator=GENERATOR, dtype=torch.float64)
MASK = CONSTANT > 0
FIRST = torch.tensor([0])


class Function(nn.Module):
    """Convolution, function, linear layer; no biases."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.function = function
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False).double()
        nn.init.normal_(self.conv.weight, generator=generator)
        with torch.no_grad():
            width = function(self.conv(torch.zeros(1, *SHAPE).double())).flatten(1).shape[1]
        self.out = nn.Linear(width, 3, bias=False).double()
        nn.init.normal_(self.out.weight, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.function(self.conv(x)).flatten(1))


def first(x: Tensor) -> Tensor:
    return torch.zeros(len(x), 1, 8, 8, dtype=torch.int64)


def same_grid(x: Tensor) -> Tensor:
    theta = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.8, 0.1]]).double().expand(len(x), 2, 3)
    return functional.affine_grid(theta, [*x.shape], align_corners=False)


def filled(x: Tensor) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype)
    y.copy_(x)
    return y


def partly(x: Tensor, step: Callable[[Tensor], object]) -> Tensor:
    y = x.clone()
    step(y[:, :2])
    return y


ACCEPTED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "clamp_at_0": lambda x: x.clamp(min=0),
    "clamp_min_at_0": lambda x: x.clamp_min(0) - x.clamp_max(0) / 3,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.1),
    "prelu": lambda x: functional.prelu(x, CONSTANT[0, 0, 0, :4].abs()),
    "abs": torch.abs,
    "difference": lambda x: -x - x.mean(1, keepdim=True),
    "times_constant": lambda x: x * CONSTANT + 2 * x,
    "over_constant": lambda x: x / (CONSTANT.abs() + 1),
    "mask": lambda x: x * MASK,
    "sum": lambda x: x.sum((2, 3)),
    "max": lambda x: x.max(1).values,
    "min": lambda x: x.min(1).values,
    "amax": lambda x: torch.cat([x.amax((2, 3)), x.amin((2, 3))], 1),
    "aminmax": lambda x: x.aminmax(dim=1).max,
    "median": lambda x: x.median(1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "cumsum": lambda x: x.cumsum(1),
    "cummax": lambda x: x.cummax(1).values + x.cummin(1).values,
    "maximum": lambda x: torch.maximum(x, x.flip(1)) + torch.minimum(x, x.roll(1, 1)),
    "where": lambda x: torch.where(MASK, x, x.flip(1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 2).contiguous(),
    "reshape": lambda x: x.unsqueeze(1).squeeze(1).reshape(len(x), -1, 4),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "cat": lambda x: torch.cat([x, x.flip(2)], 1),
    "stack": lambda x: torch.stack([x, 2 * x], 1),
    "select": lambda x: x[:, 1],
    "slice": lambda x: x[:, :, 2:7:2],
    "index": lambda x: x[:, [0, 2]],
    "index_select": lambda x: x.index_select(1, FIRST),
    "gather": lambda x: x.gather(1, first(x)),
    "masked_select": lambda x: x.masked_select(MASK.expand_as(x)).view(len(x), -1),
    "index_add": lambda x: x.index_add(1, FIRST, x[:, 1:2]),
    "scatter_add": lambda x: x.scatter_add(1, first(x), x[:, 1:2]),
    "scatter": lambda x: x.scatter(1, first(x), x[:, 1:2]),
    "index_put": lambda x: x.index_put((torch.arange(len(x)), FIRST), x[:, 1]),
    "rot90": lambda x: x.rot90(1, (2, 3)).roll(1, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1).repeat_interleave(2, 1),
    "chunk": lambda x: x.chunk(2, 1)[0] + x.split([1, 3], 1)[0] + x.unbind(1)[3][:, None],
    "tril": lambda x: x.tril() - x.triu() / 2,
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3),
    "unfold": lambda x: x.unfold(2, 2, 2),
    "im2col": lambda x: functional.fold(functional.unfold(x, 3), (8, 8), 3),
    "pad": lambda x: functional.pad(x, (1, 1, 1, 1)),
    "reflect": lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "replicate_3d": lambda x: functional.pad(x[:, None], (1,) * 6, mode="replicate"),
    "max_pool1d": lambda x: functional.max_pool1d(x.flatten(2), 2),
    "max_pool2d": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "max_pool3d": lambda x: functional.max_pool3d(x[:, None], 2),
    "adaptive_max_pool": lambda x: functional.adaptive_max_pool2d(x, 3),
    "avg_pool1d": lambda x: functional.avg_pool1d(x.flatten(2), 2),
    "avg_pool2d": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "avg_pool3d": lambda x: functional.avg_pool3d(x[:, None], 2),
    "adaptive_avg_pool": lambda x: functional.adaptive_avg_pool2d(x, 3),
    "adaptive_avg_pool3d": lambda x: functional.adaptive_avg_pool3d(x[:, None], 3),
    "global_average": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "nearest_exact": lambda x: functional.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "antialias": lambda x: functional.interpolate(x, size=5, mode="bicubic", antialias=True),
    "trilinear": lambda x: functional.interpolate(x[:, None], size=(3, 5, 9), mode="trilinear"),
    "linear": lambda x: functional.interpolate(x.flatten(2), size=20, mode="linear"),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "channel_shuffle": lambda x: functional.pixel_unshuffle(functional.channel_shuffle(x, 2), 2),
    "grid_sample": lambda x: functional.grid_sample(x, same_grid(x), align_corners=False),
    "dropout": lambda x: functional.dropout(x, 0.5, training=True),
    "constant_matrices": lambda x: torch.einsum("bchw,hk->bckw", x, CONSTANT[0, 0]),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "other_precision": lambda x: x.float().double(),
    "copy": filled,
    "one_minus": lambda x: (1 - x) - 1,
    "fmax": lambda x: torch.fmax(x, x.flip(1)) - torch.fmin(x, x.roll(1, 1)),
    "take": lambda x: torch.stack([y.take(torch.tensor([0, 9, 70])) for y in x]),
    "as_strided": lambda x: torch.ops.aten.alias(x).as_strided((len(x), 9), (256, 2), 1),
    "unsafe_split": lambda x: x.unsafe_split(2, 1)[0] - x.unsafe_split_with_sizes([2, 2], 1)[1],
    "reflect_1d": lambda x: functional.pad(x.flatten(2), (1, 1), mode="reflect"),
    "reflect_3d": lambda x: functional.pad(x[:, None], (1,) * 6, mode="reflect"),
    "replicate_1d": lambda x: functional.pad(x.flatten(2), (1, 1), mode="replicate"),
    "replicate_2d": lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"),
    "adaptive_max_pool3d": lambda x: functional.adaptive_max_pool3d(x[:, None], 2),
    "fractional": lambda x: functional.fractional_max_pool2d(x, 2, output_size=4),
    "fractional_3d": lambda x: functional.fractional_max_pool3d(x[:, None], 2, output_size=2),
    "nearest_1d": lambda x: functional.interpolate(x.flatten(2), scale_factor=2),
    "nearest_3d": lambda x: functional.interpolate(x[:, None], scale_factor=2),
    "exact_1d": lambda x: functional.interpolate(x.flatten(2), size=70, mode="nearest-exact"),
    "exact_3d": lambda x: functional.interpolate(x[:, None], size=9, mode="nearest-exact"),
    "bicubic": lambda x: functional.interpolate(x, scale_factor=2, mode="bicubic"),
    "smoothed": lambda x: functional.interpolate(x, size=5, mode="bilinear", antialias=True),
    "grid_sample_3d": lambda x: functional.grid_sample(
        x[:, None], CONSTANT[:, :3].movedim(1, 3)[:, None].expand(len(x), -1, -1, -1, -1).tanh(),
        align_corners=False,
    ),
}  # fmt: skip


def test_every_function_on_the_list_is_tried() -> None:
    tried, nodes = set(), []
    for function in ACCEPTED.values():
        nodes.append(Function(function)(torch.ones(2, *SHAPE, dtype=torch.float64)).grad_fn)
    while nodes:
        node = nodes.pop()
        tried.add(graph._name(node))
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    listed = graph._PASSED | graph._OF_TWO | graph._CLAMPS | set(graph._LINEAR_IN)
    elsewhere = {"MkldnnAdaptiveAvgPool2D", "NativeDropout"}  # mkldnn tensors, CUDA
    assert listed - tried == elsewhere


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_function_conserves_relevance(name: str) -> None:
    model = Function(ACCEPTED[name]).eval()
    composite = build_composite("epsilon", model, input_shape=SHAPE, epsilon=1e-12)
    tolerance = 1e-5 if name == "other_precision" else 1e-6  # rounded to single precision
    for size in (0.1, 1.0, 10.0):  # saturation would show in one of them
        generator = torch.Generator().manual_seed(4)
        images = size * torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
        torch.manual_seed(6)
        logits, relevance = compute_relevance(
            model, images, composite, labels=torch.tensor([0, 1, 2])
        )
        explained = logits.diagonal()
        assert explained.abs().min() > 0
        torch.testing.assert_close(
            relevance.flatten(1).sum(1), explained, rtol=tolerance, atol=1e-9 * size
        )


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "softshrink": ("softshrink", functional.softshrink),
    "hardshrink": ("hardshrink", functional.hardshrink),
    "tanhshrink": ("tanh", functional.tanhshrink),
    "softsign": ("div", functional.softsign),
    "logsumexp": ("logsumexp", lambda x: x.logsumexp(1)),
    "logcumsumexp": ("logcumsumexp", lambda x: x.logcumsumexp(1)),
    "logaddexp": ("logaddexp", lambda x: torch.logaddexp(x, x.flip(1))),
    "prod": ("prod", lambda x: x.prod(1)),
    "cumprod": ("cumprod", lambda x: x.cumprod(1)),
    "clamp_min": ("clampmin", lambda x: x.clamp_min(0.5)),
    "clamp_max": ("clampmax", lambda x: x.clamp_max(0.5)),
    "clamp": ("clamp", lambda x: x.clamp(-1, 1)),
    "clamp_by_tensor": ("clamp", lambda x: x.clamp(min=CONSTANT)),
    "relu6": ("hardtanh", functional.relu6),
    "threshold": ("threshold", lambda x: functional.threshold(x, 0, 5)),
    "maximum": ("maximum", lambda x: torch.maximum(x, CONSTANT)),
    "glu": ("glu", lambda x: functional.glu(x, 1)),
    "gated": ("mul", lambda x: x * x.flip(1)),
    "lerp": ("lerp", lambda x: torch.lerp(x, x.flip(1), x)),
    "addcmul": ("addcmul", lambda x: torch.addcmul(x, x, x)),
    "addcdiv": ("addcdiv", lambda x: torch.addcdiv(x, x, x.abs() + 1)),
    "exp2": ("exp2", torch.exp2),
    "expm1": ("expm1", torch.expm1),
    "log1p": ("log1p", lambda x: x.abs().log1p()),
    "log2": ("log2", lambda x: (x.abs() + 1).log2()),
    "log10": ("log10", lambda x: (x.abs() + 1).log10()),
    "xlogy": ("xlogy", lambda x: torch.xlogy(x, x.abs() + 1)),
    "erf": ("erf", torch.erf),
    "atan": ("atan", torch.atan),
    "asin": ("asin", lambda x: (x / 100).asin()),
    "acos": ("acos", lambda x: (x / 100).acos()),
    "sinh": ("sinh", torch.sinh),
    "cosh": ("cosh", torch.cosh),
    "asinh": ("asinh", torch.asinh),
    "sinc": ("sinc", torch.sinc),
    "round": ("round", torch.round),
    "floor": ("floor", torch.floor),
    "ceil": ("ceil", torch.ceil),
    "sign": ("sign", torch.sign),
    "remainder": ("remainder", lambda x: x % 2),
    "rounded_division": ("div", lambda x: torch.div(x, 2, rounding_mode="floor")),
    "constant_over": ("div", lambda x: CONSTANT / (x.abs() + 1)),
    "where": ("where", lambda x: torch.where(x > 1, x, 1.0)),
    "masked_fill": ("maskedfill", lambda x: x.masked_fill(MASK, 3.0)),
    "index_put": ("indexput", lambda x: x.index_put((FIRST, FIRST), CONSTANT[:, 1])),
    "norm": ("linalgvectornorm", lambda x: x.norm(dim=1)),
    "std": ("std", lambda x: x.std(1)),
    "square": ("pow", torch.square),
    "attention": ("bmm", lambda x: x @ x.transpose(2, 3)),
    "bilinear": ("trilinear", lambda x: functional.bilinear(x, x, CONSTANT[0])),
    "softmax": ("softmax", lambda x: x.softmax(1)),
    "group_norm": ("nativegroupnorm", lambda x: functional.group_norm(x, 2)),
    "matrix": ("mm", lambda x: x @ CONSTANT[0, 0]),
    "hidden_in_a_part": ("copyslices", lambda x: partly(x, torch.sigmoid_)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_function_is_refused_by_its_name(name: str) -> None:
    node, function = REFUSED[name]
    model = Function(function)
    with pytest.raises(CompatibilityError, match=f"function {node} in the model's forward pass"):
        build_composite("epsilon", model, input_shape=SHAPE)
    assert uncovered_layers(model, "gradient", SHAPE) == []


def test_grid_that_depends_on_the_image_is_refused() -> None:
    model = Function(
        lambda x: functional.grid_sample(x, x[:, :2].movedim(1, 3), align_corners=False)
    )
    with pytest.raises(CompatibilityError, match="function gridsampler2d"):
        build_composite("epsilon", model, input_shape=SHAPE)


def test_in_place_modules_on_views_are_run_out_of_place() -> None:
    """A relevance pass runs them so; on a view, autograd would not show what they do."""

    class OnViews(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.line = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(8, 5)
            self.relu, self.out = nn.ReLU(inplace=True), nn.Linear(160, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x).flatten(1)).view(-1, 4, 8, 8)
            return self.out(self.relu(self.line(x.transpose(2, 3))).flatten(1))

    model = OnViews()
    assert uncovered_layers(model, "epsilon", SHAPE) == []
    assert model.relu.inplace
