"""Real cohorts that may lie beside the project; skipped where they do not."""

from pathlib import Path

import pandas as pd
import pytest

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.files import read_volume
from glioma_xai.data.intensities import find_foreground

BESIDE = Path(__file__).parents[3].parent / "shared/data"
TCGA, BRATS_2015 = BESIDE / "tcga_lgg", BESIDE / "brats2015_hgg"
SCHEME = {"necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4}

needs_tcga = pytest.mark.skipif(not TCGA.is_dir(), reason="the 2-D cohort is not there")
needs_brats = pytest.mark.skipif(not BRATS_2015.is_dir(), reason="the 3-D cohort is not there")


@needs_tcga
def test_slices_of_many_patients(tmp_path: Path):
    rows = pd.read_csv(TCGA / "manifest.csv")
    few = rows["patient_id"].drop_duplicates()[::6]
    rows = rows[rows["patient_id"].isin(few)]
    rows.to_csv(tmp_path / "few.csv", index=False)
    data = GliomaDataModule(
        reader="manifest",
        manifest=str(tmp_path / "few.csv"),
        root=str(TCGA),
        columns={"patient": "patient_id", "label": "grade"},
        classes=["G2", "G3"],
        modalities=["t1", "flair", "t1ce"],
        cache_dir=str(tmp_path / "cache"),
        test_share=0.34,
        validation_share=0.2,
    )
    assert len(data.table) == len(rows)
    assert data.table.groupby("class").size().to_dict() == rows.groupby("grade").size().to_dict()
    assert (data.table.groupby("patient_id")["split"].nunique() == 1).all()
    assert data.table["lesion_area"].min() > 0
    for batch in data.evaluation_loader("train"):
        outside = batch["lesion_mask"] * (1 - batch["brain_mask"])
        assert outside.sum() < 0.05 * batch["lesion_mask"].sum()


@needs_brats
def test_labels_of_a_volume_are_those_that_its_source_counts(tmp_path: Path):
    """Counts from the table in the cohort's README: labels 1, 2, 3 and 4 of case 2."""
    case = BRATS_2015 / "brats_2013_pat0002_1"
    names = ("Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd", "OTMultiClass")
    files = ",".join(str(case / f"{name}.nii.gz") for name in names)
    (tmp_path / "m.csv").write_text(f"patient,flair,t1ce,mask,label\nP2,{files},HGG\n")
    counts = {"whole_tumour": 163 + 53736 + 943 + 8219, "tumour_core": 163 + 943 + 8219}
    for region, count in counts.items():
        data = GliomaDataModule(
            reader="manifest",
            manifest=str(tmp_path / "m.csv"),
            allow_outside_root=True,
            modalities=["flair", "t1ce"],
            label_values=SCHEME,
            region=region,
            spatial_dims=3,
            spatial_size=None,
            spacing_mm=None,
            cache_dir=str(tmp_path / "cache"),
        )
        data.setup("predict")
        assert data.table["lesion_area"].tolist() == [count]


@needs_brats
def test_the_brain_of_a_cohort_whose_air_is_negative():
    flair, _ = read_volume(BRATS_2015 / "brats_2013_pat0001_1" / "Flair_subtrMeanDivStd.nii.gz")
    brain = find_foreground(flair).brain
    expected = flair[0] > flair.min()
    assert float((brain != expected).sum()) < 0.01 * expected.sum()
    assert int((expected & ~brain).sum()) < 200  # specks away from the brain
