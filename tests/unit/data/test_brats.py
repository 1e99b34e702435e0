import re
from pathlib import Path

import pytest

from glioma_xai.data.brats import list_brats, patient_of
from glioma_xai.data.name_mapping import read_mapping, site_of
from glioma_xai.errors import CohortError
from tests.unit.data.small_cohorts import case_arrays, save, write_case

CLASSES = ("LGG", "HGG")


def test_2018_folders_give_grade_site_and_patient(brats_root: Path):
    listing = list_brats(brats_root, classes=CLASSES)
    assert [s.label for s in listing.subjects].count(1) == 6
    first = listing.subjects[0]
    assert (first.subject_id, first.patient_id, first.site) == (
        "Brats18_CBICA_001_1",
        "Brats18_CBICA_001",
        "CBICA",
    )
    assert set(first.images) == {"t1", "t1ce", "t2", "flair"}
    assert first.lesion_mask is not None
    assert first.lesion_mask.name == "Brats18_CBICA_001_1_seg.nii.gz"
    assert listing.problems == ()
    assert (listing.label_values, listing.edition) == (None, "brats2018")


def test_2020_grades_come_from_the_mapping_and_case_355_is_found(tmp_path: Path):
    root = tmp_path / "MICCAI_BraTS2020_TrainingData"
    write_case(root, "BraTS20_Training_001")
    folder = root / "BraTS20_Training_355"
    for name, array in case_arrays().items():
        stem = "W39_1998.09.19_Segm" if name == "seg" else f"BraTS20_Training_355_{name}"
        save(folder / f"{stem}.nii", array)
    (root / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
        "BraTS_2019_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "LGG,NA,NA,NA,BraTS19_TMC_06290_1,BraTS20_Training_355\n"
    )
    listing = list_brats(tmp_path, classes=CLASSES)
    assert [(s.subject_id, s.label, s.site) for s in listing.subjects] == [
        ("BraTS20_Training_001", 1, "CBICA"),
        ("BraTS20_Training_355", 0, "TMC"),
    ]
    assert listing.subjects[1].lesion_mask == folder / "W39_1998.09.19_Segm.nii"
    assert listing.problems == ()


def test_scans_of_one_tcga_patient_stay_together(tmp_path: Path):
    for number in (1, 2, 3):
        write_case(tmp_path, f"BraTS20_Training_00{number}", seg=None)
    rows = "".join(
        f"HGG,BraTS20_Training_00{number},{tcia}\n"
        for number, tcia in ((1, "TCGA-02-0001"), (2, "TCGA-02-0001"), (3, "NA"))
    )
    head = "Grade,BraTS_2020_subject_ID,TCGA_TCIA_subject_ID\n"
    (tmp_path / "name_mapping.csv").write_text(head + rows)
    patients = [s.patient_id for s in list_brats(tmp_path, classes=CLASSES).subjects]
    assert patients == ["TCGA-02-0001", "TCGA-02-0001", "BraTS20_Training_003"]
    (other,) = list_brats(tmp_path, classes=CLASSES, exclude=["TCGA-02-0001"]).subjects
    assert other.subject_id == "BraTS20_Training_003"


MAPPING = "Grade,BraTS_2020_subject_ID\n"


def test_a_grade_that_is_no_class_is_that_case_s_problem(tmp_path: Path):
    for number in range(1, 5):
        write_case(tmp_path, f"BraTS20_Training_00{number}")
    rows = "HGG,BraTS20_Training_001\nXGG,BraTS20_Training_002\n,BraTS20_Training_003\n"
    (tmp_path / "name_mapping.csv").write_text(MAPPING + rows)
    listing = list_brats(tmp_path, classes=CLASSES)
    assert [s.label for s in listing.subjects] == [1, None, None, None]
    found = [(p.where[-3:], p.expected, p.found) for p in listing.problems]
    assert found == [
        ("002", "one of LGG, HGG", "grade XGG"),
        ("003", "a grade", "none"),
        ("004", "a grade", "none"),
    ]


def test_the_mapping_of_the_validation_cases_has_no_grades(tmp_path: Path):
    write_case(tmp_path / "train", "BraTS20_Training_001")
    (tmp_path / "train" / "name_mapping.csv").write_text(MAPPING + "HGG,BraTS20_Training_001\n")
    validation = tmp_path / "validation" / "name_mapping_validation_data.csv"
    validation.parent.mkdir()
    validation.write_text("BraTS_2020_subject_ID\nBraTS20_Validation_001\n")
    assert list_brats(tmp_path, classes=CLASSES).subjects[0].label == 1
    with pytest.raises(CohortError, match="expected a column Grade, found BraTS_2020_subject_ID"):
        read_mapping([validation])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Grade,ID\nHGG,BraTS20_Training_001\n", r"expected columns such as BraTS_2020_subject_ID"),
        (f"{MAPPING}HGG,A\nLGG,A\n", r"expected one grade for each case, found two for A\. Remove"),
    ],
)
def test_a_mapping_that_does_not_say_whose_grade_it_is(tmp_path: Path, text: str, message: str):
    (tmp_path / "name_mapping.csv").write_text(text)
    with pytest.raises(CohortError, match=message):
        read_mapping([tmp_path / "name_mapping.csv"])


def test_2023_names_and_scheme(tmp_path: Path):
    names = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}
    case = "BraTS-GLI-00017-001"
    for name, array in case_arrays().items():
        save(tmp_path / "HGG" / case / f"{case}-{names[name]}.nii.gz", array)
    listing = list_brats(tmp_path, classes=CLASSES)
    (subject,) = listing.subjects
    assert set(subject.images) == {"t1", "t1ce", "t2", "flair"}
    assert subject.patient_id == "BraTS-GLI-00017"
    assert listing.edition == "brats2023"


@pytest.mark.parametrize(
    ("case", "site", "patient"),
    [
        ("Brats18_2013_2_1", "2013", "Brats18_2013_2"),
        ("Brats18_TCIA01_131_1", "TCIA01", "Brats18_TCIA01_131"),
        ("BraTS19_CBICA_AAB_1", "CBICA", "BraTS19_CBICA_AAB"),
        ("BraTS20_Training_001", None, "BraTS20_Training_001"),
        ("BraTS2021_00000", None, "BraTS2021_00000"),
        ("UCSF-PDGM-0004", None, "UCSF-PDGM-0004"),
        ("Phantom_SiteA_0001_1", "SiteA", "Phantom_SiteA_0001"),
    ],
)
def test_ids_name_site_and_patient(case: str, site: str | None, patient: str):
    assert site_of(case) == site
    assert patient_of(case) == patient


def test_variants_and_excluded_cases_are_passed_over(brats_root: Path):
    write_case(brats_root / "variants" / "removed" / "HGG", "Brats18_CBICA_001_1")
    listing = list_brats(brats_root, classes=CLASSES, exclude=["Brats18_CBICA_003"])
    assert len(listing.subjects) == 11


def test_problems_name_case_and_fix(brats_root: Path):
    write_case(brats_root, "Brats18_CBICA_100_1")  # below neither HGG nor LGG
    write_case(brats_root / "LGG", "Brats18_CBICA_001_1")
    (brats_root / "HGG/Brats18_TCIA01_000_1/Brats18_TCIA01_000_1_seg.nii.gz").unlink()
    text = "\n".join(str(p) for p in list_brats(brats_root, classes=CLASSES).problems)
    assert re.search(r"Brats18_CBICA_100_1: expected a grade, found none\. Put it", text)
    assert re.search(r"Brats18_CBICA_001_1: expected one folder, found .*LGG.* and ", text)
    assert re.search(r"TCIA01_000_1: expected a segmentation, found none\. It is used", text)


@pytest.mark.parametrize("place", ["LGG/Brats18_CBICA_200_1", "BraTS20_Training_200"])
@pytest.mark.parametrize("content", [None, "t1.nii.gz", "BraTS20_Training_201_t1.nii.gz"])
def test_a_folder_called_like_a_case_is_one_whatever_it_holds(brats_root: Path, place, content):
    folder = brats_root / place
    folder.mkdir()
    if content is not None:
        save(folder / content, case_arrays()["t1"])
    (empty,) = [s for s in list_brats(brats_root, classes=CLASSES).subjects if not s.images]
    assert empty.subject_id == folder.name


def test_linked_folders_are_read_and_loops_end(brats_root: Path, tmp_path: Path):
    elsewhere = write_case(tmp_path / "elsewhere", "Brats18_CBICA_400_1")
    (brats_root / "HGG" / elsewhere.name).symlink_to(elsewhere)
    (brats_root / "HGG" / "back").symlink_to(brats_root)
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "round").symlink_to(brats_root)
    (brats_root / "round").symlink_to(tmp_path / "beside")
    listing = list_brats(brats_root, classes=CLASSES)
    assert [s.label for s in listing.subjects if s.subject_id == elsewhere.name] == [1]
    assert len(listing.subjects) == 13
    assert listing.problems == ()


def test_volumes_that_belong_to_no_case_are_named(brats_root: Path):
    save(brats_root / "patient 7" / "t1.nii.gz", case_arrays()["t1"])
    (problem,) = list_brats(brats_root, classes=CLASSES).problems
    assert problem.severity == "warning"
    assert problem.found == f"other volumes in 1 folders, such as {brats_root / 'patient 7'}"


def test_a_segmentation_of_another_case_is_not_taken(brats_root: Path):
    folder = write_case(brats_root / "HGG", "Brats18_CBICA_300_1", seg=None)
    save(folder / "Brats18_CBICA_301_1_seg.nii.gz", case_arrays()["seg"])
    listing = list_brats(brats_root, classes=CLASSES)
    (problem,) = listing.problems
    assert str(problem).startswith("Brats18_CBICA_300_1: expected a segmentation, found none.")
    assert next(s for s in listing.subjects if "300" in s.subject_id).lesion_mask is None


def test_two_files_of_one_kind(brats_root: Path):
    folder = brats_root / "HGG/Brats18_TCIA01_000_1"
    save(folder / "Brats18_TCIA01_000_1_t1.nii", case_arrays(9)["t1"])
    (problem,) = list_brats(brats_root, classes=CLASSES).problems
    assert str(problem) == (
        "Brats18_TCIA01_000_1: expected one file of a kind, found another in "
        "Brats18_TCIA01_000_1_t1.nii.gz. Remove all but one."
    )


def test_what_is_no_cohort_is_refused(tmp_path: Path, brats_root: Path):
    with pytest.raises(CohortError, match=r"expected a folder at .*absent, found nothing there"):
        list_brats(tmp_path / "absent", classes=CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match=r"expected folders like Brats18_.* found none"):
        list_brats(tmp_path / "empty", classes=CLASSES)
    with pytest.raises(CohortError, match=r"expected the classes G2, G3, found HGG, LGG\. Set"):
        list_brats(brats_root, classes=("G2", "G3"))
