"""How a batch is guided: which relevance, at which input, for which samples and steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glioma_xai.attribution import LiveComposite, Target, build_composite, compute_relevance
from glioma_xai.errors import ConfigError
from glioma_xai.losses import GuidanceLoss, probes
from glioma_xai.training.perturbation import Perturbation

ProbeName = Literal["image", "scaled", "mixed", "noise"]
WarmStart = Literal["exchange", "masked", "plain"]
SamplesOf = Literal["all", "guided"]
_INPUT = "input"  # in a list of layers
PROBES: Mapping[str, probes.Probe] = {
    "image": probes.image,
    "scaled": probes.scaled,
    "mixed": probes.mixed,
    "noise": probes.noise,
}


@dataclass(frozen=True)
class Attribution:
    """A composite by name with its options, and the output that is explained.

    Args:
        composite: Name in ``glioma_xai.attribution.COMPOSITES``.
        target: Output that is explained: label, contrastive, predicted, random, all, ...
        layer: Named layer at which relevance is guided, or several, of which ``input`` may be one;
            each costs a pass. None for the input.
        options: Options of the composite, such as ``epsilon``.
    """

    composite: str = "epsilon_plus"
    target: Target = "label"
    layer: str | Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    _built: dict[tuple[int, tuple[int, ...]], LiveComposite] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _read: dict[str | None, "Attribution"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def at(self, layer: str | None) -> "Attribution":
        """The same attribution, read at one layer; None for the input."""
        if layer == self.layer:
            return self
        if layer not in self._read:
            self._read[layer] = replace(self, layer=layer)
        return self._read[layer]

    @property
    def places(self) -> tuple["Attribution", ...]:
        """One attribution for each layer that is guided."""
        names = [self.layer] if self.layer is None or isinstance(self.layer, str) else self.layer
        return tuple(self.at(None if name == _INPUT else name) for name in names)

    def composite_for(self, model: nn.Module, input_shape: tuple[int, ...]) -> LiveComposite:
        """The composite for a network and an input shape, built once.

        Raises:
            CompatibilityError: If the network has a layer that the composite cannot treat.
        """
        assert self.layer is None or isinstance(self.layer, str)
        key = (id(model), input_shape)
        if key not in self._built:
            self._built[key] = build_composite(
                self.composite, model, input_shape=input_shape, layer=self.layer, **self.options
            )
        return self._built[key]

    def relevance(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        labels: Tensor | None = None,
        create_graph: bool = False,
        target: Target | None = None,
        generator: torch.Generator | None = None,
        update_statistics: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and relevance (B, C, *spatial), out of one forward pass.

        See :func:`glioma_xai.attribution.compute_relevance`; gradients are switched on.
        """
        with torch.enable_grad():
            return compute_relevance(
                model,
                images,
                self.composite_for(model, tuple(images.shape[1:])),
                labels=labels,
                target=target or self.target,
                create_graph=create_graph,
                generator=generator,
                update_statistics=update_statistics,
            )

    def measured_target(self, labels: Tensor) -> Target:
        """The target that is measured and drawn: one map an image, the same every time.

        Args:
            labels: (B,) int64; -1 where the class is unknown, which leaves the predicted class.
        """
        if bool((labels < 0).any()):
            return "predicted"
        return "label" if self.target in {"all", "random", "random_sign"} else self.target

    def measure(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and relevance (B, C, *spatial) at the input, without a graph."""
        target = self.measured_target(labels)
        logits, relevance = self.at(None).relevance(
            model, images, labels=None if target == "predicted" else labels, target=target
        )
        return logits.detach(), relevance.detach()


@dataclass(frozen=True)
class Guidance:
    """When and where relevance is guided in training.

    Args:
        loss: Function of relevance (B, C, *spatial) and lesion mask (B, 1, *spatial) to (B,); None
            switches guidance off.
        probe: Input at which relevance is read.
        perturbation: Small change of that input, see :func:`perturbation.perturbed`.
        perturbation_radius: Largest change of a pixel, in units of the normalised image.
        warm_start_epochs: First epochs, which have no guidance; 0 leaves the warm start out.
        warm_start_limit: The warm start goes on, for up to this many epochs in all, until the mean
            classification loss of an epoch is below :data:`LEARNT` of what guessing has: guidance
            keeps a network that has learnt nothing from learning.
        warm_start: What the images have for a background then: another patient's (exchange),
            nothing (masked), or their own (plain).
        warm_start_on: ``all`` trains on every image, those without a mask as they are; ``guided``
            on images with masks only, drawn where the batch has others, so that these cannot teach
            the shortcut.
        exchange_share: Share of the batches after them whose backgrounds are exchanged.
        guided_share: Share of each batch whose relevance is computed, to save time.
        guided_batch: Number of samples with masks that are drawn at each step for guidance and
            consistency, from all training samples with masks; None takes those of the batch.
        every_n_steps: Relevance is computed at every n-th step only.
        shuffled_masks: A control: the loss gets the mask of another patient of the batch. Exchanges
            and probes keep the right ones.

    Raises:
        ConfigError: If a number is out of range.
    """

    loss: GuidanceLoss | None = None
    probe: ProbeName = "image"
    perturbation: Perturbation = "none"
    perturbation_radius: float = 0.1
    warm_start_epochs: int = 0
    warm_start_limit: int = 0
    warm_start: WarmStart = "exchange"
    warm_start_on: SamplesOf = "guided"
    exchange_share: float = 0.0
    guided_share: float = 1.0
    guided_batch: int | None = None
    every_n_steps: int = 1
    shuffled_masks: bool = False

    def __post_init__(self) -> None:
        limits = {
            "probe": self.probe in PROBES,
            "perturbation": self.perturbation in ("none", "random", "worst"),
            "perturbation_radius": 0 <= self.perturbation_radius < math.inf,
            "warm_start_epochs": self.warm_start_epochs >= 0,
            "warm_start_limit": self.warm_start_limit >= 0,
            "exchange_share": 0 <= self.exchange_share <= 1,
            "warm_start": self.warm_start in ("exchange", "masked", "plain"),
            "warm_start_on": self.warm_start_on in ("all", "guided"),
            "guided_share": 0 < self.guided_share <= 1,
            "guided_batch": self.guided_batch is None or self.guided_batch >= 1,
            "every_n_steps": self.every_n_steps >= 1,
        }
        for name, fits in limits.items():
            if not fits:
                raise ConfigError(
                    f"loss.{name}: expected {_RANGES[name]}, found {getattr(self, name)}. "
                    f"Change loss.{name}."
                )

    def warm(self, epoch: int, *, learnt: bool) -> bool:
        """Whether an epoch belongs to the warm start.

        Args:
            epoch: Its number.
            learnt: Whether the classes have been learnt in an epoch before it.
        """
        waits = not learnt and epoch < self.warm_start_limit
        return self.warm_start_epochs > 0 and (epoch < self.warm_start_epochs or waits)

    @property
    def exchanges(self) -> bool:
        """Whether images get other patients' backgrounds."""
        return self.exchange_share > 0 or self._starts_with("exchange")

    @property
    def needs_masks(self) -> bool:
        """Whether images get other backgrounds, or none."""
        return self.exchanges or self._starts_with("masked")

    def _starts_with(self, warm_start: WarmStart) -> bool:
        return self.warm_start_epochs > 0 and self.warm_start == warm_start

    def guided_count(self, batch_size: int) -> int:
        """How many samples of a batch have their relevance computed, at least one."""
        if self.guided_batch is not None:
            return self.guided_batch
        return max(1, round(self.guided_share * batch_size))


LEARNT = 0.9  # share of the loss of guessing, ln(classes)

_RANGES = {
    "warm_start_limit": "a number of epochs, 0 or more",
    "probe": f"one of {', '.join(PROBES)}",
    "perturbation": "none, random or worst",
    "perturbation_radius": "a finite number, 0 or more",
    "warm_start_epochs": "a number of epochs, 0 or more",
    "exchange_share": "a share in [0, 1]",
    "warm_start": "exchange, masked or plain",
    "warm_start_on": "all or guided",
    "guided_share": "a share in (0, 1]",
    "guided_batch": "a number of samples, 1 or more, or null",
    "every_n_steps": "1 or more",
}
