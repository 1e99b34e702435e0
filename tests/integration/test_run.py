"""The main job through the command line, end to end, and what it leaves behind."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.conftest import Cli


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_status_says_finished(smoke_run: Path) -> None:
    status = json.loads((smoke_run / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["epoch"] == 2
    assert status["error"] is None


def test_metrics_have_a_row_an_epoch_and_both_loss_parts(smoke_run: Path) -> None:
    rows = rows_of(smoke_run / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["train/loss_guidance"] == ""  # the warm start computes no relevance
    assert 0 < float(rows[2]["train/loss_guidance"]) < 1
    total = float(rows[2]["train/loss_classification"]) + 3 * float(rows[2]["train/loss_guidance"])
    assert float(rows[2]["train/loss"]) == pytest.approx(total, rel=1e-4)
    assert {"validation/auc", "validation/exchanged_accuracy"} <= rows[2].keys()


def test_checkpoints_hold_tensors_and_plain_values(smoke_run: Path) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(smoke_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert all(torch.isfinite(v).all() for v in checkpoint["state_dict"].values())


def test_splits_share_no_patient(smoke_run: Path) -> None:
    rows = rows_of(smoke_run / "splits.csv")
    assert len({row["patient"] for row in rows}) == len(rows) == 24
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_summary_agrees_with_predictions(smoke_run: Path) -> None:
    summary = json.loads((smoke_run / "summary.json").read_text())
    rows = [
        row
        for row in rows_of(smoke_run / "predictions.csv")
        if row["split"] == "test" and row["level"] == "patient"
    ]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    accuracy = summary["metrics"]["test"]["patient"]["accuracy"]
    assert accuracy["value"] == pytest.approx(right)
    assert accuracy["low"] <= right <= accuracy["high"]
    assert set(summary["behaviour"]) == {
        "as_trained",
        "removed",
        "swapped",
        "exchanged_any",
        "exchanged_same_class",
        "exchanged_other_class",
        "noise_outside",
    }
    assert set(summary["without_tumour"]) == {"tumour_removed", "background_alone"}
    assert summary["guided_plain_step_ratio"] > 1
    for row in rows:
        total = float(row["probability_LGG"]) + float(row["probability_HGG"])
        assert total == pytest.approx(1, abs=1e-4)


def test_report_is_one_self_contained_page(smoke_run: Path) -> None:
    page = (smoke_run / "report.html").read_text()
    assert "swapped" in page
    assert "data:image/png;base64," in page
    for outside in ('src="http', 'href="http', "<script src", "url(http"):
        assert outside not in page


def test_overlays_are_written(smoke_run: Path) -> None:
    assert len(list((smoke_run / "relevance" / "validation").glob("*.png"))) == 2
    assert len(list((smoke_run / "relevance" / "test").glob("*.png"))) == 2


def test_evaluate_reproduces_the_run_s_own_numbers(
    smoke_run: Path, cli: Cli, tmp_path: Path
) -> None:
    result = cli("evaluate", f"run={smoke_run}", f"output={tmp_path}")
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "summary.json").read_text())
    first = json.loads((smoke_run / "summary.json").read_text())
    assert again["metrics"]["test"] == first["metrics"]["test"]
    assert again["behaviour"] == first["behaviour"]
    assert "verdict:" in result.stdout


def test_explain_writes_a_map_on_the_subject_s_own_grid(
    smoke_run: Path, cli: Cli, tmp_path: Path, shared_cache: Path
) -> None:
    subject = rows_of(smoke_run / "predictions.csv")[0]["subject"]
    result = cli("explain", f"run={smoke_run}", f"subject={subject}", f"output={tmp_path}")
    assert result.returncode == 0, result.stderr
    source = nib.load(next(shared_cache.rglob(f"{subject}_flair.nii.gz")))
    relevance = nib.load(tmp_path / "relevance.nii.gz")
    assert relevance.shape == source.shape
    assert np.allclose(relevance.affine, source.affine)
    explanation = json.loads((tmp_path / "explanation.json").read_text())
    assert sum(explanation["probabilities"].values()) == pytest.approx(1)
    assert sum(explanation["modality_shares"].values()) == pytest.approx(1)
    slices = [entry["slice"] for entry in explanation["slices"]]
    filled = np.flatnonzero(np.abs(relevance.get_fdata()).sum(axis=(0, 1)))
    assert set(filled) <= set(slices)
    assert len(list(tmp_path.glob("*.png"))) == len(slices)


def test_a_subject_that_is_not_there_names_the_nearest(smoke_run: Path, cli: Cli) -> None:
    subject = rows_of(smoke_run / "predictions.csv")[0]["subject"]
    result = cli("explain", f"run={smoke_run}", f"subject={subject[:-1]}9")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert subject[:10] in result.stderr


def test_data_with_other_channels_than_the_network_is_refused(smoke_run: Path, cli: Cli) -> None:
    result = cli("evaluate", f"run={smoke_run}", "data.modalities=[t1ce,flair]")
    assert result.returncode == 1
    assert "data.modalities: expected ['t2', 't1ce', 'flair'], which the network" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_finished_run_is_not_resumed(smoke_run: Path, cli: Cli) -> None:
    before = (smoke_run / "status.json").read_text()
    result = cli("train", f"resume={smoke_run}")
    assert result.returncode == 1
    assert "expected an unfinished run, found a finished one" in result.stderr
    assert (smoke_run / "status.json").read_text() == before
