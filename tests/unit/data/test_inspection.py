import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.confounders import Traits, traits_of, visible_shortcuts
from glioma_xai.data.volumes import LoadedSubject
from glioma_xai.errors import CohortError
from glioma_xai.records import Problem, Subject
from tests.unit.data.small_cohorts import LPS, SHAPE, brain_of, case_arrays, write_case

CLASSES = ("LGG", "HGG")


def patient(number: int, label: int, **changes: object) -> Traits:
    values = {
        "categories": {"site": "A", "orientation": "LPS"},
        "levels": bright(500.0 + number % 7),
        "identical": (),
    }
    return Traits(f"P{number}_1", f"P{number}", label, **(values | changes))  # type: ignore


def bright(value: float) -> dict[str, tuple[float, ...]]:
    return {"t1": (0.0, value / 2, value, 2 * value)}


def texts(problems: list[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


def test_a_balanced_cohort_gives_no_warning():
    traits = [
        patient(n, n % 2, categories={"site": f"S{n // 2 % 3}", "orientation": "LPS"})
        for n in range(60)
    ]
    assert visible_shortcuts(traits, CLASSES) == []


def test_a_site_that_gives_the_class_away_is_named_with_counts():
    traits = [
        patient(n, n % 2, categories={"site": "AB"[(n % 2 + (n % 10 == 0)) % 2]}) for n in range(40)
    ]
    (text,) = texts(visible_shortcuts(traits, CLASSES))
    assert text.startswith("site and class: expected no relation, found they are tied (Cramér's V ")
    assert "A: 16 LGG, 0 HGG; B: 4 LGG, 20 HGG. Report results by it" in text


def test_cramers_v_by_hand():
    """20 and 20 patients, 15 and 5 of each class at site A: V = |15 - 5| / 20 = .5."""
    traits = [
        patient(n, n % 2, categories={"site": "A" if (n // 2 < (15 if n % 2 else 5)) else "B"})
        for n in range(40)
    ]
    (text,) = texts(visible_shortcuts(traits, CLASSES))
    assert "Cramér's V 0.50" in text


def test_brightness_that_gives_the_class_away():
    traits = [patient(n, n % 2, levels=bright(500 + 300 * (n % 2) + n)) for n in range(40)]
    (text,) = texts(visible_shortcuts(traits, CLASSES))
    assert text.startswith("brightness of t1 and class: expected no relation, found they are tied")
    assert "AUC 1.00" in text


def test_a_bright_tumour_is_no_shortcut():
    image = np.where(brain_of(), 300.0, 0.0).astype(np.float32)[None]
    labels = np.zeros(SHAPE, np.float32)
    labels[8:12, 8:12] = 1
    subject = Subject("A", "A", 1, {"t1": Path("a.nii.gz")})
    plain = traits_of(subject, LoadedSubject(image, labels, np.eye(4)), ["t1"])
    image = np.where(labels == 1, 5000, image)
    other = traits_of(subject, LoadedSubject(image, labels, np.eye(4)), ["t1"])
    assert other.levels == plain.levels == {"t1": (300.0,) * 4}
    assert other.categories == {
        "site": "",
        "file type": "NIfTI",
        "orientation": "RAS",
        "size": "20 x 24 x 6",
        "spacing in mm": "1 x 1 x 1",
    }


def test_a_mask_beside_the_brain_is_named(settings, brats_root: Path):
    seg = np.roll(case_arrays(51)["seg"], 8, axis=1)  # off centre, half of it in the air
    write_case(brats_root / "HGG", "Brats18_CBICA_051_1", seed=51, seg=seg)
    share = float((seg[~brain_of()] > 0).sum() / (seg > 0).sum())
    (problem,) = GliomaDataModule(**settings()).inspect().problems
    assert problem.where == "Brats18_CBICA_051_1"
    assert problem.found == f"{share:.0%} of it outside"
    assert problem.severity == "warning"


def test_a_patient_of_two_classes_is_named(settings, brats_root: Path):
    write_case(brats_root / "LGG", "Brats18_CBICA_001_2", seed=53)
    (problem,) = GliomaDataModule(**settings()).inspect().problems
    assert (problem.where, problem.found) == ("Brats18_CBICA_001", "LGG and HGG")


def test_masks_without_a_scheme_do_not_hide_other_problems(settings, brats_root: Path):
    for path in brats_root.rglob("*_seg.nii.gz"):
        nib.save(nib.Nifti1Image(2 * nib.load(path).get_fdata(), LPS), path)
    write_case(brats_root / "HGG", "Brats18_CBICA_052_1", t2=None)
    first, second = GliomaDataModule(**settings()).inspect().errors
    assert str(first).startswith("mask values must be those of a published scheme")
    assert second.where == "Brats18_CBICA_052_1"


def test_slices_of_a_patient_count_once():
    traits = [patient(0, 0, categories={"site": "A"})] * 50
    traits += [patient(1, 1, categories={"site": "B"})] * 50
    assert visible_shortcuts(traits, CLASSES) == []


def test_missing_sequences_are_counted_by_class():
    traits = [patient(n, n % 2, identical=("t1 = flair",) if n in (2, 4) else ()) for n in range(8)]
    (text,) = texts(visible_shortcuts(traits, CLASSES))
    assert "t1 = flair for 2 patients (2 of 4 LGG, 0 of 4 HGG): P2, P4." in text


def test_a_whole_cohort(settings, brats_root: Path, tmp_path: Path):
    flair = case_arrays(50)["flair"]
    write_case(brats_root / "HGG", "Brats18_CBICA_050_1", seed=50, t2=flair)
    data = GliomaDataModule(**settings(spatial_size=[8, 20]))
    problems = data.inspect(page=tmp_path / "report" / "check.html").problems
    assert {problem.severity for problem in problems} == {"warning"}
    found = "\n".join(texts(problems))
    assert "t2 = flair for 1 patients (0 of 6 LGG, 1 of 7 HGG): Brats18_CBICA_050." in found
    assert re.search(r"data\.spatial_size: expected the whole brain inside, found 13 of 13", found)
    page = (tmp_path / "report" / "check.html").read_text()
    assert page.count("<img") == 13
    assert "Brats18_CBICA_050_1 HGG" in page
    rows = " ".join(page.replace("<td>", "").replace("</td>", "").split())
    assert "patients 6 7" in rows
    assert "patients: site CBICA 3 4" in rows
    assert "http" not in page.replace("http-equiv", "")


def test_copies_under_other_names_are_refused_or_left_out(settings, brats_root: Path):
    write_case(brats_root / "HGG", "Brats18_CBICA_077_1", seed=3)  # the content of number 3
    message = (
        r"Brats18_CBICA_003_1, Brats18_CBICA_077_1: expected different images, found the same "
        r"content in 2 subjects of 2 patients \(HGG\b.*\)\. Keep one"
    )
    data = GliomaDataModule(**settings())
    assert any(re.search(message, text) for text in texts(data.inspect().problems))
    with pytest.raises(CohortError, match=message):
        data.setup()
    skipping = GliomaDataModule(**settings(on_error="skip"))
    assert skipping.table["patient_id"].nunique() == 12
    assert len(skipping.left_out) == 1


def test_a_cohort_that_cannot_be_listed_is_one_problem(settings, tmp_path: Path):
    (problem,) = GliomaDataModule(**settings(root=str(tmp_path / "absent"))).inspect().problems
    assert str(problem).startswith("data.root must be a cohort's folder: expected a folder at")
    assert problem.severity == "error"


def test_one_class_only(settings, brats_root: Path):
    for path in list((brats_root / "LGG").iterdir()):
        path.rename(brats_root / "HGG" / path.name)
    found = texts(GliomaDataModule(**settings()).inspect().problems)
    assert any("must have patients of LGG, HGG, found none of LGG" in text for text in found)


def test_every_problem_of_one_cohort_at_once(settings, brats_root: Path):
    write_case(brats_root / "HGG", "Brats18_CBICA_060_1", t1ce=None)
    seg = case_arrays()["seg"]
    seg[0, 0, 0] = 7
    write_case(brats_root / "HGG", "Brats18_CBICA_061_1", seed=61, seg=seg)
    nan = case_arrays(62)["t2"].astype(np.float32)
    nan[5, 5, 2] = np.nan
    write_case(brats_root / "LGG", "Brats18_CBICA_062_1", seed=62, t2=nan)
    empty = np.zeros_like(seg)
    write_case(brats_root / "LGG", "Brats18_CBICA_063_1", seed=63, seg=empty)
    write_case(brats_root, "Brats18_CBICA_064_1", seed=64, t2=None)  # without a grade, too
    problems = GliomaDataModule(**settings()).inspect().problems
    errors = [problem for problem in problems if problem.severity == "error"]
    found = [re.search(r"06\d", error.where).group() for error in errors]
    assert found == ["064", "060", "061", "062", "064"]
    assert problems[5].found == "an empty mask"
