"""Sweeps: every job checked before the first, failures listed, only what is missing run again."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.reference.wandb_file import OfflineRun

SMALL = (
    "+experiment=smoke",
    "data.phantom.subjects=20",
    "data.slice_count=1",
    "trainer.max_epochs=1",
    "loss.warm_start_epochs=0",
    "bootstrap=20",
    "overlays=1",
)
OWN_CLASSES = '''
from pathlib import Path
from pytorch_lightning import Callback
from torch import nn

class Bomb(Callback):
    """Ends the jobs whose fuse is lit, as long as its file is there."""
    def __init__(self, lit, file):
        self.lit, self.file = lit, Path(file)
    def on_train_epoch_end(self, trainer, pl_module):
        if self.lit and self.file.exists():
            raise RuntimeError("out of memory, or so")

class Smooth(nn.Sequential):
    """A network that no rule covers."""
    def __init__(self, input_shape, classes):
        super().__init__(nn.Flatten(), nn.LazyLinear(classes), nn.GELU())
'''


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, shared_cache: Path, tmp_path: Path):
    """The entry script in this process; returns its exit code."""
    monkeypatch.setenv("GLIOMA_XAI_CACHE", str(shared_cache))
    (tmp_path / "own_classes.py").write_text(OWN_CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module("glioma_xai.train").main()
        return int(end.value.code or 0)

    return run


def test_every_problem_of_every_job_is_said_before_the_first_starts(
    train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = train(
        "-m",
        *SMALL,
        f"paths.root={tmp_path}/runs",
        "attribution.composite=zplus,epsilon_pluss",
        "attribution.gamma=null,0.5",
    )
    said = capsys.readouterr().err
    assert code == 2
    assert "expected 4 jobs without a problem, found 2 problems, and started nothing" in said
    assert "no composite is called epsilon_pluss. Did you mean epsilon_plus" in said
    assert "gamma has no effect on attribution=zplus" in said
    assert not (tmp_path / "runs").exists()


def test_a_network_that_no_rule_covers_and_a_missing_cohort_are_found_before(
    train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = train(
        "-m",
        *SMALL,
        f"paths.root={tmp_path}/runs",
        "model._target_=own_classes.Smooth,glioma_xai.models.networks.SmallCNN",
        "~model.dropout",
        "~model.batch_norm",
    )
    said = capsys.readouterr().err
    assert code == 1
    assert "job 0 (model._target_=own_classes.Smooth): " in said
    assert "GELU" in said
    assert (
        train("-m", "data=brats", "data.root=/nowhere", "seed=0,1", f"paths.root={tmp_path}") == 1
    )
    assert "every job: " in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert train("-m", *SMALL, "trainer=gpu", "seed=0,1", f"paths.root={tmp_path}/runs") == 2
        assert "every job: trainer: expected settings" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_one_job_on_many_devices_is_refused_in_a_multirun(
    train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = train("-m", *SMALL, "trainer=ddp", "seed=0,1", f"paths.root={tmp_path}/runs")
    said = capsys.readouterr().err
    assert code == 2
    assert "hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=<devices>" in said
    assert train("-m", *SMALL, "+trainer.num_nodes=2", f"paths.root={tmp_path}/runs") == 2
    assert "found devices=1, num_nodes=2" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def tracked_in(folder: Path) -> list[OfflineRun]:
    """The parts of a job's W&B run."""
    return [OfflineRun(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def test_a_failed_job_stops_no_other_and_resume_runs_it_alone(
    train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fuse, sweep = tmp_path / "fuse", tmp_path / "it is = a sweep"
    fuse.touch()
    code = train(
        "-m",
        *SMALL,
        "logger=wandb",
        f"hydra.sweep.dir='{sweep}'",
        "+callbacks.bomb._target_=own_classes.Bomb",
        f"+callbacks.bomb.file={fuse}",
        "+callbacks.bomb.lit=true,false",
    )
    printed = capsys.readouterr()
    assert code == 1
    assert "expected 2 finished jobs, found 1" in printed.err
    assert "0 (+callbacks.bomb.lit=True): failed: out of memory, or so" in printed.err
    assert f"best run: {sweep}/1" in printed.out
    kept = (sweep / "1" / "status.json").read_text()
    assert json.loads(kept)["state"] == "finished"

    tracked = [tracked_in(sweep / job) for job in "01"]
    assert [[run.exit_code for run in parts] for parts in tracked] == [[1], [0]]
    (first,), (second,) = tracked  # one after another in one process, and two runs of one group
    assert first.run.run_id != second.run.run_id
    assert first.run.run_group == second.run.run_group == "smoke/it is = a sweep"

    fuse.unlink()
    (sweep / "0" / "status.json").unlink()  # as if it had never started
    assert train("-m", f"resume={sweep}", "seed=3") == 2
    assert train("-m", f"resume={sweep}", "trust=[own_classes]") == 0
    assert (sweep / "1" / "status.json").read_text() == kept
    assert [run.exit_code for run in tracked_in(sweep / "0")] == [1, 0]
    assert {run.run.run_id for run in tracked_in(sweep / "0")} == {first.run.run_id}
    table = pd.read_csv(sweep / "sweep.csv")
    assert list(table["state"]) == ["finished", "finished"]
    assert (sweep / "comparison" / "comparison.html").is_file()
    assert train("-m", f"resume={sweep}") == 1
    assert "expected unfinished jobs, found none" in capsys.readouterr().err


def test_folds_are_pooled_with_every_patient_once(
    train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("+sweep=folds", "data.folds=2", "data.fold=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert train("-m", *SMALL, *words) == 0
    assert "2 of 2 folds, 20 patients, each once" in capsys.readouterr().out
    pooled = json.loads((tmp_path / "sweep" / "folds.json").read_text())["seed=0"]
    rows = pd.read_csv(tmp_path / "sweep" / "folds_predictions.csv")
    assert rows["patient"].nunique() == pooled["patients"] == 20
    assert pooled["metrics"]["patient"]["accuracy"]["value"] == pytest.approx(
        (rows["label"] == rows["prediction"]).mean()  # one slice a patient
    )
