"""Which epochs are kept: hand-made fronts, runs whose scores are set, and one that is resumed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from glioma_xai.errors import ConfigError
from glioma_xai.metrics.functional.behaviour import fairwashing
from glioma_xai.training.callbacks import BestCheckpoint, LastCheckpoint
from glioma_xai.training.selection import (
    CRITERIA,
    Kept,
    ParetoCheckpoints,
    front_of,
    guided_score,
    thin_out,
)

# AUC, accuracy on exchanged backgrounds, relevance inside: learns by the tumour, then drifts to the
# marker while the picture gets better and better
DRIFTING = [
    (0.80, 0.70, 0.40),
    (0.90, 0.88, 0.60),
    (0.92, 0.90, 0.80),
    (0.95, 0.80, 0.90),
    (0.94, 0.75, 0.85),  # beaten by the one before
    (1.00, 0.55, 0.97),
]


def epochs(points: list[tuple[float, ...]]) -> list[Kept]:
    return [
        Kept(epoch=n, file=f"{n}.ckpt", scores=dict(zip(CRITERIA, point, strict=True)))
        for n, point in enumerate(points)
    ]


def numbers(front: list[Kept]) -> list[int]:
    return [kept["epoch"] for kept in front]


def test_the_front_by_hand() -> None:
    assert numbers(front_of(epochs(DRIFTING))) == [2, 3, 5]
    assert numbers(front_of(epochs([(0.5, 0.5, math.nan), (0.4, 0.4, 0.4)]))) == [1]
    assert numbers(front_of(epochs([(0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]))) == [0]


def test_a_criterion_that_is_never_defined_is_left_out() -> None:
    unmasked = [(0.5, 0.9, math.nan), (0.6, 0.8, math.nan), (0.4, 0.7, math.nan)]
    assert numbers(front_of(epochs(unmasked))) == [0, 1]
    assert numbers(thin_out(epochs(unmasked)[:2], most=1)) == [1]
    assert not front_of(epochs([(math.nan,) * 3]))


def test_the_most_crowded_goes_and_the_best_of_each_criterion_stays() -> None:
    line = [(n / 10, 1 - n / 10, 0.5) for n in (0, 1, 2, 3, 9, 10)]
    left = thin_out(epochs(line), most=4)
    assert {0, 5} <= set(numbers(left))  # the best of the first two criteria
    assert len(left) == 4
    assert numbers(thin_out(epochs(line), most=9)) == list(range(6))


class Told(pl.LightningModule):
    """Its only weight counts epochs; its validation scores are those it was told."""

    def __init__(self, history: list[tuple[float, ...]], names: tuple[str, ...]) -> None:
        super().__init__()
        self.history = history
        self.names = names
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        for name, value in zip(self.names, self.history[self.current_epoch], strict=True):
            self.log(name, value)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def train(
    folder: Path,
    *,
    until: int,
    resume: bool = False,
    history: list[tuple[float, ...]] = DRIFTING,
    names: tuple[str, ...] = CRITERIA,
    **options: object,
) -> None:
    last = folder / "last.ckpt"
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=until,
        callbacks=[
            ParetoCheckpoints(folder=str(folder), **options),  # type: ignore[arg-type]
            BestCheckpoint(folder=str(folder)),
            LastCheckpoint(folder=str(folder)),
        ],
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader([torch.zeros(1)])  # type: ignore[arg-type]
    trainer.fit(
        Told(history, names),
        loader,
        loader,
        ckpt_path=str(last) if resume else None,
        weights_only=True,
    )


def listed(folder: Path) -> dict[int, dict[str, float]]:
    front = json.loads((folder / "pareto" / "pareto.json").read_text())["front"]
    return {kept["epoch"]: kept["scores"] for kept in front}


def test_a_run_keeps_the_weights_of_its_front_and_no_others(tmp_path: Path) -> None:
    train(tmp_path, until=6)
    assert list(listed(tmp_path)) == [2, 3, 5]
    assert listed(tmp_path)[2] == pytest.approx(dict(zip(CRITERIA, DRIFTING[2], strict=True)))
    files = {path.stem for path in (tmp_path / "pareto").glob("*.ckpt")}
    assert files == {"2", "3", "5"}
    checkpoint = torch.load(tmp_path / "pareto" / "2.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].tolist() == [3.0]  # after the third epoch's step
    assert checkpoint["epoch"] == 2
    assert "optimizer_states" not in checkpoint


def test_a_resumed_run_ends_with_the_same_front(tmp_path: Path) -> None:
    train(tmp_path / "whole", until=6)
    train(tmp_path / "cut", until=3)
    stray = tmp_path / "cut" / "pareto" / "4.ckpt"  # of an epoch whose last.ckpt was not written
    torch.save({}, stray)
    train(tmp_path / "cut", until=6, resume=True)
    assert listed(tmp_path / "cut") == listed(tmp_path / "whole")
    assert not stray.exists()


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [([0.9, 0.7, 0.5, 0.1, 0.2], 3), ([0.9, math.nan, 0.2, 0.3, 0.2], 2), ([0.5] * 5, 1)],
)
@pytest.mark.parametrize("cut", [0, 2, 4])
def test_of_epochs_with_equal_scores_the_lowest_loss_decides(
    tmp_path: Path, losses: list[float], epoch: int, cut: int
) -> None:
    history = list(zip([0.8, 1.0, 1.0, 1.0, 1.0], losses, strict=True))
    names = ("validation/auc", "validation/loss")
    told: dict[str, Any] = {"history": history, "names": names, "criteria": names[:1]}
    if cut:
        train(tmp_path, until=cut, **told)
    train(tmp_path, until=5, resume=cut > 0, **told)
    checkpoint = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["weight"].tolist() == [epoch + 1.0]


def test_no_more_than_asked_for_are_kept(tmp_path: Path) -> None:
    train(tmp_path, until=6, most=2)
    assert len(listed(tmp_path)) == len(list((tmp_path / "pareto").glob("*.ckpt"))) == 2


def test_a_criterion_that_is_not_measured_is_left_out(tmp_path: Path) -> None:
    train(tmp_path, until=6, criteria=["validation/auc", "validation/nothing"])
    assert list(listed(tmp_path)) == [5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criteria": ["test/auc"]}, "expected metrics of the validation split, found test/auc"),
        ({"criteria": []}, "found none"),
        ({"most": 0}, "expected 1 or more, found 0"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParetoCheckpoints(**options)  # type: ignore[arg-type]


def test_what_a_criterion_chooses_on_a_run_that_drifts() -> None:
    def best(score: object) -> int:
        return max(range(len(DRIFTING)), key=score)  # type: ignore[arg-type]

    assert best(lambda n: DRIFTING[n][0]) == 5  # validation AUC: the marker is there too
    # validation loss + guidance loss: both fall to the end
    assert best(lambda n: -((1 - DRIFTING[n][0]) + 3 * (1 - DRIFTING[n][2]))) == 5
    assert best(lambda n: DRIFTING[n][1]) == 2
    assert best(lambda n: guided(*DRIFTING[n][1:])) == 2


def guided(balanced_accuracy: float, inside: float) -> float:
    """The score of two classes."""
    scores = {"exchanged_informedness": 2 * balanced_accuracy - 1}
    return guided_score({**scores, "absolute_relevance_mass": inside})


def test_a_network_that_guesses_scores_nothing_whatever_it_shows() -> None:
    assert guided(0.5, 0.97) == guided(0.4, 0.97) == 0
    assert guided(0.77, 0.48) > guided(0.51, 0.96)  # accuracy times relevance has it the other way
    assert guided(0.9, 0.8) == pytest.approx(0.8)
    assert guided(1.0, math.nan) == 1
    assert math.isnan(guided(math.nan, 0.9))


@pytest.mark.parametrize(
    ("accuracy", "exchanged", "inside", "flag"),
    [
        (1.00, 0.50, 0.97, True),  # gamed from the first epoch on: nothing ever falls
        (1.00, 0.50, 0.20, False),  # a plain network: its relevance says so
        (0.90, 0.89, 0.95, False),
        (0.90, 0.80, 0.95, False),  # within what noise does
        (math.nan, 0.5, 0.95, False),
        (1.00, 0.50, math.nan, False),
    ],
)
def test_fairwashing(accuracy: float, exchanged: float, inside: float, flag: bool) -> None:
    assert fairwashing(accuracy, exchanged, inside) is flag
