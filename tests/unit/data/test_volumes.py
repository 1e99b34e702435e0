"""Every kind of broken file is named, with what was expected and what was found."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from glioma_xai.data.brats import list_brats
from glioma_xai.data.files import read_volume, try_volume
from glioma_xai.data.layout import LABEL_SCHEMES
from glioma_xai.data.volumes import load_subject
from glioma_xai.errors import SubjectError
from glioma_xai.records import Problem, Subject
from tests.unit.data.small_cohorts import LPS, SHAPE, brain_of, case_arrays, save, write_case

SCHEME = LABEL_SCHEMES["brats2018"]
CASE = "Brats18_CBICA_001_1"


def subject_of(root: Path, **changes: np.ndarray | None) -> Subject:
    write_case(root / "HGG", CASE, **changes)
    return list_brats(root, classes=("LGG", "HGG")).subjects[0]


def problems_of(subject: Subject) -> list[Problem]:
    return load_subject(subject, ("t2", "t1ce", "flair"), SCHEME)[1]


def test_channels_come_in_the_order_asked_for(tmp_path: Path):
    loaded, problems = load_subject(subject_of(tmp_path), ("flair", "t1"), SCHEME)
    arrays = case_arrays()
    assert problems == []
    assert loaded is not None
    np.testing.assert_array_equal(loaded.image, np.stack([arrays["flair"], arrays["t1"]]))
    np.testing.assert_array_equal(loaded.labels, arrays["seg"])
    np.testing.assert_array_equal(loaded.affine, LPS)


def test_missing_modality(tmp_path: Path):
    (problem,) = problems_of(subject_of(tmp_path, flair=None))
    assert str(problem).startswith(
        f"{CASE}: expected t2, t1ce, flair, found t2, t1ce. Restore flair, add the id"
    )


def test_truncated_and_alien_files(tmp_path: Path):
    subject = subject_of(tmp_path)
    cut = subject.images["t2"]
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    subject.images["flair"].write_bytes(gzip.compress(b"no image"))
    texts = [str(problem) for problem in problems_of(subject)]
    assert len(texts) == 2
    assert all("expected a readable NIfTI file, found a damaged or truncated" in t for t in texts)
    with pytest.raises(SubjectError, match=r"expected a readable NIfTI .* Copy it again"):
        read_volume(cut)


def test_absent_file(tmp_path: Path):
    subject = replace(subject_of(tmp_path), lesion_mask=tmp_path / "gone.nii.gz")
    (problem,) = problems_of(subject)
    assert str(problem).endswith("gone.nii.gz: expected a file, found none. Restore it.")


def test_shape_mismatch(tmp_path: Path):
    subject = subject_of(tmp_path, seg=case_arrays(shape=(20, 24, 5))["seg"])
    (problem,) = problems_of(subject)
    assert problem.expected == f"shape {SHAPE} as in {CASE}_t2.nii.gz"
    assert problem.found == "(20, 24, 5)"


def test_affine_mismatch(tmp_path: Path):
    subject = subject_of(tmp_path)
    assert subject.lesion_mask is not None
    moved = LPS.copy()
    moved[0, 3] = 5
    save(subject.lesion_mask, case_arrays()["seg"], moved)
    (problem,) = problems_of(subject)
    assert "affine" in problem.expected
    assert "5.0" in problem.found
    assert "copy the right header" in problem.fix


@pytest.mark.parametrize(
    ("value", "expected", "found"),
    [
        (np.nan, "finite values", "1 voxels of flair that are NaN or infinite"),
        (np.inf, "finite values", "1 voxels of flair that are NaN or infinite"),
    ],
)
def test_values_that_are_not_finite(tmp_path: Path, value: float, expected: str, found: str):
    flair = case_arrays()["flair"].astype(np.float32)
    flair[3, 4, 2] = value
    (problem,) = problems_of(subject_of(tmp_path, flair=flair))
    assert (problem.expected, problem.found) == (expected, found)


def test_a_header_that_places_one_file_nowhere(tmp_path: Path):
    subject = subject_of(tmp_path)
    image = nib.Nifti1Image(case_arrays()["flair"], LPS)
    image.header["srow_x"] = [-1, 0, 0, np.nan]
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    subject.images["flair"].write_bytes(gzip.compress(nifti_bytes(image)))
    (problem,) = problems_of(subject)
    assert problem.where.endswith("_flair.nii.gz")
    assert "nan" in problem.found


def nifti_bytes(image: nib.Nifti1Image) -> bytes:
    """The file with the header as it is; to_bytes would put the image's own affine there."""
    header = image.header.copy()
    header.set_data_offset(352)
    return header.binaryblock + bytes(4) + np.asarray(image.dataobj).tobytes(order="F")


def test_constant_volume(tmp_path: Path):
    (problem,) = problems_of(subject_of(tmp_path, t2=np.full(SHAPE, 7, np.int16)))
    assert (problem.expected, problem.found) == ("an image", "t2 constant at 7")


def test_unknown_label_value(tmp_path: Path):
    seg = case_arrays()["seg"]
    seg[0, 0, 0] = 3
    (problem,) = problems_of(subject_of(tmp_path, seg=seg))
    assert problem.found == "3"
    assert "data.label_values" in problem.fix


def test_without_a_scheme_one_value_is_tumour_and_two_are_refused(tmp_path: Path):
    subject = subject_of(tmp_path)
    _, problems = load_subject(subject, ("t2",), None)
    assert problems[0].found == "1, 2, 4"
    subject = subject_of(tmp_path, seg=255 * (case_arrays()["seg"] > 0).astype(np.uint8))
    assert load_subject(subject, ("t2",), None)[1] == []


def test_an_empty_mask_is_no_error(tmp_path: Path):
    subject = subject_of(tmp_path, seg=np.zeros(SHAPE, np.uint8))
    loaded, problems = load_subject(subject, ("t2",), SCHEME)
    assert loaded is not None
    assert problems == []


def test_number_of_channels(tmp_path: Path):
    path = save(tmp_path / "all.nii.gz", np.stack([brain_of() * 5.0] * 4, axis=-1))
    subject = Subject("A", "A", 0, {"image": path}, channels=("t1", "t2"))
    (problem,) = load_subject(subject, ("t1", "t2"), None)[1]
    assert (problem.expected, problem.found) == ("2 channels (t1, t2)", "4")


def test_a_modality_of_several_channels(tmp_path: Path):
    t2 = case_arrays()["t2"]
    (problem,) = problems_of(subject_of(tmp_path, t2=np.stack([t2, t2 + 1], axis=-1)))
    assert (problem.expected, problem.found) == ("one channel, t2", "2 channels")
    subject = subject_of(tmp_path / "grey", t2=np.stack([t2, t2, t2], axis=-1))
    loaded, problems = load_subject(subject, ("t2",), SCHEME)
    assert problems == []
    assert loaded is not None
    np.testing.assert_array_equal(loaded.image[0], t2)


def test_a_mask_that_is_nan_beside_the_tumour(tmp_path: Path):
    seg = np.full(SHAPE, np.nan, np.float32)
    seg[5, 5, 2] = 1
    subject = subject_of(tmp_path, seg=seg)
    for scheme in (SCHEME, None):
        (problem,) = load_subject(subject, ("t2",), scheme)[1]
        assert problem.expected == "finite mask values"
        assert problem.found == f"{seg.size - 1} voxels that are NaN"


def test_a_palette_is_colours_in_an_image_and_numbers_in_a_mask(tmp_path: Path):
    index = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    picture = Image.fromarray(index, mode="P")
    picture.putpalette([200, 200, 200, 10, 10, 10, 90, 90, 90])
    picture.save(tmp_path / "a.png")
    grey = np.array([200, 10, 90])[index].T[..., None]
    files = {"t1": tmp_path / "a.png"}
    loaded, problems = load_subject(Subject("A", "A", 0, files), ("t1",), None)
    assert problems == []
    assert loaded is not None
    np.testing.assert_array_equal(loaded.image[0], grey)
    as_mask, _ = read_volume(tmp_path / "a.png", indices=True)
    np.testing.assert_array_equal(as_mask[0, ..., 0], index.T)


def test_a_truncated_file_that_is_not_compressed(tmp_path: Path):
    path = save(tmp_path / "a.nii", case_arrays()["t2"])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SubjectError, match="found a damaged or truncated one"):
        read_volume(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_of_any_kind_is_a_problem_and_no_crash(tmp_path: Path):
    """Headers in which single bytes are wrong, files that break off: Pillow raises anything."""
    rng = np.random.default_rng(0)
    arrays = case_arrays()
    Image.fromarray(rng.integers(0, 255, (32, 28, 3)).astype(np.uint8)).save(tmp_path / "c.png")
    Image.fromarray(rng.integers(0, 255, (32, 28)).astype(np.uint8)).save(tmp_path / "d.tif")
    save(tmp_path / "b.nii", arrays["t2"])
    damaged = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for trial in range(30):
            content = bytearray(whole)
            if trial % 3:
                content[rng.integers(min(len(whole), 400))] = rng.integers(256)
            else:
                del content[rng.integers(len(whole)) :]
            path.write_bytes(content)
            damaged += isinstance(try_volume(path), Problem)
    assert damaged > 30  # every file that breaks off, and some headers


@pytest.mark.parametrize(("offset", "value"), [(108, b"\0\0(C"), (70, b"\xd7\0")])
def test_a_header_that_nibabel_refuses(tmp_path: Path, offset: int, value: bytes):
    path = save(tmp_path / "b.nii", case_arrays()["t2"])
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value  # where the data begins; kind of number
    path.write_bytes(content)
    with pytest.raises(SubjectError, match="a damaged or truncated one \\(HeaderDataError"):
        read_volume(path)


def test_an_ending_that_is_not_read_is_not_called_damage(tmp_path: Path):
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image")
    with pytest.raises(SubjectError, match=r"found a file that ends in \.mha, where NIfTI, PNG"):
        read_volume(tmp_path / "a.mha")


def test_kinds_of_files_that_are_not_read(tmp_path: Path):
    colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(SubjectError, match=r"expected an image of a kind .* found colours or comp"):
        read_volume(save(tmp_path / "colours.nii.gz", colours))
    with pytest.raises(SubjectError, match=r"found 5 dimensions\. Convert it"):
        read_volume(save(tmp_path / "five.nii.gz", np.zeros((4, 4, 4, 2, 2), np.int16)))
    pages = [Image.fromarray(np.full((4, 4), n, np.uint8)) for n in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(SubjectError, match=r"found 3 pages\. Convert it"):
        read_volume(tmp_path / "pages.tif")


def test_an_affine_that_says_nothing(tmp_path: Path):
    subject = subject_of(tmp_path)
    for path in (*subject.images.values(), subject.lesion_mask):
        assert path is not None
        image = nib.load(path)
        image.header.set_sform(np.diag([0.0, 0, 0, 1]), 1)
        image.header.set_qform(None, 0)
        nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)
    (problem,) = problems_of(subject)
    assert problem.expected == "an invertible affine"


def test_a_grey_mask_stored_in_colour_is_one_mask(tmp_path: Path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    Image.fromarray(pixels[..., 0] // 2 + np.arange(8, dtype=np.uint8)).save(tmp_path / "image.png")
    images = {"image": tmp_path / "image.png"}
    subject = Subject("A", "A", 0, images, ("t1",), tmp_path / "mask.png")
    loaded, problems = load_subject(subject, ("t1",), None)
    assert problems == []
    assert loaded is not None
    assert loaded.labels is not None
    assert loaded.labels.shape == (8, 8, 1)
    pixels[0, 0, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    (problem,) = load_subject(subject, ("t1",), None)[1]
    assert (problem.expected, problem.found) == ("a mask of one channel", "3 channels")
