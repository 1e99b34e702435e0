"""W&B without account or network: a run that is stopped and goes on, read back from its files."""

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.conftest import ROOT, Cli
from tests.reference.wandb_file import OfflineRun

SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = tmp_path_factory.mktemp("sweeps") / "sweeps" / "2026-01-01"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text("{}")
    return sweep / "3"


@pytest.fixture(scope="module")
def parts(folder: Path, shared_cache: Path, cli: Cli) -> list[OfflineRun]:
    """The two parts of a run that got SIGTERM after its first epoch and was resumed."""
    environment = os.environ | {
        "GLIOMA_XAI_CACHE": str(shared_cache),
        "OMP_NUM_THREADS": "1",
        "WANDB_API_KEY": SECRET,
    }
    arguments = ["+experiment=smoke", "logger=wandb", f"hydra.run.dir={folder}"]
    with (folder.parents[2] / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "glioma_xai.train", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 240
        while not (folder / "checkpoints/last.ckpt").is_file():
            assert process.poll() is None, Path(output.name).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    words = Path(output.name).read_text()
    assert "anonymous" not in words
    assert "wandb:" not in words
    result = cli("train", f"resume={folder}")
    assert result.returncode == 0, result.stderr
    assert "wandb" not in result.stdout + result.stderr
    return [OfflineRun(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def test_both_parts_are_one_run_in_its_group(parts: list[OfflineRun]) -> None:
    first, second = parts
    assert first.run.run_id == second.run.run_id
    assert (first.exit_code, second.exit_code) == (143, 0)
    for part in parts:
        assert part.run.project == "glioma_xai"
        assert part.run.run_group == "smoke/2026-01-01"
        assert part.run.display_name == "smoke, seed 0, job 3"
        assert part.run.job_type == "train"
        assert list(part.run.tags) == ["smoke", "phantom"]


def test_the_second_part_goes_on_where_the_first_stopped(parts: list[OfflineRun]) -> None:
    steps = [row["_step"] for part in parts for row in part.history]
    assert steps == sorted(set(steps))
    epochs = [
        row["epoch"] for part in parts for row in part.history if "validation/accuracy" in row
    ]
    assert sorted(set(epochs)) == [0, 1, 2]
    assert epochs == sorted(epochs)


def test_history_is_the_table_of_metrics(parts: list[OfflineRun], folder: Path) -> None:
    table = pd.read_csv(folder / "metrics.csv").set_index("epoch")
    rows = {row["epoch"]: row for part in parts for row in part.history if "train/loss" in row}
    assert {1, 2} <= set(rows)  # of epoch 0 the signal may have come before it was logged
    for epoch, row in rows.items():
        both = table.loc[epoch].dropna().index.intersection(list(row))
        assert len(both) > 10
        assert [row[name] for name in both] == pytest.approx(
            list(table.loc[epoch, both]), rel=1e-4, abs=1e-6
        )
    assert {"train/loss_classification", "train/loss_guidance", "validation/auc"} <= set(rows[2])


def test_metrics_go_by_epoch_and_keep_their_least_and_largest_over_both_parts(
    parts: list[OfflineRun], folder: Path
) -> None:
    second = parts[1]
    table = pd.read_csv(folder / "metrics.csv")
    for name in ("train/loss_classification", "validation/relevance_mass_accuracy"):
        assert second.metrics[name].step_metric == "epoch"
        kept = [second.summary[f"{name}.{end}"] for end in ("min", "max", "last")]
        values = table[name]
        assert kept == pytest.approx([values.min(), values.max(), values.iloc[-1]], rel=1e-4)


def test_the_headline_is_in_the_summary(parts: list[OfflineRun], folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    found = parts[1].summary
    patient = summary["metrics"]["test"]["patient"]
    assert found["test/auc"] == pytest.approx(patient["auc"]["value"])
    assert found["test/auc_low"] == pytest.approx(patient["auc"]["low"])
    assert found["behaviour/swapped"] == pytest.approx(
        summary["behaviour"]["swapped"]["patient"]["accuracy"]["value"]
    )
    assert found["test/relevance_mass_accuracy"] == pytest.approx(
        summary["relevance"]["test"]["relevance_mass_accuracy"]["value"]
    )
    assert found["verdict"] == summary["verdict"]["headline"]


def test_predictions_are_a_table(parts: list[OfflineRun], folder: Path) -> None:
    table = pd.read_csv(folder / "predictions.csv")
    for level, rows in table.groupby("level"):
        columns, found = parts[1].table(f"predictions/{level}")
        assert {"patient", "split", "label", "prediction", "probability_HGG"} <= set(columns)
        assert [row["patient"] for row in found] == list(rows["patient"])
        assert [row["probability_HGG"] for row in found] == pytest.approx(
            list(rows["probability_HGG"])
        )


def test_pictures_have_masks_of_their_size(parts: list[OfflineRun], folder: Path) -> None:
    second = parts[1]
    cases = sorted(path.stem for path in (folder / "relevance/validation").glob("*.png"))
    assert len(cases) == 2
    for kind in ("panels", "layers"):
        assert sorted(second.summary[f"{kind}/validation.captions"]) == cases
    shown = zip(
        second.summary["layers/validation.filenames"],
        second.summary["layers/validation.all_masks"],
        strict=True,
    )
    for file, masks in shown:
        assert set(masks) == {"relevance", "tumour"}
        with Image.open(second.files / file) as anatomy:
            size = anatomy.size
        for name, most in (("relevance", 2), ("tumour", 1)):
            with Image.open(second.files / masks[name]["path"]) as mask:
                assert mask.size == size
                assert 0 < mask.convert("L").getextrema()[1] <= most
    labels = second.config["_wandb"]["mask/class_labels"]
    assert {"1": "tumour"} in [entry["value"] for entry in labels.values()]
    assert all((part.files / path).is_file() for part in parts for path in part.media)


def test_the_config_is_there_and_says_nothing_of_who_ran_it_where(
    parts: list[OfflineRun], folder: Path
) -> None:
    config = parts[0].config
    assert config["loss"]["guidance_weight"] == 3.0
    assert config["data"]["spatial_size"] == [48, 56]
    for part in parts:
        texts = [part.sent()] + [
            path.read_text() for path in part.files.rglob("*") if path.suffix in {".txt", ".json"}
        ]
        for text in texts:
            private = (str(folder.parents[2]), str(ROOT), str(Path.home()), SECRET)
            assert not [word for word in private if word in text and len(word) > 1]
            assert socket.gethostname() not in text.split()
            assert f'username: "{getpass.getuser()}"' not in text


def test_sync_finds_everything_in_the_run_folder(parts: list[OfflineRun], folder: Path) -> None:
    staged = [
        Path(entry.local_path)
        for record in parts[1].records
        for entry in record.artifact.manifest.contents
    ]
    assert len(staged) == 2  # a table of slices and one of patients
    assert all(path.is_file() and path.is_relative_to(folder / "wandb") for path in staged)
