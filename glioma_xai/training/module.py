"""The LightningModule: logits, relevance, losses, log."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glioma_xai.errors import NumericsError
from glioma_xai.losses import guided_samples
from glioma_xai.losses.backgrounds import draw_donors, exchange_background
from glioma_xai.losses.consistency import consistency
from glioma_xai.losses.objective import Objective, ObjectiveParts
from glioma_xai.metrics.classification import ClassificationScores
from glioma_xai.metrics.relevance import RelevanceScores
from glioma_xai.records import Batch
from glioma_xai.training.guidance import PROBES, Attribution, Guidance, still_statistics

_VALIDATION_KEY = 2**31 - 1  # donors of the validation images, the same every epoch


class GuidedClassifier(LightningModule):
    """A classifier that learns from labels and from where its own relevance lies.

    Args:
        model: Maps images (B, C, *spatial) to logits (B, classes).
        attribution: Relevance that is guided in training and measured in validation.
        guidance: When and where it is guided.
        objective: Weighs classification, guidance and consistency.
        optimizer: Takes the parameters.
        scheduler: Takes the optimizer; stepped once an epoch.
        seed: With epoch and sample index the key of all randomness of probes and exchanges.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        attribution: Attribution,
        guidance: Guidance,
        objective: Objective,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.attribution = attribution
        self.guidance = guidance
        self.objective = objective
        self.build_optimizer = optimizer
        self.build_scheduler = scheduler
        self.seed = seed
        self.shown: dict[str, float] = {}  # newest losses, for the progress bar
        self.scores = ClassificationScores()
        self.exchanged_scores = ClassificationScores()
        self.relevance_scores = RelevanceScores()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        return self.model(images)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, SGD, ... as configured."""
        optimizer = self.build_optimizer(self.model.parameters())
        if self.build_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.build_scheduler(optimizer)}

    # ---- training -------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss out of labels and relevance."""
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        step = min(self.global_step, steps - 1)
        batch = self._with_exchanged_backgrounds(batch, batch_idx)
        guide = not self._warm() and batch_idx % self.guidance.every_n_steps == 0
        parts = self.losses(batch, step=step, total_steps=steps, guide=guide)
        logged = {
            "loss": parts.total,
            "loss_classification": parts.classification,
            "loss_guidance": parts.guidance,
        }
        if self.objective.consistency_weight > 0:
            logged["loss_consistency"] = parts.consistency
        _require_finite(logged)
        if not guide or self.guidance.loss is None:
            del logged["loss_guidance"]  # an epoch's mean is over the steps that computed it
        for name, value in logged.items():
            self.log(
                f"train/{name}",
                value.detach(),
                on_step=False,
                on_epoch=True,
                batch_size=len(batch["label"]),
                sync_dist=True,
            )
        self.log("train/guidance_weight", parts.guidance_weight if guide else 0.0)
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.shown = {name: float(value.detach()) for name, value in logged.items()}
        return parts.total

    def losses(
        self, batch: Batch, *, step: int, total_steps: int, guide: bool = True
    ) -> ObjectiveParts:
        """The objective of a batch and its parts.

        Args:
            batch: B samples.
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
            guide: False leaves relevance out, as in the warm start.
        """
        guided = guided_samples(batch["lesion_mask"])
        guides = (
            guide
            and self.guidance.loss is not None
            and self.objective.weight_at(step, total_steps) > 0
            and bool(guided.any())
        )
        if guides:
            logits, chosen, guidance = self._guided_pass(batch, guided)
        else:
            logits, chosen, guidance = self.model(batch["image"]), guided, None
        parts: ObjectiveParts = self.objective(
            logits,
            batch["label"],
            step=step,
            total_steps=total_steps,
            guided=chosen if self.objective.consistency_weight <= 0 else guided,
            guidance=guidance,
            consistency=self._consistency(batch, logits),
        )
        return parts

    def _warm(self) -> bool:
        return self.current_epoch < self.guidance.warm_start_epochs

    def _with_exchanged_backgrounds(self, batch: Batch, batch_idx: int) -> Batch:
        """In the warm start, and in a share of the batches after it, with other backgrounds."""
        share = 1.0 if self._warm() else self.guidance.exchange_share
        if int(batch_idx * share) == int((batch_idx + 1) * share):
            return batch
        return {**batch, "image": exchanged(batch, key=(self.seed, self.current_epoch))}

    def _guided_pass(self, batch: Batch, guided: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, classes), which samples are guided (B,), and their guidance loss (B,).

        One forward pass serves both, unless relevance is read at other inputs than the images, of
        part of the batch, or under autocast.
        """
        images, labels, mask = batch["image"], batch["label"], batch["lesion_mask"]
        relevance_of = partial(
            self.attribution.relevance,
            self.model,
            create_graph=True,
            generator=torch.Generator().manual_seed(self._draw(batch)),
        )
        if (
            self.guidance.probe == "image"
            and self.guidance.guided_share >= 1
            and not torch.is_autocast_enabled(images.device.type)
        ):
            logits, relevance = relevance_of(images, labels=labels)
            return logits, guided, self._guidance_of(relevance, mask)
        logits = self.model(images)
        probe = PROBES[self.guidance.probe](
            images,
            mask,
            index=batch["index"],
            key=(self.seed, self.current_epoch),
            patient_id=batch["patient_id"],
        )
        chosen = guided.nonzero()[:, 0][: self.guidance.guided_count(len(guided))]
        _, relevance = relevance_of(probe[chosen], labels=labels[chosen], update_statistics=False)
        values = relevance.new_zeros(len(guided))
        values[chosen] = self._guidance_of(relevance, mask[chosen])
        return logits, torch.zeros_like(guided).index_fill(0, chosen, True), values

    def _guidance_of(self, relevance: Tensor, lesion_mask: Tensor) -> Tensor:
        """Guidance loss (B,); with target ``all`` the mean over the classes' maps."""
        assert self.guidance.loss is not None
        if relevance.ndim == lesion_mask.ndim:
            return self.guidance.loss(relevance, lesion_mask)
        maps = [self.guidance.loss(r, lesion_mask) for r in relevance.unbind(dim=1)]
        return torch.stack(maps).mean(dim=0)

    def _consistency(self, batch: Batch, logits: Tensor) -> Tensor | None:
        if self.objective.consistency_weight <= 0:
            return None
        with still_statistics(self.model):
            other = self.model(exchanged(batch, key=(self.seed, self.current_epoch)))
        return consistency(logits, other, batch["lesion_mask"])

    def _draw(self, batch: Batch) -> int:
        first = int(batch["index"][0])
        return (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + first

    # ---- validation -----------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather logits, logits under exchanged backgrounds, and relevance."""
        logits, relevance = self.attribution.measure(self.model, batch["image"], batch["label"])
        keys = (batch["label"], batch["patient_id"], batch["index"])
        self.scores.update(logits, *keys)
        if self.attribution.layer is None:
            self.relevance_scores.update(
                relevance, batch["lesion_mask"], batch["brain_mask"], index=batch["index"]
            )
        with torch.no_grad():
            other = self.model(exchanged(batch, key=(self.seed, _VALIDATION_KEY)))
        self.exchanged_scores.update(other, *keys)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the epoch."""
        values = dict(self.scores.compute())
        values["loss"] = values["cross_entropy"]
        values |= {f"exchanged_{k}": v for k, v in self.exchanged_scores.compute().items()}
        if self.attribution.layer is None:
            values |= {k: float(v) for k, v in self.relevance_scores.compute().items()}
        for metric in (self.scores, self.exchanged_scores, self.relevance_scores):
            metric.reset()
        for name, value in values.items():
            if name in _LOGGED:
                self.log(f"validation/{name}", value, sync_dist=True)


_LOGGED = {
    "loss",
    *(f"{prefix}{score}" for prefix in ("", "patient/") for score in ("accuracy", "auc")),
    "balanced_accuracy",
    "exchanged_accuracy",
    "exchanged_auc",
    "exchanged_patient/accuracy",
    "exchanged_patient/auc",
    "relevance_mass_accuracy",
    "absolute_relevance_mass",
    "focus_score",
    "pointing_game",
}


def exchanged(batch: Batch, *, key: tuple[int, ...]) -> Tensor:
    """Images whose backgrounds come from other patients of the batch, (B, C, *spatial)."""
    donors = draw_donors(
        batch["lesion_mask"], index=batch["index"], key=key, patient_id=batch["patient_id"]
    )
    return exchange_background(batch["image"], batch["lesion_mask"], donors=donors)


def _require_finite(logged: dict[str, Tensor]) -> None:
    if not torch.isfinite(logged["loss"]):
        parts = ", ".join(f"{name}={float(value):.4g}" for name, value in logged.items())
        raise NumericsError(
            f"training: expected a finite loss, found {parts}. Lower optimizer.lr or "
            "loss.guidance_weight, or set trainer.gradient_clip_val."
        )
