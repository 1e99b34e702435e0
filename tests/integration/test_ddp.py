"""One job on two processes: the results of one, written once."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli

# No BatchNorm, no dropout, donors of nobody: what a sample gives does not depend on its batch.
PLAIN = (
    *("+experiment=smoke", "model.batch_norm=false", "model.dropout=0", "loss.probe=noise"),
    *("loss.warm_start_epochs=0", "data.slice_count=1", "optimizer=sgd"),
    *("data.phantom.subjects=27", "trainer.max_epochs=2", "overlays=1", "bootstrap=20"),
)
TWO = (
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    *("trainer.sync_batchnorm=false", "trainer.precision=32-true"),
)
BATCH = 3  # of one process; 17 training samples leave 5 for the last step, 3 and 2

# their backgrounds come from the other samples of a process's batch
DONORS = {
    f"validation/exchanged_{n}" for n in ("accuracy", "auc", "patient/accuracy", "patient/auc")
}
DONORS |= {"validation/guided_score", "validation/fairwashing"}
DONORS |= {"validation/exchanged_other_class_accuracy"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def one_and_two(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("ddp")
    one = cli("train", *PLAIN, f"data.batch_size={2 * BATCH}", f"hydra.run.dir={root}/one")
    assert one.returncode == 0, one.stderr
    two = cli("train", *PLAIN, *TWO, f"data.batch_size={BATCH}", f"hydra.run.dir={root}/two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("verdict:") == 1  # only the first process evaluates and prints
    return root / "one", root / "two"


def test_the_processes_have_different_shares_of_the_last_batch(
    one_and_two: tuple[Path, Path],
) -> None:
    splits = [row["split"] for row in rows_of(one_and_two[0] / "splits.csv")]
    assert splits.count("train") % (2 * BATCH) == 5


def test_every_epoch_has_the_metrics_of_one_process(one_and_two: tuple[Path, Path]) -> None:
    one, two = (rows_of(folder / "metrics.csv") for folder in one_and_two)
    assert len(one) == len(two) == 2
    for expected, found in zip(one, two, strict=True):
        assert found.keys() == expected.keys()
        for name in expected.keys() - DONORS:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-4), name


def test_weights_and_optimizer_agree_within_float_error(one_and_two: tuple[Path, Path]) -> None:
    one, two = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in one_and_two
    )
    assert one["global_step"] == two["global_step"] > 2
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    momenta = (c["optimizer_states"][0]["state"] for c in (one, two))
    for first, second in zip(*(m.values() for m in momenta), strict=True):
        torch.testing.assert_close(
            second["momentum_buffer"], first["momentum_buffer"], rtol=1e-3, atol=1e-5
        )


def test_only_the_first_process_writes(one_and_two: tuple[Path, Path]) -> None:
    one, two = one_and_two
    names = [sorted(p.name for p in folder.iterdir()) for folder in (one, two)]
    assert [name for name in names[1] if not name.startswith("train_ddp_process")] == names[0]
    assert json.loads((two / "status.json").read_text())["state"] == "finished"
    first, second = (rows_of(folder / "predictions.csv") for folder in (one, two))
    assert [row["slice"] for row in first] == [row["slice"] for row in second]
    for a, b in zip(first, second, strict=True):
        found, expected = float(b["probability_HGG"]), float(a["probability_HGG"])
        assert found == pytest.approx(expected, abs=1e-3)


SHARED = '''
from pytorch_lightning import Callback
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm

class Shared(Callback):
    """What Lightning does to BatchNorm before and after training on several GPUs."""
    def on_fit_end(self, trainer, pl_module):
        layers = TorchSyncBatchNorm()
        layers.revert(layers.apply(pl_module))
'''


def test_a_network_with_synchronised_batchnorm_is_evaluated(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_shared.py").write_text(SHARED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    words = ("data.slice_count=1", "trainer.max_epochs=1", "loss.warm_start_epochs=0")
    own = "+callbacks.shared._target_=own_shared.Shared"
    result = cli("train", "+experiment=smoke", *words, own, f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["guided_plain_step_ratio"] > 1
