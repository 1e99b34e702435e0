"""Numbers that are none stop a run and leave the step's inputs; other trouble is put into words."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glioma_xai.errors import NumericsError
from glioma_xai.records import Batch
from glioma_xai.training.guards import TrainingGuards, require_finite, require_finite_relevance

NAMES = ["a", "b"]


class Fit(pl.LightningModule):
    """One weight; the loss, or its gradient alone, stops being a number at the third step."""

    def __init__(self, *, gradient: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.gradient = gradient

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        distance = (self.weight * batch["image"]).sum()
        if batch_idx == 2 and self.gradient:
            distance = distance + torch.sqrt(0 * self.weight).sum()
        loss = distance / (0 if batch_idx == 2 and not self.gradient else 1)
        require_finite({"loss": loss, "loss_guidance": loss})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(folder: Path, module: Fit) -> None:
    samples = [{"image": torch.full((1,), float(i)), "subject_id": f"s{i}"} for i in range(4)]
    pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TrainingGuards(folder, print)],
    ).fit(module, DataLoader(samples))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (False, r"expected a finite loss, found loss=inf, loss_guidance=inf.*step_2\.pt"),
        (True, r"expected finite gradients, found others in 1 parameters, first weight.*step_2\.p"),
    ],
)
def test_the_inputs_of_a_bad_step_are_saved(tmp_path: Path, gradient: bool, message: str) -> None:
    module = Fit(gradient=gradient)
    with pytest.raises(NumericsError, match=message):
        fit(tmp_path / "faults", module)
    saved = torch.load(tmp_path / "faults" / "step_2.pt", weights_only=True)
    assert saved["batch"] == {"image": torch.tensor([[2.0]]), "subject_id": ["s2"]}
    assert (saved["step"], saved["epoch"], saved["split"]) == (2, 0, "train")
    assert torch.equal(saved["state_dict"]["weight"], module.weight)
    assert module.weight.isfinite().all()


def test_other_errors_save_nothing(tmp_path: Path) -> None:
    guards = TrainingGuards(tmp_path, print)
    guards.inputs = ("train", {"image": torch.ones(1)})  # type: ignore[typeddict-item]
    guards.on_exception(SimpleNamespace(), SimpleNamespace(), ValueError("x"))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_relevance_that_is_no_number_names_the_subjects() -> None:
    relevance = torch.ones(2, 1, 2, 2)
    batch: Batch = {"subject_id": NAMES}  # type: ignore[typeddict-item]
    require_finite_relevance(relevance, batch)
    relevance[1, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"found NaN or infinity for b\. Raise attribution"):
        require_finite_relevance(relevance, batch)


def watch(epochs: list[dict[str, float]], *, guided: bool = True) -> list[str]:
    words: list[str] = []
    guards = TrainingGuards(Path("faults"), words.append)
    for values in epochs:
        metrics = {f"validation/{name}": torch.tensor(value) for name, value in values.items()}
        metrics["train/guidance_weight"] = torch.tensor(3.0 if guided else 0.0)
        again = TrainingGuards(Path("faults"), words.append)  # as if resumed after every epoch
        again.load_state_dict(guards.state_dict())
        again.on_train_epoch_end(SimpleNamespace(callback_metrics=metrics, current_epoch=0), None)  # type: ignore[arg-type]
        guards = again
    return words


def test_a_network_that_learns_is_left_alone() -> None:
    shares = [1, 1, 1, 0.7, 0.5, 0.5]
    assert not watch(
        [
            {
                "largest_predicted_share": share,
                "relevance_magnitude": 0.1 * (epoch + 1),
                "exchanged_accuracy": 0.5 + 0.05 * epoch,
                "absolute_relevance_mass": 0.2 + 0.1 * epoch,
            }
            for epoch, share in enumerate(shares)
        ]
    )


@pytest.mark.parametrize(
    ("shares", "guided", "words"),
    [
        ([0.6, 1, 1, 1], True, "which was not so before. Guidance has taken over"),
        ([1] * 6, True, "Guidance may keep the network from learning"),
        ([1] * 6, False, "The network does not learn: change optimizer.lr"),
    ],
)
def test_one_class_for_all_is_said_once(shares: list[float], guided: bool, words: str) -> None:
    found = watch([{"largest_predicted_share": share} for share in shares], guided=guided)
    assert len(found) == 1
    assert words in found[0]


def test_relevance_that_vanishes_is_said_once() -> None:
    found = watch([{"relevance_magnitude": size} for size in (0.5, 0.1, 1e-6, 0.0)])
    assert len(found) == 1
    assert "Relevance has gone to zero" in found[0]
    assert "1e-06 on average, after 0.5" in found[0]


def test_hidden_reasons_are_said_once() -> None:
    accuracy, inside = [0.7, 0.9, 0.9, 0.7, 0.6], [0.5, 0.9, 0.92, 0.95, 0.97]
    epochs = [
        {"exchanged_accuracy": a, "absolute_relevance_mass": m}
        for a, m in zip(accuracy, inside, strict=True)
    ]
    assert not watch(epochs, guided=False)  # a warm start, or a plain run
    found = watch(epochs)
    assert len(found) == 1
    assert found[0].startswith("Possible fairwashing: from epoch 3 on behaviour falls")
    assert "falls from 0.90 to 0.70," in found[0]
