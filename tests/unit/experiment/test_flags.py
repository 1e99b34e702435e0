"""What the epochs of a run say about its relevance: in words, in the summary, in the log."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from glioma_xai.experiment.behaviour import flagged_epochs
from glioma_xai.experiment.report import _training_notes
from glioma_xai.training.guards import TrainingGuards


def test_epochs_with_the_flag_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert flagged_epochs(path) == []
    path.write_text("epoch,validation/auc\n0,0.9\n")
    assert flagged_epochs(path) == []
    path.write_text("epoch,validation/fairwashing\n0,0\n1,1\n2,\n3,1\n")
    assert flagged_epochs(path) == [1, 3]


def test_the_report_says_when() -> None:
    steady = {"lost": 0.0, "words": "Behaviour holds to the last epoch."}
    assert _training_notes({"drift": steady, "fairwashing_epochs": []}) == []
    (note,) = _training_notes({"drift": None, "fairwashing_epochs": [1, 3]})
    assert "Possible fairwashing in 2 epochs, the last of them 3" in note
    drifted = {"lost": 0.3, "words": "Possible fairwashing: from epoch 5 on ..."}
    assert len(_training_notes({"drift": drifted, "fairwashing_epochs": [6]})) == 2


@pytest.mark.parametrize(("flag", "words"), [(1.0, 1), (0.0, 0)])
def test_a_gamed_epoch_is_said_in_words_once(tmp_path: Path, flag: float, words: int) -> None:
    said: list[str] = []
    guards = TrainingGuards(tmp_path, said.append)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    scores = {
        "fairwashing": flag,
        "accuracy": 1.0,
        "exchanged_accuracy": 0.75,
        "exchanged_other_class_accuracy": 0.5,
        "absolute_relevance_mass": 0.97,
        "largest_predicted_share": 0.5,
        "relevance_magnitude": 1.0,
    }
    values = {f"validation/{name}": torch.tensor(value) for name, value in scores.items()}
    trainer.callback_metrics.update(values)
    for _ in range(2):
        guards.on_train_epoch_end(trainer, pl.LightningModule())
    assert len(said) == words
    if words:
        assert "Possible fairwashing in epoch 0: 97 % of the relevance" in said[0]
        assert "falls from 1.00 to 0.50" in said[0]
