"""BraTS 2021, the Decathlon and folders of images, with grades from a table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.labels import region_values
from glioma_xai.data.layout import LABEL_SCHEMES, Listing
from glioma_xai.data.reading import CohortSource
from glioma_xai.data.schemes import with_label_values
from glioma_xai.data.split_settings import SplitSettings
from glioma_xai.data.splits import split_patients
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Subject
from tests.unit.data.small_cohorts import case_arrays, save, write_case

CLASSES, MODALITIES = ("LGG", "HGG"), ("t2", "t1ce", "flair")


def source(reader: str, root: Path, **changes: object) -> CohortSource:
    return CohortSource(reader, CLASSES, MODALITIES, root=root, **changes)  # type: ignore[arg-type]


def test_grades_that_are_unknown_are_listed_one_by_one(tmp_path: Path):
    for number in range(3):
        write_case(tmp_path, f"BraTS2021_0000{number}")
    table = tmp_path / "grades.csv"
    table.write_text("case,grade\nBraTS2021_00000,HGG\nBraTS2021_00001,5\nBraTS2021_00009,LGG\n")
    listing = source("brats", tmp_path, grades=table).listing()
    assert [str(problem) for problem in listing.problems] == [
        "BraTS2021_00001: expected one of LGG, HGG, found label 5. Add it to the table, set "
        "data.label_map, or add the id to data.exclude.",
        "BraTS2021_00002: expected one of LGG, HGG, found none in grades.csv. Add it to the table, "
        "set data.label_map, or add the id to data.exclude.",
        "grades.csv: expected ids of the cohort, found 1 rows of others: BraTS2021_00009. "
        "Harmless if the cohort is a part of the table.",
    ]
    known = source("brats", tmp_path, grades=table).listing(graded=False)
    assert [subject.label for subject in known.subjects] == [1, None, None]
    with pytest.raises(CohortError, match=r"expected a column WHO, found case, grade.*label: <col"):
        source("brats", tmp_path, grades=table, columns={"label": "WHO"}).listing()


def graded(folder: Path, text: str, **changes: object) -> Listing:
    for number in range(2):
        write_case(folder, f"BraTS2021_0000{number}")
    (folder / "grades.csv").write_text(text)
    return source("brats", folder, grades=folder / "grades.csv", **changes).listing()


def test_a_table_that_contradicts_itself_is_not_believed(tmp_path: Path):
    text = "id,grade\nBraTS2021_00000,HGG\nBraTS2021_0,LGG\nBraTS2021_00001,LGG\n"
    (problem,) = graded(tmp_path, text).problems
    assert str(problem) == (
        "grades.csv brats2021_0: expected one grade, found HGG and LGG. Remove all rows of the id "
        "but one."
    )


def test_sites_come_with_the_grades(tmp_path: Path):
    text = "id,grade,site,hospital\nBraTS2021_00000,HGG,A,X\nBraTS2021_00001,LGG,,Y\n"
    assert [s.site for s in graded(tmp_path, text).subjects] == ["A", None]
    listing = graded(tmp_path, text, columns={"site": "hospital"})
    assert [s.site for s in listing.subjects] == ["X", "Y"]
    with pytest.raises(CohortError, match=r"expected a column clinic, found .*\{site: <column>\}"):
        graded(tmp_path, text, columns={"site": "clinic"})
    with pytest.raises(ConfigError, match=r"expected roles .*, got lable \(nearest: label\)"):
        graded(tmp_path, text, columns={"lable": "grade"})


def msd(root: Path) -> Path:
    rows = []
    for number in range(2):
        arrays = case_arrays(number)
        channels = np.stack([arrays[name] for name in ("flair", "t1", "t1ce", "t2")], axis=-1)
        labels = np.select([arrays["seg"] == 2, arrays["seg"] == 1, arrays["seg"] == 4], [1, 2, 3])
        save(root / "imagesTr" / f"BRATS_00{number}.nii.gz", channels)
        save(root / "labelsTr" / f"BRATS_00{number}.nii.gz", labels.astype(np.uint8))
        name = f"BRATS_00{number}.nii.gz"
        rows.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "training": rows}))
    return root


def test_the_decathlon_gives_the_channels_asked_for(tmp_path: Path):
    data = GliomaDataModule(
        reader="msd",
        root=str(msd(tmp_path)),
        cache_dir=str(tmp_path / "cache"),
        region="enhancing_tumour",
        spatial_dims=3,
        spatial_size=None,
        spacing_mm=None,
        normalisation="none",
    )
    data.setup("predict")
    (sample,) = data.sample("BRATS_001")
    arrays = case_arrays(1)
    for channel, name in zip(sample["image"], MODALITIES, strict=True):
        np.testing.assert_array_equal(channel, arrays[name][::-1, ::-1])
    np.testing.assert_array_equal(sample["lesion_mask"][0], arrays["seg"][::-1, ::-1] == 4)


def test_the_decathlon_needs_grades_and_its_description(tmp_path: Path):
    problems = source("msd", msd(tmp_path)).listing().problems
    assert str(problems[0]).startswith("BRATS_000: expected a grade, found none. Name a table")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(CohortError, match=r"expected the description of an MSD task .* Task01_Br"):
        source("msd", tmp_path).listing()


def picture(path: Path, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((12, 10) if mask else (12, 10, 3), np.uint8)
    pixels[3:9, 3:8] = 255 if mask else np.arange(90).reshape(6, 5, 3)
    Image.fromarray(pixels).save(path)


def test_a_folder_a_patient_with_masks_beside(tmp_path: Path):
    for number in (9, 10):
        picture(tmp_path / "TCGA_CS_4941_19960909" / f"TCGA_CS_4941_19960909_{number}.tif")
        picture(tmp_path / f"TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_{number}_mask.tif", True)
    table = tmp_path / "data.csv"
    table.write_text("Patient,grade\nTCGA_CS_4941,2\n")
    listing = source("images", tmp_path, grades=table, label_map={"2": "HGG"}).listing()
    first = listing.subjects[1]
    assert (first.subject_id, first.patient_id) == (
        "TCGA_CS_4941_19960909_9",
        "TCGA_CS_4941_19960909",
    )
    assert (first.slice_index, first.label, first.channels) == (9, 1, MODALITIES)
    assert first.lesion_mask is not None
    assert first.lesion_mask.name == "TCGA_CS_4941_19960909_9_mask.tif"
    assert listing.problems == ()


def test_a_folder_a_class_with_a_folder_of_masks(tmp_path: Path):
    for grade, patient in (("HGG", "A"), ("LGG", "B")):
        for number in (3, 4):
            picture(tmp_path / grade / "images" / f"{patient}_{number}.png")
            picture(tmp_path / grade / "masks" / f"{patient}_{number}.png", True)
    listing = source("images", tmp_path).listing()
    assert [(s.subject_id, s.patient_id, s.label, s.slice_index) for s in listing.subjects] == [
        ("A_3", "A", 1, 3),
        ("A_4", "A", 1, 4),
        ("B_3", "B", 0, 3),
        ("B_4", "B", 0, 4),
    ]
    assert all(s.lesion_mask is not None for s in listing.subjects)
    assert listing.problems == ()
    (tmp_path / "none").mkdir()
    with pytest.raises(CohortError, match=r"expected images \(\.png, \.tif.*found none\. Set"):
        source("images", tmp_path / "none").listing()


def test_images_of_one_name_and_masks_of_none_are_told(tmp_path: Path):
    picture(tmp_path / "HGG" / "A_3.png")
    picture(tmp_path / "LGG" / "A_3.png")
    picture(tmp_path / "LGG" / "B_3.png")
    picture(tmp_path / "LGG" / "B_3_mask.png", True)
    picture(tmp_path / "LGG" / "C_3_mask.png", True)
    texts = [str(problem) for problem in source("images", tmp_path).listing().problems]
    assert len(texts) == 3
    assert re.search(r"an image for every mask, found 1 without one, such as .*C_3_mask", texts[0])
    assert re.search(
        r"^A_3: expected one subject of this id, found 2, .*HGG/A_3.* and .*L", texts[1]
    )
    assert "expected a mask for every subject, found none for 2 of 3, such as A_3" in texts[2]


def test_the_patient_is_never_a_folder_above_the_class(tmp_path: Path):
    for part in ("train", "test"):
        for patient in ("A", "B"):
            picture(tmp_path / part / "HGG" / "images" / f"{part}{patient}_3.jpg")
    patients = [s.patient_id for s in source("images", tmp_path).listing().subjects]
    assert patients == ["testA", "testB", "trainA", "trainB"]


def test_two_masks_of_an_image_are_told_and_those_of_excluded_images_not(tmp_path: Path):
    for number in (3, 4):
        picture(tmp_path / "HGG" / f"A_{number}.png")
        picture(tmp_path / "HGG" / f"A_{number}_mask.png", True)
    picture(tmp_path / "HGG" / "A_3_seg.png", True)
    picture(tmp_path / "HGG" / "._A_3.png")
    listing = source("images", tmp_path, exclude={"A_4"}).listing()
    (problem,) = listing.problems
    assert str(problem) == (
        "A_3: expected one mask, found another in A_3_seg.png. Remove all but one."
    )
    assert listing.refused == {"A_3"}


def test_no_file_of_the_decathlon_lies_outside(tmp_path: Path):
    description = msd(tmp_path) / "dataset.json"
    description.write_text(description.read_text().replace("./labelsTr/BRATS_001", "../BRATS_001"))
    listing = source("msd", tmp_path).listing(graded=False)
    assert [subject.subject_id for subject in listing.subjects] == ["BRATS_000"]
    assert str(listing.problems[0]).startswith(
        f"BRATS_001: expected files inside {tmp_path}, found"
    )


def labelled(folder: Path, values: tuple[int, ...], edition: str | None = None) -> Listing:
    labels = np.zeros((4, 4, 4), np.int16)
    labels.flat[: len(values)] = values
    mask = save(folder / "seg.nii.gz", labels)
    return Listing((Subject("A", "A", 0, {}, lesion_mask=mask),), (), None, edition)


@pytest.mark.parametrize(
    ("values", "edition", "region", "scheme"),
    [
        ((1, 2, 4), None, "enhancing_tumour", "brats2018"),
        ((1, 2, 3, 4), "brats2023", "whole_tumour", "brats2024"),
        ((1, 2), "brats2018", "tumour_core", "brats2018"),
        ((1, 2), "brats2023", "tumour_core", "brats2023"),
        ((1, 2, 3), "brats2023", "enhancing_tumour", "brats2023"),
    ],
)
def test_the_scheme_is_told_from_masks_and_edition(tmp_path: Path, values, edition, region, scheme):
    listing = with_label_values(labelled(tmp_path, values, edition), region)
    assert listing.label_values == LABEL_SCHEMES[scheme]
    assert listing.problems == ()


def test_masks_that_break_the_edition_s_promise_are_named(tmp_path: Path):
    listing = with_label_values(labelled(tmp_path, (1, 2, 3), "brats2018"), "enhancing_tumour")
    assert listing.label_values == LABEL_SCHEMES["brats2023"]
    assert str(listing.problems[0]) == (
        "the cohort's masks: expected enhancing tumour as 4, as in brats2018, found masks that "
        "use 3. Set data.label_values if that is wrong."
    )


def test_a_cavity_is_annotated_but_no_tumour():
    values = region_values(LABEL_SCHEMES["brats2024"], "whole_tumour")
    assert values == {1, 2, 3}


def test_masks_of_one_value_need_no_scheme(tmp_path: Path):
    assert with_label_values(labelled(tmp_path, (255,)), "whole_tumour").label_values is None
    with pytest.raises(ConfigError, match=r"region=tumour_core needs data\.label_values, got null"):
        with_label_values(labelled(tmp_path, (255,)), "tumour_core")


def test_impossible_and_ambiguous_masks_are_refused(tmp_path: Path):
    with pytest.raises(CohortError, match=r"must be those of a published scheme .* found 1, 5, 7"):
        with_label_values(labelled(tmp_path, (1, 5, 7)), "whole_tumour")
    with pytest.raises(CohortError, match=r"mask values 1, 2, 3 must tell what tumour_core is"):
        with_label_values(labelled(tmp_path, (1, 2, 3)), "tumour_core")
    with pytest.raises(CohortError, match=r"else in brats2015 \(.*4 enh.* and brats2024 \(.*4 cav"):
        with_label_values(labelled(tmp_path, (1, 2, 3, 4)), "whole_tumour")
    known = with_label_values(labelled(tmp_path, (1, 2, 3)), "whole_tumour")
    assert set((known.label_values or {}).values()) == {1, 2, 3}


def test_one_site_is_left_out():
    subjects = [Subject(f"P{n}", f"P{n}", n % 2, {}, site=f"S{n // 2 % 3}") for n in range(30)]
    settings = SplitSettings(0.2, 0.2, test_sites=("S1",))
    assignment = split_patients(subjects, CLASSES, settings)
    tested = {s.site for s in subjects if assignment[s.patient_id] == "test"}
    others = {s.site for s in subjects if assignment[s.patient_id] != "test"}
    assert (tested, others) == ({"S1"}, {"S0", "S2"})
    with pytest.raises(CohortError, match=r"must be sites of the cohort \(S0, S1, S2\), found S9"):
        split_patients(subjects, CLASSES, SplitSettings(test_sites=("S9",)))
