"""A real scan: its map has the scan's affine and lies where the scan does; skipped without data."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from glioma_xai.data import GliomaDataModule
from glioma_xai.experiment.explanation import explain_subject
from glioma_xai.losses.objective import Objective
from glioma_xai.models.networks import SmallCNN
from glioma_xai.training.guidance import Attribution, Guidance
from glioma_xai.training.module import GuidedClassifier

CASE = Path(__file__).resolve().parents[3] / "shared/data/brats2015_hgg/brats_2013_pat0002_1"
FLAIR = CASE / "Flair_subtrMeanDivStd.nii.gz"
pytestmark = pytest.mark.skipif(not FLAIR.is_file(), reason="the real scans are not here")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GliomaDataModule:
    """One patient, whose axes run to the left and to the back."""
    folder = tmp_path_factory.mktemp("real")
    row = {
        "patient": "pat0002",
        "flair": str(FLAIR),
        "t1ce": str(CASE / "T1c_subtrMeanDivStd.nii.gz"),
        "mask": str(CASE / "OTMultiClass.nii.gz"),
    }
    pd.DataFrame([row]).to_csv(folder / "table.csv", index=False)
    module = GliomaDataModule(
        reader="manifest",
        manifest=str(folder / "table.csv"),
        modalities=["flair", "t1ce"],
        classes=["LGG", "HGG"],
        label_values={"necrosis": 1, "oedema": 2, "non_enhancing": 3, "enhancing": 4},
        cache_dir=str(folder / "cache"),
        spatial_size=[192, 224],
        spacing_mm=None,
        slice_count=3,
        allow_outside_root=True,
    )
    module.setup("predict")
    return module


def test_a_map_has_the_affine_of_the_scan_and_lies_in_its_brain(
    data: GliomaDataModule, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = SmallCNN(input_shape=data.input_shape, channels=(4, 8), hidden=8)
    module = GuidedClassifier(
        network,
        attribution=Attribution("epsilon_plus"),
        guidance=Guidance(),
        objective=Objective(),
        optimizer=torch.optim.Adam,
    ).eval()
    (explanation,) = explain_subject(module, data, "pat0002", output=tmp_path)
    source = nib.load(FLAIR)
    found = nib.load(tmp_path / "relevance.nii.gz")
    assert nib.aff2axcodes(source.affine) == ("L", "P", "S")
    assert found.shape == source.shape
    np.testing.assert_array_equal(found.affine, source.affine)
    shares = explanation.content["region_shares"]
    assert isinstance(shares, dict)
    assert set(shares) == {"necrosis", "oedema", "non_enhancing", "enhancing", "elsewhere"}
    mass = np.abs(found.get_fdata())
    brain = source.get_fdata() != source.get_fdata()[0, 0, 0]
    assert mass[brain].sum() > 0.85 * mass.sum()


def test_what_goes_there_and_back_is_the_scan(data: GliomaDataModule) -> None:
    """The prepared image itself, put back, follows the file voxel by voxel; a flip would not."""
    samples = data.sample("pat0002")
    images = torch.stack([sample["image"][0] for sample in samples])
    slices = [sample["slice_index"] for sample in samples]
    restored = data.restore("pat0002", images, slices).get_fdata()
    source = nib.load(FLAIR).get_fdata()
    inside = restored != 0
    right = np.corrcoef(restored[inside], source[inside])[0, 1]
    flipped = np.corrcoef(restored[::-1][inside], source[inside])[0, 1]
    assert right > 0.95
    assert flipped < right - 0.2
