"""Hooks that replace a layer's output by a relay.

Every one is a Zennit ``Hook`` and can be given to any Zennit composite; there it takes and returns
relevance, like Zennit's own. In a composite of ours it carries coefficients (see ``tape``) and
folds BatchNorm in.
"""

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn
from zennit.core import Hook, RemovableHandle, RemovableHandleList

from glioma_xai.attribution.calls import Call
from glioma_xai.attribution.layer_call import LayerCall
from glioma_xai.attribution.stabilizer import Stabilizer
from glioma_xai.attribution.tape import Origin, Tape, relay
from glioma_xai.errors import CompatibilityError


class LiveHook(Hook, ABC):
    """A hook that replaces its layer's output by a relay and leaves no backward hooks.

    Args:
        stabilizer: Guards the division by the layer's response.
    """

    emits_relevance = False

    def __init__(self, stabilizer: Stabilizer | None = None) -> None:
        super().__init__()
        self.stabilizer = stabilizer or Stabilizer()
        self.tape: Tape | None = None
        self.name = ""
        self.closed = False

    @property
    def coefficients(self) -> bool:
        """True in a composite of ours; False if relevance comes in and goes out."""
        return self.tape is not None

    def copy(self) -> Self:
        """Return a fresh hook; a composite registers one copy a layer."""
        return type(self)(self.stabilizer)

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Install the forward hook."""
        return RemovableHandleList(
            [RemovableHandle(self), module.register_forward_hook(self.replace)]
        )

    def remove(self) -> None:
        """Let every relay of this hook pass gradients on from now on."""
        self.closed = True
        super().remove()

    @abstractmethod
    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return what takes the place of the layer's output."""

    def relay(self, call: Call, output: Tensor, source: Tensor) -> Tensor:
        """Return the values of ``output``, whose relevance ``call`` sends to ``source``."""
        if self.tape is not None:
            self.tape.calls.append(call)
        return relay(call, output, source)

    def origin(self, tensor: Tensor) -> Origin:
        """Return what is known of a tensor; nothing in a composite that is not ours."""
        return self.tape.origin(tensor) if self.tape else Origin()


class WeightRule(LiveHook):
    """A rule for convolutions and linear layers."""

    def __init__(self, stabilizer: Stabilizer | None = None) -> None:
        super().__init__(stabilizer)
        self._attached: Tensor | None = None

    def register(self, module: nn.Module) -> RemovableHandleList:
        """Install the hooks."""
        handles = super().register(module)
        handles.append(module.register_forward_pre_hook(self._cut_off_pixels))
        return handles

    def _cut_off_pixels(
        self, module: nn.Module, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        """Let the layer read images as constants: no loss needs its gradient in them."""
        origin = self.origin(inputs[0])
        if not self.tape or not self.tape.constant_pixels or origin.pixels is None or origin.norm:
            return None
        self._attached = inputs[0]
        return (inputs[0].detach(),)

    def replace(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replace the layer's output by a relay that asks this rule."""
        if not output.requires_grad and self._attached is None:
            return output
        values, attached, self._attached = inputs[0], self._attached, None
        origin = self.origin(values if attached is None else attached)
        flat = not isinstance(module, nn.Linear) or values.ndim == 2
        call = LayerCall(
            self,
            module,
            values=values,
            output=output,
            norm=origin.norm if flat else None,
            pixels=origin.pixels,
            attached=attached,
        )
        if self.emits_relevance and self.coefficients and origin.pixels is None:
            raise CompatibilityError(
                f"the {type(self).__name__} rule emits relevance and fits only a layer that reads "
                f"the image: expected that of {self.name or 'its layer'}, got one that reads "
                f"another layer's output. Give it the epsilon, zplus, alphabeta or gamma rule."
            )
        replaced = self.relay(call, output, call.source)
        if self.tape and flat:
            self.tape.mark(replaced, Origin(layer=call))
        return replaced

    @abstractmethod
    def distribute(self, call: LayerCall, gradient: Tensor) -> Tensor:
        """Return the coefficient of the layer's values, or their relevance."""
