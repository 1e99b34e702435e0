"""The LightningModule: logits, relevance, losses, log."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glioma_xai.losses import ISNet, Term
from glioma_xai.losses.objective import Objective, ObjectiveParts
from glioma_xai.losses.terms import loss_of_guessing
from glioma_xai.records import Batch
from glioma_xai.training.consistency import consistency_term, random_state
from glioma_xai.training.guards import require_finite, require_finite_relevance
from glioma_xai.training.guidance import LEARNT, Attribution, Guidance
from glioma_xai.training.sampling import Key, MaskedSamples, Supply
from glioma_xai.training.terms import (
    drawn_totals,
    guidance_term,
    guidance_values,
    guided_pass,
    share_of_all,
    shares_a_pass,
)
from glioma_xai.training.validation import LOGGED, ValidationScores, on_backgrounds


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
        bank: The training samples with masks, for settings that draw from them.
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
        bank: MaskedSamples | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.attribution = attribution
        self.guidance = guidance
        self.objective = objective
        self.build_optimizer = optimizer
        self.build_scheduler = scheduler
        self.seed = seed
        self.supply = Supply(guidance, bank, seed=seed)
        self.ranged = guidance.loss if isinstance(guidance.loss, ISNet) else None  # has a buffer
        self.learnt = False  # whether the classification loss has fallen below that of guessing
        self.classes = 2
        self.label_counts = torch.zeros(0, dtype=torch.int64)  # of the epoch's images so far
        self.shown: dict[str, float] = {}  # newest losses, for the progress bar
        self.validation_scores = ValidationScores()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        return self.model(images)  # type: ignore[no-any-return]

    @property
    def guides(self) -> bool:
        """Whether relevance is guided at all."""
        return self.guidance.loss is not None and self.objective.guidance_weight > 0

    @property
    def compares(self) -> bool:
        """Whether logits are compared under exchanged backgrounds."""
        return self.objective.consistency_weight > 0

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, SGD, ... as configured, for the network and for weights that are learnt."""
        learnt = [*self.model.parameters(), *self.objective.parameters()]
        optimizer = self.build_optimizer(learnt)
        if self.build_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.build_scheduler(optimizer)}

    # ---- training -------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse a run that needs masks and has none, before its first epoch."""
        needed = self.guides or self.compares or self.guidance.needs_masks
        if self.supply.bank is not None and needed:
            self.supply.require_masks()

    def on_train_epoch_start(self) -> None:
        """Measure what a loss must know of the unguided network, before the first guided epoch."""
        self.label_counts = torch.zeros(0, dtype=torch.int64)
        if not self._warm():
            self.calibrate()

    def calibrate(self) -> None:
        """Measure the natural range of relevance, if a loss asks for it and has none."""
        if self.ranged is None or not self.ranged.needs_calibration:
            return
        totals = drawn_totals(self.model, self.attribution, self.supply, device=self.device)
        self.ranged.calibrate(totals)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One loss out of labels and relevance."""
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        step = min(self.global_step, steps - 1)
        loaded = batch["index"]
        batch = self.supply.seen(
            batch, epoch=self.current_epoch, batch_idx=batch_idx, warm=self._warm()
        )
        guide = not self._warm() and batch_idx % self.guidance.every_n_steps == 0
        share = share_of_all(torch.tensor(float(len(batch["label"])), device=self.device))
        parts = self.losses(
            batch, step=step, total_steps=steps, guide=guide, share=share, loaded=loaded
        )
        seen = torch.bincount(batch["label"].cpu(), minlength=self.classes)
        self.label_counts = seen + self.label_counts if len(self.label_counts) else seen
        logged = {
            "loss": parts.total,
            "loss_classification": parts.classification,
            "loss_guidance": parts.guidance,
        }
        if self.compares:
            logged["loss_consistency"] = parts.consistency
        require_finite(logged)
        counts = dict.fromkeys(logged, float(share))
        if parts.guided_count:  # an epoch's mean is over the guided samples
            counts["loss_guidance"] = parts.guided_count
        else:
            del logged["loss_guidance"]
        for name, value in logged.items():
            self.log(
                f"train/{name}",
                value.detach(),
                on_step=False,
                on_epoch=True,
                batch_size=round(counts[name] * self.trainer.world_size),  # of all processes
                sync_dist=True,
            )
        # not the 0 of a step between two that are guided, nor of one without a mask
        if (guide or self._warm()) and parts.guided_count != 0:
            self.log("train/guidance_weight", parts.guidance_weight)
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.shown = {name: float(value.detach()) for name, value in logged.items()}
        return parts.total

    def losses(
        self,
        batch: Batch,
        *,
        step: int,
        total_steps: int,
        guide: bool = True,
        share: Tensor | None = None,
        loaded: Tensor | None = None,
    ) -> ObjectiveParts:
        """The objective of a batch and its parts.

        Args:
            batch: B samples.
            step: Number of optimizer steps done.
            total_steps: Number of steps in all.
            guide: False leaves relevance out, as in the warm start.
            share: What the sum of the classification losses is divided by; None takes B.
            loaded: Indices of the batch as it was loaded, by which samples are drawn; None takes
                those of the batch.
        """
        guides = guide and self.guides and self.objective.weight_at(step, total_steps) > 0
        samples = batch
        key: Key = (self.seed, self.current_epoch)
        if self.guidance.guided_batch is not None and (guides or self.compares):
            loaded = batch["index"] if loaded is None else loaded
            samples, key = self.supply.guided(loaded, epoch=self.current_epoch)
        guidance: Term | None = None
        state = random_state(self.device) if self.compares else None
        known: Tensor | None = None
        if guides and samples is batch and shares_a_pass(self.attribution, self.guidance, batch):
            logits, guidance = guided_pass(
                self.model, self.attribution, self.guidance, batch, key=key
            )
        else:
            logits = self.model(batch["image"])
            known = logits if samples is batch else None
            if guides:
                guidance = guidance_term(
                    self.model, self.attribution, self.guidance, samples, key=key
                )
        consistency: Term | None = None
        if self.compares:
            consistency = consistency_term(self.model, samples, key=key, logits=known, state=state)
        self.classes = logits.shape[1]
        parts: ObjectiveParts = self.objective(
            logits,
            batch["label"],
            step=step,
            total_steps=total_steps,
            guidance=guidance,
            consistency=consistency,
            sample_count=share,
            parameters=list(self.model.parameters()),
        )
        return parts

    def _warm(self) -> bool:
        return self.guidance.warm(self.current_epoch, learnt=self.learnt)

    def on_train_epoch_end(self) -> None:
        """See whether the network has learnt anything yet."""
        loss = float(self.trainer.callback_metrics["train/loss_classification"])
        counts = share_of_all(self.label_counts.float().to(self.device))
        guessing = loss_of_guessing(counts, class_weights=self.objective.class_weights)
        self.learnt = self.learnt or loss < LEARNT * float(guessing)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Whether the warm start may end is part of a run's state."""
        checkpoint["learnt"] = self.learnt

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        self.learnt = bool(checkpoint.get("learnt", True))

    # ---- validation -----------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather logits, logits under exchanged backgrounds, and relevance."""
        logits, relevance = self.attribution.measure(self.model, batch["image"], batch["label"])
        require_finite_relevance(relevance, batch)
        guidance = None
        if self._measures_guidance():
            guidance = guidance_values(self.guidance, relevance, batch["lesion_mask"])
        self.validation_scores.update(
            batch,
            logits=logits,
            exchanged=on_backgrounds(self.model, batch, seed=self.seed),
            of_other_class=on_backgrounds(self.model, batch, seed=self.seed, other_class=True),
            relevance=relevance,
            guidance=guidance,
        )

    def _measures_guidance(self) -> bool:
        """Guidance is measured on the maps that validation has: those at the input."""
        waits = self.ranged is not None and self.ranged.needs_calibration
        return self.guidance.loss is not None and self.attribution.layer is None and not waits

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the epoch."""
        values = dict(self.validation_scores.compute())
        if "loss_guidance" in values:
            values["loss_total"] = self.objective.weigh(values["loss"], values["loss_guidance"])
        for name, value in values.items():
            if name in LOGGED:
                self.log(f"validation/{name}", value, sync_dist=True)
