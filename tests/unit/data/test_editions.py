"""Every published edition: names of files and folders as they come, read into one vocabulary."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from glioma_xai.data import GliomaDataModule
from tests.unit.data.small_cohorts import case_arrays, save

MODALITIES = ("t1", "t1ce", "t2", "flair")
UNDERLINED = dict.fromkeys(MODALITIES) | {name: f"_{name}" for name in (*MODALITIES, "seg")}
DASHED = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"}
UCSF = {"t1": "_T1", "t1ce": "_T1c", "t2": "_T2", "flair": "_FLAIR", "seg": "_tumor_segmentation"}
UCSF_ALSO = ("_ADC", "_ASL", "_DWI", "_SWI", "_T1_bias", "_T2_bias", "_brain_segmentation")


@dataclass(frozen=True)
class Edition:
    """Two cases as published.

    Args:
        cases: Folder of a case to its expected patient, label and site.
        suffixes: What follows the id in a file's name.
        values: Published mask value of 1 necrosis, 2 oedema, 4 enhancing.
        extra: Other files of the release to their text; a name without text is an image.
        beside: Other images of each case.
        settings: Of the data module.
    """

    cases: dict[str, tuple[str, int, str]]
    suffixes: dict[str, str]
    values: dict[int, int] = field(default_factory=lambda: {1: 1, 2: 2, 4: 4})
    extra: dict[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        for seed, folder in enumerate(self.cases):
            case_id = Path(folder).name.removesuffix("_nifti")
            for name, array in case_arrays(seed).items():
                save(
                    root / folder / f"{case_id}{self.suffixes[name]}.nii.gz",
                    self.stored(name, array),
                )
            for suffix in self.beside:
                save(root / folder / f"{case_id}{suffix}.nii.gz", array)
            (root / folder / f"._{case_id}_seg.nii.gz").write_bytes(b"macOS")
        for name, text in self.extra.items():
            (root / name).write_text(text)

    def stored(self, name: str, array: np.ndarray) -> np.ndarray:
        if name != "seg":
            return array
        table = np.zeros(5, np.uint8)
        for ours, theirs in self.values.items():
            table[ours] = theirs
        return table[array]


def table(name: str = "grades.csv", **columns: str) -> dict[str, object]:
    return {"grades": name, "columns": columns} if columns else {"grades": name}


EDITIONS = {
    "2018": Edition(
        {
            "HGG/Brats18_2013_2_1": ("Brats18_2013_2", 1, "2013"),
            "LGG/Brats18_TCIA09_141_1": ("Brats18_TCIA09_141", 0, "TCIA09"),
        },
        UNDERLINED,
        extra={"survival_data.csv": "Brats18ID,Age,Survival,ResectionStatus\n"},
    ),
    "2019": Edition(
        {
            "HGG/BraTS19_CBICA_AAB_1": ("BraTS19_CBICA_AAB", 1, "CBICA"),
            "LGG/BraTS19_TMC_06290_1": ("BraTS19_TMC_06290", 0, "TMC"),
        },
        UNDERLINED,
        extra={
            "name_mapping.csv": "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,"
            "TCGA_TCIA_subject_ID,BraTS_2019_subject_ID\n"
            "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1\n"
            "LGG,NA,NA,NA,BraTS19_TMC_06290_1\n",
            "survival_data.csv": "BraTS19ID,Age,Survival,ResectionStatus\n",
        },
    ),
    "2021": Edition(
        {
            "BraTS2021_00000": ("BraTS2021_00000", 1, ""),
            "BraTS2021_00002": ("BraTS2021_00002", 0, ""),
        },
        UNDERLINED,
        extra={"grades.csv": "id,grade\nBraTS2021_00000,HGG\nBraTS2021_00002,LGG\n"},
        settings=table(),
    ),
    "2023": Edition(
        {
            "BraTS-GLI-00017-000": ("BraTS-GLI-00017", 1, ""),
            "BraTS-GLI-00017-001": ("BraTS-GLI-00017", 1, ""),
            "BraTS-GLI-00020-000": ("BraTS-GLI-00020", 0, ""),
        },
        DASHED,
        {1: 1, 2: 2, 4: 3},
        extra={"grades.csv": "patient,grade\nBraTS-GLI-00017,HGG\nBraTS-GLI-00020,LGG\n"},
        settings=table(),
    ),
    "2024": Edition(
        {
            "BraTS-GLI-02062-100": ("BraTS-GLI-02062", 1, ""),
            "BraTS-GLI-02062-101": ("BraTS-GLI-02062", 1, ""),
            "BraTS-GLI-02070-103": ("BraTS-GLI-02070", 0, ""),
        },
        DASHED,
        {1: 4, 2: 2, 4: 3},  # 4 is the cavity of the operation
        extra={"grades.csv": "patient,grade\nBraTS-GLI-02062,HGG\nBraTS-GLI-02070,LGG\n"},
        settings=table(),
    ),
    "UCSF-PDGM": Edition(
        {
            "UCSF-PDGM-0004_nifti": ("UCSF-PDGM-0004", 1, ""),
            "UCSF-PDGM-0429_nifti": ("UCSF-PDGM-0429", 0, ""),
            "UCSF-PDGM-0429_FU003d_nifti": ("UCSF-PDGM-0429", 0, ""),
        },
        UCSF,
        extra={
            "UCSF-PDGM-metadata_v2.csv": "ID,Sex,Age at MRI,WHO CNS Grade,MGMT status\n"
            "UCSF-PDGM-004,M,66,4,negative\nUCSF-PDGM-429,F,40,2,positive\n"
        },
        beside=UCSF_ALSO,
        settings={
            **table("UCSF-PDGM-metadata_v2.csv", label="WHO CNS Grade"),
            "label_map": {"2": "LGG", "3": "HGG", "4": "HGG"},
        },
    ),
}


@pytest.mark.parametrize("name", EDITIONS)
def test_an_edition_as_it_is_published(name: str, tmp_path: Path):
    edition = EDITIONS[name]
    edition.write(tmp_path)
    settings = dict(edition.settings)
    if "grades" in settings:
        settings["grades"] = str(tmp_path / str(settings["grades"]))
    data = GliomaDataModule(
        reader="brats",
        root=str(tmp_path),
        cache_dir=str(tmp_path / "cache"),
        modalities=MODALITIES,
        region="enhancing_tumour",
        spatial_dims=3,
        spatial_size=None,
        spacing_mm=None,
        normalisation="none",
        test_share=1.0,
        **settings,
    )
    found = {
        row.subject_id: (row.patient_id, row.label, row.site) for row in data.table.itertuples()
    }
    ids = {Path(folder).name.removesuffix("_nifti"): who for folder, who in edition.cases.items()}
    assert found == ids
    assert data.cohort.left_out == []
    for seed, case_id in enumerate(ids):
        (sample,) = data.sample(case_id)
        arrays = case_arrays(seed)
        for channel, modality in zip(sample["image"], MODALITIES, strict=True):
            np.testing.assert_array_equal(channel, arrays[modality][::-1, ::-1])
        enhancing = arrays["seg"][::-1, ::-1] == 4
        np.testing.assert_array_equal(sample["lesion_mask"][0] == 1, enhancing)


def test_the_whole_tumour_of_2024_leaves_the_cavity_out(tmp_path: Path):
    edition = EDITIONS["2024"]
    edition.write(tmp_path)
    data = GliomaDataModule(
        reader="brats",
        root=str(tmp_path),
        grades=str(tmp_path / "grades.csv"),
        cache_dir=str(tmp_path / "cache"),
        spatial_dims=3,
        spatial_size=None,
        spacing_mm=None,
        test_share=1.0,
    )
    data.setup()
    expected = int(np.isin(case_arrays()["seg"], (2, 4)).sum())
    assert set(data.table["lesion_area"]) == {expected}
