"""What an epoch is chosen by: scores of validation data, and the epochs that none of them beats."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from glioma_xai.errors import ConfigError
from glioma_xai.visualization.pooling import pareto_front

CRITERIA = (
    "validation/auc",
    "validation/exchanged_accuracy",
    "validation/absolute_relevance_mass",
)


def guided_score(scores: Mapping[str, float]) -> float:
    r"""Score that chooses a guided network's epoch: right, and for the right reason.

    .. math:: \sqrt{\max(J, 0) \cdot \text{relevance in the tumour}}

    with J the informedness on exchanged backgrounds. Either alone can be had without the other:
    relevance in the tumour while something else decides, and a decision by the tumour, as in the
    warm start, that relevance does not show. A network that guesses, or always names the class that
    is frequent, scores 0 whatever its relevance shows.

    Args:
        scores: ``exchanged_informedness`` and, where it is measured, ``absolute_relevance_mass``.

    Returns:
        In [0, 1]; max(J, 0) alone where relevance is not measured; NaN if a class is absent.
    """
    inside = float(scores.get("absolute_relevance_mass", math.nan))
    informedness = float(scores["exchanged_informedness"])
    right = informedness if math.isnan(informedness) else max(informedness, 0.0)
    return right if math.isnan(inside) else math.sqrt(right * inside)


class Kept(TypedDict):
    """An epoch of the front."""

    epoch: int
    file: str
    scores: dict[str, float]


class ParetoCheckpoints(Callback):
    """Keeps the weights of the epochs that no other epoch beats in all criteria at once.

    They lie in ``checkpoints/pareto/<epoch>.ckpt`` (weights only), listed in ``pareto.json``. If
    there are more than ``most``, those go first whose neighbours along the front are nearest; the
    best epoch of each criterion stays.

    Args:
        folder: The run's ``checkpoints`` folder.
        criteria: Logged validation metrics, higher is better. One that a run does not measure, or
            that is NaN in all epochs, is left out.
        most: Number of epochs that are kept.

    Raises:
        ConfigError: If a criterion looks at test data, or fewer than 1 epoch is kept.
    """

    def __init__(
        self, *, criteria: Sequence[str] = CRITERIA, most: int = 5, folder: str = "checkpoints"
    ) -> None:
        foreign = [name for name in criteria if not name.startswith("validation/")]
        if foreign or not criteria:
            raise ConfigError(
                f"callbacks.pareto.criteria: expected metrics of the validation split, found "
                f"{', '.join(foreign) or 'none'}. Choose for example validation/auc."
            )
        if most < 1:
            raise ConfigError(
                f"callbacks.pareto.most: expected 1 or more, found {most}. Set callbacks.pareto="
                "null to keep none."
            )
        self.criteria = list(criteria)
        self.most = most
        self.folder = Path(folder) / "pareto"
        self.front: list[Kept] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the epochs that are done; what a run that was cut off left beyond is redone."""
        path = self.folder / "pareto.json"
        if path.is_file():
            front: list[Kept] = json.loads(path.read_text())["front"]
            self._keep([kept for kept in front if kept["epoch"] < trainer.current_epoch], trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch if no other beats it, and delete those that it beats."""
        logged = trainer.callback_metrics
        scores = {name: float(logged[name]) for name in self.criteria if name in logged}
        epoch = trainer.current_epoch
        this = Kept(epoch=epoch, file=f"{epoch}.ckpt", scores=scores)
        front = thin_out(front_of([*self.front, this]), most=self.most)
        if this in front and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            weights = {name: value.cpu() for name, value in pl_module.state_dict().items()}
            part = self.folder / f"{this['file']}.part"
            try:
                torch.save({"state_dict": weights, "epoch": epoch, "scores": scores}, part)
                part.replace(self.folder / this["file"])
            finally:
                part.unlink(missing_ok=True)
        self._keep(front, trainer)

    def _keep(self, front: list[Kept], trainer: Trainer) -> None:
        """List these epochs, and delete all others' files."""
        self.front = front
        if not trainer.is_global_zero or not self.folder.is_dir():
            return
        part = self.folder / "pareto.json.part"
        part.write_text(json.dumps({"criteria": self.criteria, "front": front}, indent=2))
        part.replace(self.folder / "pareto.json")
        listed = {kept["file"] for kept in front}
        for file in self.folder.glob("*.ckpt"):
            if file.name not in listed:
                file.unlink()


def front_of(epochs: Sequence[Kept]) -> list[Kept]:
    """Those that no other beats: at least as good in every criterion and better in one.

    Of epochs with equal scores the first stays. A criterion that is NaN in all of them, such as
    relevance in the tumour without masks, is left out; an epoch with another NaN is never in the
    front.
    """
    measured = {n for kept in epochs for n, value in kept["scores"].items() if value == value}
    first: dict[tuple[float, ...], Kept] = {}
    for kept in epochs if measured else ():
        first.setdefault(tuple(v for n, v in kept["scores"].items() if n in measured), kept)
    points = {str(kept["epoch"]): list(scores) for scores, kept in first.items()}
    names = pareto_front(points)
    return [kept for kept in first.values() if str(kept["epoch"]) in names]


def thin_out(front: Sequence[Kept], *, most: int) -> list[Kept]:
    """Drop the most crowded epochs until so many are left.

    An epoch is crowded if the epochs next to it in each criterion are near, measured in the range
    of the criterion over the front; the best of a criterion is never crowded, and the worst has no
    room from that criterion. Of epochs that are equally crowded the earlier goes.

    Reference:
        Deb, Pratap, Agarwal and Meyarivan (2002), IEEE Transactions on Evolutionary Computation
        6(2):182-197, "crowding distance".
    """
    left = list(front)
    while len(left) > most:
        room = dict.fromkeys((kept["epoch"] for kept in left), 0.0)
        for name in (n for n, value in left[0]["scores"].items() if value == value):
            order = sorted(left, key=lambda kept, name=name: kept["scores"][name])  # type: ignore[misc]
            values = [kept["scores"][name] for kept in order]
            span = values[-1] - values[0] or 1.0
            room[order[-1]["epoch"]] = math.inf
            for place in range(1, len(order) - 1):
                room[order[place]["epoch"]] += (values[place + 1] - values[place - 1]) / span
        left.remove(min(left, key=lambda kept: (room[kept["epoch"]], kept["epoch"])))
    return left
