"""Shortcuts that files and headers show, each made in a small cohort of files."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.overview import composition, intensities
from tests.unit.data.small_cohorts import LPS, case_arrays, save, write_case

Change = Callable[[dict[str, np.ndarray]], tuple[dict[str, np.ndarray], np.ndarray]]


def turned(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    ras = np.diag([1.0, 1.0, 1.0, 1.0])
    return {name: array[::-1, ::-1] for name, array in arrays.items()}, ras


def larger(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {name: np.pad(array, ((2, 2), (0, 0), (0, 0))) for name, array in arrays.items()}, LPS


def finer(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return arrays, LPS @ np.diag([0.5, 0.5, 1.0, 1.0])


def brighter(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return arrays | {"t2": 20 * arrays["t2"]}, LPS


def copied(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return arrays | {"t2": arrays["flair"]}, LPS


def cohort(root: Path, change: Change, classes: tuple[str, ...] = ("LGG",)) -> None:
    """Six patients a class; those of ``classes`` are changed."""
    for number in range(12):
        grade = "HGG" if number < 6 else "LGG"
        arrays, affine = case_arrays(number), LPS
        if grade in classes:
            arrays, affine = change(arrays)
        case = f"Brats18_S{number % 2}_{number:03d}_1"
        for name, array in arrays.items():
            save(root / grade / case / f"{case}_{name}.nii.gz", array, affine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (turned, "orientation and class: expected no relation, found they are tied"),
        (larger, "size and class: expected no relation, found they are tied"),
        (finer, "spacing in mm and class: expected no relation, found they are tied"),
        (brighter, "brightness of t2 and class: expected no relation, found they are tied"),
        (copied, "t2 = flair for 6 patients (6 of 6 LGG, 0 of 6 HGG)"),
    ],
)
def test_what_gives_the_class_away_is_named(tmp_path: Path, change: Change, message: str):
    settings = {"reader": "brats", "spatial_size": [24, 24], "spacing_mm": None}
    settings["cache_dir"] = str(tmp_path / "cache")
    cohort(tmp_path / "tied", change)
    found = GliomaDataModule(root=str(tmp_path / "tied"), **settings).inspect().problems
    assert any(message in str(problem) for problem in found), [str(p) for p in found]
    cohort(tmp_path / "even", change, classes=("LGG", "HGG"))
    found = GliomaDataModule(root=str(tmp_path / "even"), **settings).inspect().problems
    assert not any(" and class: " in str(problem) for problem in found)
    assert {problem.severity for problem in found} <= {"warning"}


def test_a_site_of_one_class(settings, brats_root: Path):
    for path in sorted((brats_root / "HGG").iterdir()):
        renamed = path.name.replace("CBICA", "ONLY").replace("TCIA01", "ONLY")
        for file in path.iterdir():
            file.rename(file.with_name(file.name.replace(path.name, renamed)))
        path.rename(path.with_name(renamed))
    found = GliomaDataModule(**settings()).inspect().problems
    (text,) = [str(problem) for problem in found]
    assert text.startswith("site and class: expected no relation, found they are tied")
    assert "ONLY: 0 LGG, 6 HGG" in text


def test_file_types_of_one_class(tmp_path: Path):
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = np.zeros((32, 28, 3), np.uint8)
        pixels[6:26, 5:23] = rng.integers(60, 250, (20, 18, 3))
        grade, ending = ("HGG", "png") if number < 6 else ("LGG", "tif")
        (tmp_path / grade).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / grade / f"P{number}_1.{ending}")
    data = GliomaDataModule(
        reader="images", root=str(tmp_path), spatial_size=[28, 32], cache_dir=str(tmp_path / "c")
    )
    found = [str(problem) for problem in data.inspect().problems]
    assert any(t.startswith("file type and class: expected no relation, found they") for t in found)


@pytest.mark.parametrize("how", ["as it is", "with another mask", "turned around"])
def test_copies_in_two_splits_are_named_with_class_and_split(settings, brats_root: Path, how: str):
    first = GliomaDataModule(**settings(split_seed=0))
    splits = dict(first.table[["patient_id", "split"]].to_numpy().tolist())
    tested = next(p for p, split in splits.items() if split == "test")
    arrays = case_arrays(int(tested.split("_")[2]))
    if how == "with another mask":
        arrays["seg"] = np.roll(arrays["seg"], 2, axis=0)
    folder = write_case(brats_root / "LGG", "Brats18_CBICA_777_1", **arrays)
    if how == "turned around":
        for path in folder.iterdir():
            nib.save(nib.as_closest_canonical(nib.load(path)), path)
    (brats_root / "splits.csv").write_text(
        "patient,split\n"
        + "".join(f"{patient},{split}\n" for patient, split in splits.items())
        + "Brats18_CBICA_777,train\n"
    )
    data = GliomaDataModule(**settings(splits_file=str(brats_root / "splits.csv")))
    (error,) = data.inspect().errors
    assert f"{tested}_1" in error.where
    assert "Brats18_CBICA_777_1" in error.where
    assert "the same content in 2 subjects of 2 patients (" in error.found
    assert error.found.endswith("train and test)")


def test_tables_count_patients_by_class_and_trait(settings, brats_root: Path):
    write_case(brats_root / "HGG", "Brats18_CBICA_001_2", seed=99)  # a second scan of one patient
    write_case(brats_root / "LGG", "Brats18_CBICA_060_1", seed=98, t2=None)
    found = GliomaDataModule(**settings()).inspect()
    table = composition(found).set_index("")
    assert table.loc["subjects"].tolist() == [6, 7]
    assert table.loc["patients"].tolist() == [6, 6]
    assert table.loc["samples"].tolist() == [12, 14]
    assert table.loc["patients: site CBICA"].tolist() == [3, 3]
    assert table.loc["patients: size 20 x 24 x 6"].tolist() == [6, 6]
    splits = [f"patients: split {name}" for name in ("test", "train", "validation")]
    assert table.loc[splits].sum().tolist() == [6, 6]
    rows = intensities(found)
    assert list(rows["modality"]) == ["t2", "t2", "t1ce", "t1ce", "flair", "flair"]
    assert rows["50 %"].astype(float).between(450, 650).all()  # drawn between 100 and 1000
    (lost,) = [p for p in found.problems if p.expected == "every subject"]
    assert lost.found == "without 1 of 7 LGG, 0 of 7 HGG"
