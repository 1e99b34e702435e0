"""Guard rails: numbers that are none stop a run, and what looks wrong is said in words."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from glioma_xai.errors import NumericsError
from glioma_xai.metrics.functional.behaviour import find_drift
from glioma_xai.records import Batch

_COLLAPSED_EPOCHS = 2  # calling all images one class, after it had told them apart
_PLATEAU_EPOCHS = 5  # the same from the start, as networks often begin
_VANISHED = 1e-4  # of the largest relevance so far
_WATCHED = (
    "exchanged_accuracy",
    "absolute_relevance_mass",
    "largest_predicted_share",
    "relevance_magnitude",
)


class TrainingGuards(Callback):
    """Saves the inputs of a step that went wrong, and warns of what a loss curve does not show.

    Warnings, each said once: all validation images called one class, relevance gone to zero,
    relevance that stays in the tumour while accuracy on exchanged backgrounds falls, or is far
    below that on the images as they are once the background is one of another class.

    Args:
        folder: For ``step_<number>.pt``, read back with ``torch.load(..., weights_only=True)``.
        say: Called with each warning.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.history: dict[str, list[float]] = {name: [] for name in _WATCHED}
        self.one_class = 0
        self.said: list[str] = []
        self.inputs: tuple[str, Batch] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know of earlier epochs."""
        return {"history": self.history, "one_class": self.one_class, "said": self.said}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epochs of the run that is resumed."""
        self.history, self.one_class = dict(state_dict["history"]), int(state_dict["one_class"])
        self.said = list(state_dict["said"])

    # ---- numbers that are none ------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the inputs until the step has gone well."""
        self.inputs = ("train", batch)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the inputs until the step has gone well."""
        self.inputs = ("validation", batch)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Stop before a gradient that is not finite spoils the weights; all processes see it.

        Raises:
            NumericsError: With the parameters' names.
        """
        if trainer.precision == "16-mixed":  # its loss scaling skips such steps itself
            return
        gradients = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        if all(torch.stack([g.isfinite().all() for g in gradients.values()]).tolist()):
            return
        names = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        raise NumericsError(
            f"training: expected finite gradients, found others in {len(names)} parameters, first "
            f"{names[0]}. Lower loss.guidance_weight, or raise attribution.epsilon.",
            everywhere=True,
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save what the step was given, and let the message name the file."""
        if not isinstance(exception, NumericsError) or self.inputs is None:
            return
        split, batch = self.inputs
        rank = f"_process_{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"step_{trainer.global_step}{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "error": str(exception),
            "split": split,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "batch": {key: _on_cpu(value) for key, value in batch.items()},
            "state_dict": {key: v.cpu() for key, v in pl_module.state_dict().items()},
        }
        torch.save(content, path)
        exception.args = (f"{exception} The step's inputs and weights are in {path}.",)

    # ---- words ----------------------------------------------------------------------------------

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch's validation scores."""
        values = trainer.callback_metrics
        for name in _WATCHED:
            self.history[name].append(float(values.get(f"validation/{name}", math.nan)))
        guided = float(values.get("train/guidance_weight", 0.0)) > 0
        self._watch_classes(guided=guided)
        self._watch_magnitude()
        if guided:  # nothing makes a network hide its reasons before
            self._watch_drift()
        self._watch_fairwashing(values, epoch=trainer.current_epoch)

    def _watch_classes(self, *, guided: bool) -> None:
        shares = self.history["largest_predicted_share"]
        self.one_class = self.one_class + 1 if shares[-1] == 1 else 0
        fell = self.one_class < len(shares)
        if self.one_class < (_COLLAPSED_EPOCHS if fell else _PLATEAU_EPOCHS):
            return
        found = f"For {self.one_class} epochs all validation images have been called the same class"
        if not guided:
            cause = "The network does not learn: change optimizer.lr, or look at the data."
        elif fell:
            cause = "Guidance has taken over: lower loss.guidance_weight."
        else:
            cause = (
                "Guidance may keep the network from learning: lower loss.guidance_weight or "
                "lengthen loss.warm_start_epochs."
            )
        self._say("one_class", f"{found}{', which was not so before' if fell else ''}. {cause}")

    def _watch_magnitude(self) -> None:
        sizes = [size for size in self.history["relevance_magnitude"] if math.isfinite(size)]
        if sizes and sizes[-1] <= _VANISHED * max(sizes):
            self._say(
                "vanished",
                f"Relevance has gone to zero: the sum of |relevance| of a validation image is "
                f"{sizes[-1]:.2g} on average, after {max(sizes):.2g}. Where it lies says nothing "
                "now. Activations may have shrunk below epsilon: set "
                "attribution.relative_epsilon=true, or lower loss.guidance_weight.",
            )

    def _watch_drift(self) -> None:
        drift = find_drift(
            self.history["exchanged_accuracy"], self.history["absolute_relevance_mass"]
        )
        if drift.epoch is not None:
            self._say(
                "drift",
                f"{drift.words} The network may hide what it decides by. Choose the epoch by "
                "callbacks.best.monitor=validation/guided_score, and read relevance on "
                "other backgrounds with loss.probe=mixed.",
            )

    def _watch_fairwashing(self, values: Mapping[str, Tensor], *, epoch: int) -> None:
        if float(values.get("validation/fairwashing", 0.0)) != 1:
            return
        accuracy, exchanged, inside = (
            float(values[f"validation/{name}"])
            for name in ("accuracy", "exchanged_other_class_accuracy", "absolute_relevance_mass")
        )
        self._say(
            "fairwashing",
            f"Possible fairwashing in epoch {epoch}: {100 * inside:.0f} % of the relevance lies in "
            f"the tumour, but validation accuracy falls from {accuracy:.2f} to {exchanged:.2f} on "
            "backgrounds of the other class. The decision is made elsewhere: begin with "
            "loss.warm_start_epochs, and read relevance on mixed backgrounds, loss.probe=mixed.",
        )

    def _say(self, kind: str, words: str) -> None:
        if kind not in self.said:
            self.said.append(kind)
            self.say(words)


def _on_cpu(value: object) -> object:
    return value.cpu() if isinstance(value, Tensor) else value


def require_finite(losses: Mapping[str, Tensor]) -> None:
    """Stop all processes of a run if the loss of one of them is not finite.

    Args:
        losses: ``loss`` and its parts, scalars.

    Raises:
        NumericsError: With the parts.
    """
    if not _everywhere(losses["loss"].isfinite()):
        parts = ", ".join(f"{name}={float(value.detach()):.4g}" for name, value in losses.items())
        raise NumericsError(
            f"training: expected a finite loss, found {parts}. Lower optimizer.lr or "
            "loss.guidance_weight, or set trainer.gradient_clip_val.",
            everywhere=True,
        )


def require_finite_relevance(relevance: Tensor, batch: Batch) -> None:
    """Stop all processes of a run if a validation image's relevance is not finite.

    Args:
        relevance: (B, C, *spatial).
        batch: The B samples, for their names.

    Raises:
        NumericsError: With the subjects.
    """
    fine = relevance.isfinite().flatten(1).all(dim=1)
    if not _everywhere(fine.all()):
        names = [n for n, good in zip(batch["subject_id"], fine.tolist(), strict=True) if not good]
        raise NumericsError(
            "validation: expected finite relevance, found NaN or infinity for "
            f"{', '.join(names[:5]) or 'samples of another process'}. Raise attribution.epsilon, "
            "or lower optimizer.lr.",
            everywhere=True,
        )


def _everywhere(fine: Tensor) -> bool:
    """Whether it holds in all processes of a run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        agreed = fine.to(torch.int32)
        torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MIN)
        return bool(agreed)
    return bool(fine)
