from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioma_xai.data.split_files import read_splits, write_splits
from glioma_xai.data.split_settings import SplitSettings
from glioma_xai.data.splits import (
    guided_patients,
    patient_labels,
    split_patients,
)
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Subject

CLASSES = ("LGG", "HGG")


def cohort(low: int = 40, high: int = 60, sites: int = 2, scans: int = 1) -> list[Subject]:
    return [
        Subject(
            f"P{number}_{scan}", f"P{number}", int(number >= low), {}, site=f"S{number % sites}"
        )
        for number in range(low + high)
        for scan in range(scans)
    ]


def counts(assignment: dict[str, str], subjects: list[Subject], split: str) -> Counter[int]:
    labels = patient_labels(subjects)
    return Counter(labels[p] for p, found in assignment.items() if found == split)


def test_shares_of_each_class():
    subjects = cohort()
    assignment = split_patients(subjects, CLASSES, SplitSettings(0.2, 0.15))
    assert counts(assignment, subjects, "test") == {0: 8, 1: 12}
    assert counts(assignment, subjects, "validation") == {0: 6, 1: 9}
    assert counts(assignment, subjects, "train") == {0: 26, 1: 39}


def test_sites_are_spread_over_the_splits():
    subjects = cohort(sites=4)
    assignment = split_patients(subjects, CLASSES, SplitSettings(0.2, 0.2))
    tested = Counter(s.site for s in subjects if assignment[s.patient_id] == "test")
    assert set(tested.values()) == {5}


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1000), st.integers(4, 30), st.integers(4, 30), st.integers(1, 3), st.randoms()
)
def test_every_patient_once_whatever_the_order_of_rows(seed, low, high, scans, random):
    subjects = cohort(low, high, scans=scans)
    chosen = SplitSettings(0.3, 0.3, seed=seed)
    assignment = split_patients(subjects, CLASSES, chosen)
    shuffled = list(subjects)
    random.shuffle(shuffled)
    assert split_patients(shuffled, CLASSES, chosen) == assignment
    assert set(assignment) == {subject.patient_id for subject in subjects}


def test_a_cohort_of_one_class_can_be_tested_as_a_whole():
    subjects = cohort(0, 5)
    assert set(split_patients(subjects, CLASSES, SplitSettings(1.0)).values()) == {"test"}


def test_other_seeds_test_other_patients():
    first, second = (split_patients(cohort(), CLASSES, SplitSettings(seed=s)) for s in (0, 1))
    assert first != second


def test_folds_partition_what_is_not_tested():
    subjects = cohort()
    parts = [split_patients(subjects, CLASSES, SplitSettings(0.2, 0, 4, fold)) for fold in range(4)]
    tested = [{p for p, s in part.items() if s == "test"} for part in parts]
    assert all(group == tested[0] for group in tested)
    held_out = [p for part in parts for p, s in part.items() if s == "validation"]
    assert sorted(held_out) == sorted(set(parts[0]) - tested[0])
    for part in parts:
        assert counts(part, subjects, "validation") == {0: 8, 1: 12}


def prescribed(*rows: tuple[str, int, str | None, int | None]) -> list[Subject]:
    return [
        Subject(f"{patient}_{row}", patient, label, {}, split=split, fold=fold)  # type: ignore
        for row, (patient, label, split, fold) in enumerate(rows)
    ]


def test_folds_that_are_tested_hold_every_patient_once():
    subjects = cohort(37, 53)
    tested: Counter[str] = Counter()
    for fold in range(5):
        settings = SplitSettings(0.2, 0.15, folds=5, fold=fold, fold_split="test")
        assignment = split_patients(subjects, CLASSES, settings)
        found = Counter(assignment.values())
        assert found["validation"] == round(0.15 * 37) + round(0.15 * 53)
        tested.update(p for p, split in assignment.items() if split == "test")
    assert tested == Counter(s.patient_id for s in subjects)


def test_folds_that_are_tested_need_folds_and_no_other_test():
    subjects = cohort()
    with pytest.raises(CohortError, match=r"expected data\.folds, found null"):
        split_patients(subjects, CLASSES, SplitSettings(fold_split="test"))
    sites = SplitSettings(folds=5, fold_split="test", test_sites=("S0",))
    with pytest.raises(CohortError, match="expected no other test"):
        split_patients(subjects, CLASSES, sites)


def test_a_split_column_is_kept_and_the_rest_is_drawn():
    rows = [("A", 0, "test", None), ("B", 1, "test", None)]
    rows += [(f"C{n}", n % 2, None, None) for n in range(20)]
    assignment = split_patients(prescribed(*rows), CLASSES, SplitSettings(0.2, 0.2))
    assert [p for p, split in assignment.items() if split == "test"] == ["A", "B"]
    assert counts(assignment, prescribed(*rows), "validation") == {0: 2, 1: 2}


def test_a_fold_column_is_kept():
    rows = [(f"C{n}", n % 2, None, n % 5) for n in range(20)]
    assignment = split_patients(prescribed(*rows), CLASSES, SplitSettings(0, 0.2, 5, 3))
    validation = {p for p, split in assignment.items() if split == "validation"}
    assert validation == {"C3", "C8", "C13", "C18"}


def test_leakage_in_the_cohort_names_the_patient():
    rows = [("A", 0, "test", None), ("A", 0, "train", None)]
    with pytest.raises(CohortError, match=r"patient A must be in one split, found test, train\."):
        split_patients(prescribed(*rows), CLASSES, SplitSettings())
    rows = [("A", 0, None, 0), ("A", 0, None, 1)]
    with pytest.raises(CohortError, match=r"patient A must be in one fold, found \[0, 1\]\."):
        split_patients(prescribed(*rows), CLASSES, SplitSettings())


def test_a_class_too_small_is_named():
    with pytest.raises(CohortError, match=r"class LGG must have patients in train, validation, te"):
        split_patients(cohort(2, 30), CLASSES, SplitSettings())
    with pytest.raises(CohortError, match=r"patients of LGG, HGG, found none of LGG\. Add them"):
        split_patients(cohort(0, 30), CLASSES, SplitSettings())


def test_a_class_too_small_for_the_folds_is_named_in_every_fold():
    for fold in range(5):
        with pytest.raises(
            CohortError, match=r"class LGG must have a patient in each of 5 folds, fo"
        ):
            split_patients(cohort(4, 30), CLASSES, SplitSettings(0, 0, 5, fold))


def test_folds_within_each_site_left_out():
    """Nested: every site is tested once, and the folds divide the patients of the others."""
    subjects = cohort(30, 30, sites=3)
    site_of = {subject.patient_id: subject.site for subject in subjects}
    for site in ("S0", "S1", "S2"):
        parts = [
            split_patients(subjects, CLASSES, SplitSettings(folds=4, fold=fold, test_sites=(site,)))
            for fold in range(4)
        ]
        held_out = [p for part in parts for p, split in part.items() if split == "validation"]
        assert sorted(held_out) == sorted(p for p in site_of if site_of[p] != site)
        for part in parts:
            tested = {p for p, split in part.items() if split == "test"}
            assert tested == {p for p in site_of if site_of[p] == site}
            assert counts(part, subjects, "validation") == {0: 5, 1: 5}


def test_splits_are_read_back(tmp_path: Path):
    assignment = split_patients(cohort(), CLASSES, SplitSettings())
    write_splits(assignment, tmp_path / "splits.csv")
    assert read_splits(tmp_path / "splits.csv", assignment) == assignment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A,train\nA,test\nB,test\n", r"patient A must be in one split, found test, train"),
        ("A,train\nB,tset\n", r"split must be one of train, validation, test, found tset for .* B"),
        ("A,train\n", r"found 1 in the cohort that are not in .*splits\.csv: B\. Use"),
        ("A,train\nB,test\nC,test\n", r"found 1 in .*splits\.csv that are not in the cohort: C\."),
    ],
)
def test_a_wrong_splits_file_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "splits.csv"
    path.write_text("patient,split\n" + text)
    with pytest.raises(CohortError, match=message):
        read_splits(path, ["A", "B"])


def test_a_splits_file_may_name_who_is_left_out(tmp_path: Path):
    (tmp_path / "splits.csv").write_text("patient,split\nA,train\nB,test\nC,test\n")
    assert read_splits(tmp_path / "splits.csv", ["A", "B"], also=["C"]) == {
        "A": "train",
        "B": "test",
    }


@pytest.mark.parametrize(
    ("fold", "folds", "column", "message"),
    [
        (2, None, (), r"data\.fold must be one of 0, found 2\. Set it .*, or set data\.folds\."),
        (
            0,
            None,
            (1, 2, 3),
            r"data\.fold must be one of 1, 2, 3, found 0\. Set it to one of them\.",
        ),
    ],
)
def test_a_fold_that_is_not_there(fold, folds, column, message):
    subjects = [
        replace(s, fold=column[n % len(column)] if column else None) for n, s in enumerate(cohort())
    ]
    with pytest.raises(CohortError, match=message):
        split_patients(subjects, CLASSES, SplitSettings(folds=folds, fold=fold))


def test_sites_and_a_column_cannot_both_say_who_is_tested():
    subjects = [
        Subject(f"P{n}", f"P{n}", n % 2, {}, site=f"S{n % 3}", split="test" if n < 4 else None)
        for n in range(30)
    ]
    with pytest.raises(CohortError, match=r"expected no other test patients, found some\. Leave"):
        split_patients(subjects, CLASSES, SplitSettings(test_sites=("S1",)))


def test_a_splits_file_must_be_one(tmp_path: Path):
    with pytest.raises(CohortError, match=r"expected a file at .*, found none"):
        read_splits(tmp_path / "absent.csv", [])
    (tmp_path / "other.csv").write_text("id,set\nA,train\n")
    with pytest.raises(CohortError, match=r"expected the columns patient and split, found id, set"):
        read_splits(tmp_path / "other.csv", [])


def test_masks_of_a_share_of_the_training_patients():
    subjects = cohort(200, 300)
    assignment = split_patients(subjects, CLASSES, SplitSettings())
    labels = patient_labels(subjects)
    tenth, quarter = (
        guided_patients(assignment, labels, share, 0, masked=labels) for share in (0.1, 0.25)
    )
    training = counts(assignment, subjects, "train")
    assert Counter(labels[p] for p in tenth) == {c: round(0.1 * n) for c, n in training.items()}
    assert tenth < quarter
    assert all(assignment[p] == "train" for p in quarter)
    assert len(guided_patients(assignment, labels, 0.001, 0, masked=labels)) == 2
    assert guided_patients(assignment, labels, 0, 0, masked=labels) == frozenset()


def test_patients_without_a_mask_are_not_counted_as_long_as_others_have_one():
    subjects = cohort(200, 300)
    assignment = split_patients(subjects, CLASSES, SplitSettings())
    labels = patient_labels(subjects)
    masked = set(sorted(labels)[::2])
    tenth = guided_patients(assignment, labels, 0.1, 0, masked=masked)
    assert tenth < masked
    assert len(tenth) == len(guided_patients(assignment, labels, 0.1, 0, masked=labels))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.6, 0.5), r"must add up to less than 1, got 0\.6 \+ 0\.5"),
        ((-0.1, 0.5), r"must not be negative, got -0\.1 and 0\.5"),
        ((0.2, 0.2, 1, 0), r"got folds=1, fold=0"),
        ((0.2, 0.2, 5, 5), r"got folds=5, fold=5"),
    ],
)
def test_settings_out_of_range(values, message):
    with pytest.raises(ConfigError, match=message):
        SplitSettings(*values)


def test_an_ungraded_scan_takes_the_patients_grade():
    subjects = [Subject("A_1", "A", None, {}), Subject("A_2", "A", 1, {})]
    assert patient_labels(subjects) == {"A": 1}
