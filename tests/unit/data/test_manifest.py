import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glioma_xai.data.manifest import list_manifest
from glioma_xai.errors import CohortError, ConfigError

COLUMNS = {"patient": "case", "label": "grade"}


def read(manifest: Path, **changes: object):
    settings: dict[str, object] = {
        "root": None,
        "columns": COLUMNS,
        "classes": ("G2", "G3"),
        "modalities": ("t1", "flair"),
        "label_values": None,
    }
    return list_manifest(manifest, **(settings | changes))  # type: ignore[arg-type]


def write(folder: Path, text: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text(text)
    return path


def test_rows_of_slices_belong_to_one_patient(tmp_path: Path):
    text = "case,slice,image,mask,grade,site\n007,3,a.png,b.png,g3,HT\n007,5,c.png,,G3,HT\n"
    listing = read(write(tmp_path, text))
    first, second = listing.subjects
    assert (first.subject_id, first.patient_id, first.label) == ("007_3", "007", 1)
    assert (first.slice_index, first.site, first.channels) == (3, "HT", ("t1", "flair"))
    assert first.images == {"image": tmp_path / "a.png"}
    assert first.lesion_mask == tmp_path / "b.png"
    assert second.lesion_mask is None
    assert listing.problems == ()


def test_a_column_a_modality_split_and_fold(tmp_path: Path):
    text = "case,t1,flair,grade,split,fold\nA,a.nii,b.nii,G2,val,1\n"
    (subject,) = read(write(tmp_path, text)).subjects
    assert subject.images == {"t1": tmp_path / "a.nii", "flair": tmp_path / "b.nii"}
    assert (subject.channels, subject.split, subject.fold) == ((), "validation", 1)


def test_json_records_and_sessions(tmp_path: Path):
    rows = [{"case": "A", "session": s, "image": f"{s}.nii", "grade": "G2"} for s in ("v1", "v2")]
    path = tmp_path / "cohort.json"
    path.write_text(json.dumps(rows))
    assert [s.subject_id for s in read(path).subjects] == ["A_v1", "A_v2"]


def test_the_line_is_that_of_the_file(tmp_path: Path):
    text = 'case,image,grade,note\nA,a.png,G2,"two\nlines"\n\nB,b.png,G9,\n'
    (problem,) = read(write(tmp_path, text)).problems
    assert problem.where == "cohort.csv line 5"


def test_numbers_from_json_stay_whole(tmp_path: Path):
    rows = [{"case": "A", "slice": 3, "image": "a.png", "grade": "G2"}]
    rows += [{"case": "B", "image": "b.png", "grade": "G3"}]
    (tmp_path / "cohort.json").write_text(json.dumps(rows))
    first, second = read(tmp_path / "cohort.json").subjects
    assert (first.subject_id, first.slice_index) == ("A_3", 3)
    assert (second.subject_id, second.slice_index) == ("B", None)


def test_wrong_columns_name_the_nearest(tmp_path: Path):
    path = write(tmp_path, "case_id,image,grade\nA,a.png,G2\n")
    with pytest.raises(CohortError, match=r"column case for patient, found .*\(nearest: case_id\)"):
        read(path)
    with pytest.raises(ConfigError, match=r"expected roles .*, got pateint \(nearest: patient\)"):
        read(path, columns={"pateint": "case_id"})
    path = write(tmp_path, "case,grade\nA,G2\n")
    with pytest.raises(CohortError, match=r"expected a column image for image, found case, grade"):
        read(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,1,../x.png,,G2", r"line 2: expected a file inside .*, found \.\./x\.png\. Move"),
        ("A,1,/etc/x.png,,G2", r"line 2: expected a file inside .*, found /etc/x\.png"),
        ("A,1,a.png,,G4", r"line 2: expected one of G2, G3, found label G4\. Correct it"),
        ("A,1,a.png,,", r"line 2: expected one of G2, G3, found no label"),
        (",1,a.png,,G2", r"line 2: expected a patient, found an empty cell\. Fill it in"),
        ("A,one,a.png,,G2", r"line 2: expected a whole number as slice, found one"),
        ("A,3.7,a.png,,G2", r"line 2: expected a whole number as slice, found 3\.7\. Correct it"),
        ("A,inf,a.png,,G2", r"line 2: expected a whole number as slice, found inf"),
    ],
)
def test_problems_name_the_line(tmp_path: Path, row: str, message: str):
    problems = read(write(tmp_path, f"case,slice,image,mask,grade\n{row}\n")).problems
    assert len(problems) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(str(problems[0]))


def test_duplicates_by_patient_and_slice_and_by_file(tmp_path: Path):
    text = "case,slice,image,grade\nA,1,a.png,G2\nA,1,b.png,G2\nB,1,c.png,G3\nB,2,c.png,G3\n"
    found = [str(problem) for problem in read(write(tmp_path, text)).problems]
    assert found[0].startswith("cohort.csv A_1: expected one row, found 2 rows.")
    assert "expected one subject that uses the file, found it under B_1, B_2" in found[1]


def test_files_outside_the_root_are_allowed_on_request(tmp_path: Path):
    path = write(tmp_path, "case,image,grade\nA,../x.png,G2\n")
    assert read(path, allow_outside_root=True).problems == ()


def test_excluded_rows_and_missing_grades(tmp_path: Path):
    path = write(tmp_path, "case,image,grade\nA,a.png,G2\nB,b.png,\n")
    assert read(path, exclude=["B"]).problems == ()
    ungraded = read(path, graded=False)
    assert [s.label for s in ungraded.subjects] == [0, None]
    assert ungraded.problems == ()


def test_png_rows_become_arrays_of_the_right_way_round(tmp_path: Path):
    from glioma_xai.data.files import read_volume

    pixels = np.zeros((4, 6, 3), np.uint8)  # 4 rows, 6 columns
    pixels[1, 5] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data, affine = read_volume(tmp_path / "a.png")
    assert data.shape == (3, 6, 4, 1)  # C, along a row, down a column, one slice
    assert data[:, 5, 1, 0].tolist() == [10, 20, 30]
    assert affine.diagonal().tolist() == [-1, -1, 1, 1]
