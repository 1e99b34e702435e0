"""In which order a model calls its layers, which read the image, and what functions it uses."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glioma_xai.attribution.batchnorm import BATCH_NORMS
from glioma_xai.attribution.coverage import VIEWS
from glioma_xai.attribution.graph import Graph
from glioma_xai.attribution.layers import WEIGHT_LAYERS
from glioma_xai.errors import CompatibilityError
from glioma_xai.records import Problem


@dataclass(frozen=True)
class Trace:
    """One forward pass in eval mode.

    Args:
        order: Weight layers in the order of their first call.
        first: Those that read the image, directly or behind views and a BatchNorm.
        problems: Functions between the layers that relevance cannot pass.
    """

    order: tuple[str, ...]
    first: frozenset[str]
    problems: tuple[Problem, ...]

    def depth(self, name: str) -> float:
        """Return where a weight layer is called: 0 first, 1 last; 1 if it never is."""
        if name not in self.order or len(self.order) == 1:
            return 1.0
        return self.order.index(name) / (len(self.order) - 1)


class _Recorder:
    """Notes calls in a forward pass; keeps the tensors alive, so that ids stay unique."""

    def __init__(self, image: Tensor, gates: Collection[str]) -> None:
        self._gates = gates
        self.calls: dict[str, bool] = {}
        self.graph = Graph(image)
        self._pixels = {id(image): image}

    def note(
        self, name: str, module: nn.Module, inputs: tuple[object, ...], output: object
    ) -> None:
        reads_image = bool(inputs) and id(inputs[0]) in self._pixels
        gate, weighted = name in self._gates, isinstance(module, (*WEIGHT_LAYERS, *BATCH_NORMS))
        if isinstance(output, Tensor) and (gate or weighted):
            self.graph.accept(output, gate=gate)
        if isinstance(module, WEIGHT_LAYERS):
            self.calls[name] = self.calls.get(name, False) or reads_image
        elif not reads_image or not isinstance(output, Tensor):
            return
        elif isinstance(module, (*VIEWS, *BATCH_NORMS)):
            self._pixels[id(output)] = output


def trace(model: nn.Module, input_shape: tuple[int, ...], gates: Collection[str] = ()) -> Trace:
    """Run the model on one blank image; nothing of it changes.

    Args:
        model: Returns logits, (B, classes).
        input_shape: Channels and spatial size, without the batch.
        gates: Names of layers that count as constants.

    Raises:
        CompatibilityError: If the model cannot run on this shape, or does not return logits.
    """
    like = next(model.parameters(), torch.empty(()))
    image = like.detach().new_zeros((1, *input_shape)).requires_grad_()
    recorder = _Recorder(image, gates)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(_evaluation(model))
        for name, module in model.named_modules():
            handle = module.register_forward_hook(
                lambda module, inputs, output, name=name: recorder.note(
                    name, module, inputs, output
                )
            )
            stack.callback(handle.remove)
        try:
            logits = model(image)
        except RuntimeError as error:
            raise CompatibilityError(
                f"the model must run on input_shape: expected one that it accepts, got "
                f"{tuple(input_shape)} ({error}). Set input_shape to channels and spatial size."
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CompatibilityError(
            f"the model must return logits: expected (B, classes), got {got}. Return one tensor of "
            f"logits."
        )
    first = frozenset(name for name, reads_image in recorder.calls.items() if reads_image)
    return Trace(tuple(recorder.calls), first, tuple(recorder.graph.problems(logits)))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
