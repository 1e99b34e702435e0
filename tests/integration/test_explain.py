"""`explain`: maps on the subject's own grid, runs side by side, similar training patients."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from glioma_xai.errors import CohortError, ConfigError, RunError
from glioma_xai.experiment.explaining import explain
from tests.conftest import Cli


@pytest.fixture(scope="module")
def patient(smoke_run: Path) -> str:
    """A test patient."""
    with (smoke_run / "splits.csv").open(newline="") as file:
        return next(row["patient"] for row in csv.DictReader(file) if row["split"] == "test")


@pytest.fixture(scope="module")
def explained(
    smoke_run: Path, cli: Cli, patient: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with everything that the command can write."""
    output = tmp_path_factory.mktemp("explained")
    other = output / "other"
    shutil.copytree(smoke_run, other)
    result = cli(
        "explain",
        f"run={smoke_run}",
        f"subject={patient}",
        f"compare=[{other}]",
        "similar=2",
        f"output={output / 'case'}",
    )
    assert result.returncode == 0, result.stderr
    return output / "case"


def test_the_map_lies_on_the_file_it_explains(
    explained: Path, shared_cache: Path, patient: str
) -> None:
    relevance = nib.load(explained / "relevance.nii.gz")
    sources = [
        path
        for path in shared_cache.rglob("*_flair.nii.gz")
        if patient in path.name and "variants" not in path.parts
    ]
    image = next(  # other cohorts of the cache hold the same patient in more slices
        image for image in map(nib.load, sources) if image.shape == relevance.shape
    )
    np.testing.assert_array_equal(relevance.affine, image.affine)
    explained_slices = np.abs(relevance.get_fdata()).sum(axis=(0, 1)) > 0
    levels = json.loads((explained / "explanation.json").read_text())["slices"]
    assert np.flatnonzero(explained_slices).tolist() == sorted(s["slice"] for s in levels)


def test_runs_are_laid_side_by_side(explained: Path) -> None:
    content = json.loads((explained / "comparison.json").read_text())
    names = list(content["runs"])
    assert len(names) == 2
    same = content["rank_correlation"][names[0]][names[1]]
    assert same == pytest.approx(1, abs=1e-5)  # the other run is a copy of the first
    assert content["runs"][names[0]] == content["runs"][names[1]]
    assert (explained / "comparison.png").stat().st_size > 10_000
    (second,) = (path.parent for path in explained.glob("*/explanation.json"))
    first, other = (
        nib.load(folder / "relevance.nii.gz").get_fdata() for folder in (explained, second)
    )
    np.testing.assert_array_equal(first, other)


def test_similar_training_patients_are_named(
    explained: Path, smoke_run: Path, patient: str
) -> None:
    with (smoke_run / "splits.csv").open(newline="") as file:
        training = {row["patient"] for row in csv.DictReader(file) if row["split"] == "train"}
    content = json.loads((explained / "similar.json").read_text())
    found = [neighbour["patient"] for neighbour in content["neighbours"]]
    assert len(set(found)) == 2
    assert set(found) <= training
    assert content["training_patients"] == len(training)
    assert len(list(explained.glob("similar_*.png"))) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["similar=many"], ConfigError, "similar: expected a number of patients, found many"),
        (["device=tpu"], ConfigError, "device: expected one of cpu"),
        (["subjct=x"], ConfigError, "subjct: not a key of this command. Did you mean subject?"),
        (["similar=999"], ConfigError, "similar: expected 1 to"),
        (["layer=relu1"], ConfigError, "expected similar=<n> with it"),
        (["similar=1", "layer=relu9"], ConfigError, "layer: expected one of conv1"),
        (["compare=[nowhere]"], RunError, "nowhere: expected a run folder"),
        (["compare=[{run}]"], ConfigError, "found one of them twice"),
        (["data.modalities=[t1]"], CohortError, "data.modalities: expected ['t2'"),
        (["subject={patient}x"], CohortError, "nearest: {patient}"),
    ],
)
def test_mistakes(
    smoke_run: Path,
    shared_cache: Path,
    patient: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setenv("GLIOMA_XAI_CACHE", str(shared_cache))
    words = [
        word.replace("{run}", str(smoke_run)).replace("{patient}", patient) for word in arguments
    ]
    options = [f"run={smoke_run}", f"subject={patient}", f"output={tmp_path}"]
    given = {word.partition("=")[0] for word in words}
    options = [word for word in options if word.partition("=")[0] not in given]
    with pytest.raises(error, match=re.escape(message.replace("{patient}", patient))):
        explain([*options, *words])
