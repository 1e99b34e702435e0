"""Lightning callbacks: best checkpoint, metrics.csv, seeds by step, overlays for the logger."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from glioma_xai.errors import ConfigError
from glioma_xai.records import Batch
from glioma_xai.visualization.layers import Layers


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``, the epoch that a validation metric chooses.

    Of epochs with equal values, such as an AUC of 1, that with the lowest validation loss: the
    first of them may have all its probabilities on one side of the threshold.

    Args:
        folder: The run's ``checkpoints`` folder.
        monitor: Logged validation metric that chooses the epoch. Never a test metric.
        mode: Whether the larger or the smaller value is better.

    Raises:
        ConfigError: If ``monitor`` looks at test data.
    """

    def __init__(
        self,
        *,
        monitor: str = "validation/auc",
        mode: Literal["min", "max"] = "max",
        folder: str = "checkpoints",
    ) -> None:
        if not monitor.startswith("validation/"):
            raise ConfigError(
                f"callbacks.best.monitor: expected a metric of the validation split, found "
                f"{monitor}. Choose for example validation/auc."
            )
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,  # the epoch's validation is done by then
        )
        self.loss = math.inf  # of the epoch that is kept

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the epoch is better than the one that is kept."""
        logged = float(trainer.callback_metrics.get("validation/loss", math.inf))
        loss = math.inf if math.isnan(logged) else logged
        better = super().check_monitor_top_k(trainer, current)
        if not better and current is not None and current == self.kth_value:
            better = trainer.strategy.reduce_boolean_decision(loss < self.loss)
        if better:
            self.loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and the loss of the epoch that is kept."""
        return super().state_dict() | {"loss": self.loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run stopped."""
        super().load_state_dict(state_dict)
        self.loss = state_dict.get("loss", math.inf)


class LastCheckpoint(ModelCheckpoint):
    """Writes ``checkpoints/last.ckpt`` at the end of every epoch, to go on from.

    Lightning's own ``save_last`` writes it only in epochs that become the best. To be listed after
    :class:`BestCheckpoint`, whose state it holds.

    Args:
        folder: The run's ``checkpoints`` folder.
    """

    def __init__(self, *, folder: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )


class StepSeed(Callback):
    """Makes dropout a function of (seed, epoch, batch, process), so that a resumed run agrees.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Reseed torch."""
        key = (self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


class MetricsTable(Callback):
    """Writes ``metrics.csv``, one row an epoch, whole at any time.

    Args:
        path: The file. Rows of earlier epochs are kept when a run goes on.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, str]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read back the rows of the epochs that are done."""
        if self.path.is_file():
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        if not trainer.is_global_zero:
            return
        values = {
            name: f"{float(value):.6g}"
            for name, value in sorted(trainer.callback_metrics.items())
            if name.split("/", 1)[0] in {"train", "validation"} and not name.endswith("_step")
        }
        self.rows.append({"epoch": str(trainer.current_epoch), **values})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)


_SHORT = {
    "validation/auc": "auc",
    "validation/accuracy": "accuracy",
    "validation/exchanged_accuracy": "exchanged",
    "validation/absolute_relevance_mass": "in tumour",
}


class ProgressBar(RichProgressBar):
    """Rich progress bar that shows epoch, both loss parts and validation scores."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The newest losses and the newest validation scores, under short names."""
        losses = getattr(pl_module, "shown", {})
        shown: dict[str, int | str | float | dict[str, float]] = {
            name.removeprefix("loss_"): f"{value:.3f}" for name, value in losses.items()
        }
        for name, short in _SHORT.items():
            if name in trainer.callback_metrics:
                shown[short] = f"{float(trainer.callback_metrics[name]):.3f}"
        return shown


@dataclass(frozen=True)
class Panel:
    """A case as it looks after an epoch.

    Args:
        figure: Anatomy and relevance beside each other.
        layers: The same slice for viewers that switch masks on and off.
    """

    figure: Figure
    layers: Layers


class RelevancePanels(Callback):
    """Overlays of a fixed set of validation cases, each epoch, to the logger and the run folder.

    Args:
        draw: Turns the module into one panel a case, called with the module after validation.
        folder: Where the newest picture of each case is kept.
    """

    def __init__(self, draw: Callable[[LightningModule], dict[str, Panel]], folder: Path) -> None:
        self.draw = draw
        self.folder = folder

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, save and log."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        panels = self.draw(pl_module)
        files = [self.folder / f"{case}.png" for case in panels]
        for file, panel in zip(files, panels.values(), strict=True):
            panel.figure.savefig(file, dpi=80)
            panel.figure.clear()
        for logger in trainer.loggers if panels else ():
            if isinstance(logger, WandbLogger):
                names, layers = list(panels), [panel.layers for panel in panels.values()]
                logger.log_image("panels/validation", [str(f) for f in files], caption=names)
                logger.log_image(
                    "layers/validation",
                    [layer.anatomy for layer in layers],
                    caption=names,
                    masks=[_masks(layer) for layer in layers],
                )


def _masks(layers: Layers) -> dict[str, dict[str, object]]:
    """Masks as W&B takes them."""
    return {
        name: {"mask_data": mask, "class_labels": dict(layers.words[name])}
        for name, mask in layers.masks.items()
    }
