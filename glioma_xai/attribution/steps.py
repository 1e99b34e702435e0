"""Layers without a rule of their own choosing: BatchNorm, average pools, dropout and views."""

from typing import cast

import torch
from torch import Tensor, nn
from zennit.core import RemovableHandleList

from glioma_xai.attribution.batchnorm import Affine, BatchNorm, uses_batch_statistics
from glioma_xai.attribution.calls import (
    Call,
    GateCall,
    GuidedCall,
    InputCall,
    NormCall,
    OutputCall,
    PassCall,
    PoolCall,
)
from glioma_xai.attribution.hooks import LiveHook
from glioma_xai.attribution.layer_call import LayerCall
from glioma_xai.attribution.provenance import NONNEGATIVE_FACTOR, read_by_relu_alone
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.attribution.tape import FoldedNorm, Origin
from glioma_xai.errors import ShapeError


class Normalization(LiveHook):
    """BatchNorm: folded into the weight layer beside it, or alone under the epsilon rule.

    A BatchNorm that reads a weight layer's output is folded into it. One that a weight layer reads,
    with nothing between but dropout, average pools and flattening, is folded into that. In either
    case the relevance bypasses the BatchNorm. Whatever else reads it meets the epsilon rule.
    """

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Install the hooks."""
        handles = super().register(module)
        handles.append(module.register_forward_pre_hook(self._refuse_single_values))
        return handles

    def _refuse_single_values(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0]
        norm = cast(BatchNorm, module)
        if uses_batch_statistics(norm) and values.numel() == values.shape[1]:
            raise ShapeError(
                f"BatchNorm {self.name} in train() needs more than one value a channel: expected "
                f"a batch of 2 or a larger map, got {tuple(values.shape)}. Use a larger batch "
                f"(drop_last=True) or model.eval()."
            )

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Fold the BatchNorm into the layer that it reads, or offer it to the one that reads it."""
        if not output.requires_grad:
            return output
        values = inputs[0]
        affine = Affine(cast(BatchNorm, module), values)
        origin = self.origin(values)
        if isinstance(origin.layer, LayerCall):
            folded = origin.layer.normalized(affine, output)
            replaced = self.relay(folded, output, folded.source)
            if self.tape and self.tape.reading is values:
                self.tape.reading = replaced
            return replaced
        alone = NormCall(self, affine, values=values, output=output)
        replaced = self.relay(alone, output, values)
        if self.tape:
            norm = FoldedNorm(affine, values)
            self.tape.mark(replaced, Origin(norm=norm, pixels=origin.pixels))
        return replaced


class AveragePool(LiveHook):
    """Average pool: shares relevance in proportion to the values, stabilised."""

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replace the pool's output by a relay that stabilises."""
        if not output.requires_grad:
            return output
        norm = self.origin(inputs[0]).norm
        call = PoolCall(self, values=inputs[0], output=output)
        replaced = self.relay(call, output, output)
        if self.tape and norm is not None:
            self.tape.mark(replaced, Origin(norm=norm.after(module.forward)))
        return replaced


class Pass(LiveHook):
    """Hands relevance on unchanged; for a BatchNorm that shall not count as a layer."""

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replace the output by a relay to the input."""
        if not output.requires_grad or output.shape != inputs[0].shape:
            return output
        return self.relay(PassCall(self, values=inputs[0], output=output), output, inputs[0])


class Gate(LiveHook):
    """A sigmoid whose output multiplies a signal: the signal takes all relevance.

    The gate counts as a constant of the relevance pass, as weights do, and stays a function of the
    weights for the loss. Offered for squeeze-and-excitation, never chosen by itself.

    Reference:
        Arras et al. (2017), WASSA, 159-168, for the gates of an LSTM.
    """

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replace the output by a relay that hands nothing on."""
        if not output.requires_grad:
            return output
        return self.relay(GateCall(self, values=output, output=output), output, output)


class GuidedReLU(LiveHook):
    """ReLU of guided backpropagation: only positive gradients pass.

    Reference:
        Springenberg et al. (2015), ICLR workshop.
    """

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replace the output by a relay to itself."""
        if not output.requires_grad:
            return output
        return self.relay(GuidedCall(self, values=output, output=output), output, output)


class View(LiveHook):
    """Flattening and the identity: hands on what is known of the tensor."""

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output, known under its new shape."""
        if self.tape and output is not inputs[0]:
            origin = self.origin(inputs[0])
            norm = None if origin.norm is None else origin.norm.after(module.forward)
            self.tape.mark(output, Origin(norm=norm, pixels=origin.pixels))
        return output


class DropoutMask(LiveHook):
    """Dropout: keeps its own mask where a BatchNorm in front of it folds into the layer behind.

    The mask is drawn by sending ones through the module, so the generator moves as in a plain
    forward pass and the output has the same values.
    """

    def __init__(self, stabilizer: Stabilizer | None = None) -> None:
        super().__init__(stabilizer)
        self._read: Tensor | None = None

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Install the hooks."""
        handles = super().register(module)
        handles.append(module.register_forward_pre_hook(self._send_ones))
        return handles

    def _send_ones(
        self, module: nn.Module, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        if not module.training or self.origin(inputs[0]).norm is None:
            return None
        self._read = inputs[0]
        return (torch.ones_like(inputs[0]),)

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output; with a folded BatchNorm in front, as values * mask."""
        if self._read is not None:
            read, mask, self._read = self._read, output, None
            origin = self.origin(read)
            output = read * mask
            if self.tape and origin.norm is not None:
                norm = origin.norm.after(lambda values: _masked(values, mask))
                self.tape.mark(output, Origin(norm=norm))
        if output is not inputs[0]:
            _mark_nonnegative(output)
        return output


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    product = values * mask
    _mark_nonnegative(product)
    return product


def _mark_nonnegative(product: Tensor) -> None:
    if product.grad_fn is not None and product.grad_fn.name().startswith(("Mul", "NativeDropout")):
        cast(dict[str, bool], product.grad_fn.metadata)[NONNEGATIVE_FACTOR] = True


class Boundary(LiveHook):
    """The model as a whole: coefficients inside, relevance at its input and output.

    Args:
        accepts_relevance: Turn what comes in at the output from relevance into a coefficient, as
            Zennit's attributors need it.
        multiplies_input: Return input * coefficient at the input instead of the coefficient.
    """

    def __init__(self, *, accepts_relevance: bool, multiplies_input: bool) -> None:
        super().__init__()
        self._accepts_relevance = accepts_relevance
        self._multiplies_input = multiplies_input

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Install the hooks."""
        handles = super().register(module)
        handles.append(module.register_forward_pre_hook(self._mark_input))
        return handles

    def _mark_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        images, *others = inputs
        if not images.requires_grad or self.tape is None or not self._multiplies_input:
            return inputs
        values = images.detach() if self.tape.constant_pixels else images
        call = InputCall(self, values=values, output=images)
        replaced = self.relay(call, images, images)
        self.tape.mark(replaced, Origin(pixels=images))
        return (replaced, *others)

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the logits, ready to be explained."""
        if self.tape is not None:
            self.tape.forget()
            for relay_node, rectified in read_by_relu_alone(output):
                propagation = relay_node.propagation  # type: ignore[attr-defined]
                if isinstance(propagation, Call):
                    propagation.rectify(rectified)
        if not self._accepts_relevance or not output.requires_grad:
            return output
        return self.relay(OutputCall(self, values=output, output=output), output, output)


class Reading(LiveHook):
    """The layer whose relevance is wanted: keeps its output on the tape."""

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output, which nothing downstream may bypass."""
        if self.tape:
            self.tape.reading = output
            if self.origin(output).layer is None:
                self.tape.mark(output, Origin())
        return output
