"""Spell a ``Sequential`` out as the matrices of the reference, BatchNorms folded by hand."""

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from tests.reference import lrp
from tests.unit.attribution.nets import DenseLayer, ResidualBlock

Shape = tuple[int, ...]
Known = dict[nn.Module, tuple[np.ndarray, np.ndarray]]


def record(model: nn.Module, images: Tensor) -> Known:
    """Input and output of every leaf module in one forward pass, (B, ...) each.

    A module called twice keeps its first call; only activations are.
    """
    known: Known = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        known.setdefault(module, (inputs[0].detach().numpy(), output.detach().numpy()))

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [module.register_forward_hook(note) for module in leaves]
    model(images)
    for handle in handles:
        handle.remove()
    return known


class Description:
    """Steps of one sample of a batch.

    Args:
        known: What each module read and put out.
        sample: Number of the sample.
        rules: Rule of convolutions, of linear layers, and of the first layer.
        epsilon: Stabilizer of all.
    """

    def __init__(self, known: Known, sample: int, rules: tuple[str, str, str], epsilon: float):
        self.known, self.sample, self.epsilon = known, sample, epsilon
        self.convolution, self.linear, self.first = rules

    def __call__(self, modules: list[nn.Module], shape: Shape) -> tuple[list[lrp.Step], Shape]:
        steps: list[lrp.Step] = []
        modules = self.flattened(modules)
        while modules:
            module, *modules = modules
            if isinstance(module, nn.ReLU | nn.LeakyReLU):
                steps.append(lrp.Rectifier(getattr(module, "negative_slope", 0.0)))
            elif isinstance(module, nn.Flatten):
                shape = (int(np.prod(shape)),)
            elif isinstance(module, nn.MaxPool2d | nn.MaxPool3d):
                looked, shape = lrp.pool_windows(shape, *self.pool(module, shape))
                steps.append(lrp.Largest(looked))
            elif isinstance(module, nn.Dropout | nn.Dropout2d):
                steps.append(lrp.Mask(self.mask(module)))
            elif isinstance(module, ResidualBlock | DenseLayer):
                step, shape = self.block(module, shape)
                steps.extend(step)
            else:
                group, modules = self.folded([module, *modules])
                step, shape = self.fused(group, shape)
                if self.first and not steps:
                    step = replace(step, rule=self.first)
                steps.append(step)
        return steps, shape

    def flattened(self, modules: list[nn.Module]) -> list[nn.Module]:
        result = []
        for module in modules:
            inner = list(module) if isinstance(module, nn.Sequential) else [module]
            result += self.flattened(inner) if isinstance(module, nn.Sequential) else inner
        return result

    def folded(self, modules: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
        """Split off the modules that make one linear step."""
        weight = (nn.Conv2d, nn.Conv3d, nn.Linear)
        norm = nn.modules.batchnorm._BatchNorm
        between = (nn.Dropout, nn.Dropout2d, nn.AvgPool2d, nn.Flatten)
        end = 1
        if isinstance(modules[0], norm):
            while isinstance(modules[end], between):
                end += 1
            if isinstance(modules[end], weight):
                end += 1
            else:
                return modules[:1], modules[1:]
        if isinstance(modules[end - 1], weight) and end < len(modules):
            end += isinstance(modules[end], norm)
        return modules[:end], modules[end:]

    def fused(self, group: list[nn.Module], shape: Shape) -> tuple[lrp.Linear, Shape]:
        matrix, bias, connected, rule = np.eye(int(np.prod(shape))), 0.0, None, "epsilon"
        for module in group:
            if isinstance(module, nn.Flatten):
                shape = (int(np.prod(shape)),)
                continue
            factor, added, linked, shape = self.affine(module, shape)
            matrix, bias = factor @ matrix, factor @ (bias * np.ones(factor.shape[1])) + added
            if linked is not None:
                connected = linked
                is_linear = isinstance(module, nn.Linear)
                rule = self.linear if is_linear else self.convolution
        return lrp.Linear(matrix, bias, rule, self.epsilon, connected, low=-3.0, high=4.0), shape

    def affine(
        self, module: nn.Module, shape: Shape
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Shape]:
        """Matrix, bias, connections of a weight layer, output shape."""
        read, _ = self.known[module]
        if isinstance(module, nn.Linear):
            matrix = module.weight.detach().numpy()
            return matrix, module.bias.detach().numpy(), np.ones_like(matrix), (len(matrix),)
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            matrix, linked, out = lrp.convolution_matrix(
                module.weight.detach().numpy(),
                shape,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
            )
            bias = np.zeros(out[0]) if module.bias is None else module.bias.detach().numpy()
            return matrix, np.repeat(bias, len(matrix) // out[0]), linked, out
        units = int(np.prod(shape))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            axes = (0, *range(2, read.ndim))
            mean, variance = read.mean(axes), read.var(axes)
            if not module.training:
                mean, variance = module.running_mean.numpy(), module.running_var.numpy()
            gamma = module.weight.detach().numpy() if module.affine else np.ones_like(mean)
            beta = module.bias.detach().numpy() if module.affine else np.zeros_like(mean)
            scale = gamma / np.sqrt(variance + module.eps)
            each = units // len(mean)
            return (
                np.diag(np.repeat(scale, each)),
                np.repeat(beta - mean * scale, each),
                None,
                shape,
            )
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            return np.diag(self.mask(module)), np.zeros(units), None, shape
        looked, shape = lrp.pool_windows(shape, *self.pool(module, shape))
        return lrp.average_matrix(looked, units), np.zeros(len(looked)), None, shape

    def mask(self, module: nn.Module) -> np.ndarray:
        before, after = (side[self.sample].ravel() for side in self.known[module])
        return np.divide(after, before, out=np.zeros_like(after), where=before != 0)

    def pool(self, module: nn.Module, shape: Shape) -> tuple[Shape, Shape, Shape]:
        dims = len(shape) - 1
        if hasattr(module, "output_size"):
            size = module.output_size
            out = size if isinstance(size, tuple) else (size,) * dims
            kernel = tuple(n // o for n, o in zip(shape[1:], out, strict=True))
            return kernel, kernel, (0,) * dims
        return (module.kernel_size,) * dims, (module.stride,) * dims, (0,) * dims

    def block(self, module: nn.Module, shape: Shape) -> tuple[list[lrp.Step], Shape]:
        first, self.first = self.first, ""
        if isinstance(module, DenseLayer):
            grown, out = self([module.layers], shape)
            shape = (shape[0] + out[0], *shape[1:])
            steps: list[lrp.Step] = [lrp.Concatenation([[], grown])]
        else:
            body = [module.conv1, module.bn1, module.relu, module.conv2, module.bn2]
            main, out = self(body, shape)
            side, shape = self([module.downsample], shape)
            steps = [lrp.Sum([main, side]), lrp.Rectifier()]
        self.first = first
        return steps, shape
