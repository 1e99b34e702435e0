import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from glioma_xai.data import cohort
from glioma_xai.data.cohort import PhantomSettings, read_rows, write_cohort
from glioma_xai.data.plan import enrol
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import MODALITIES


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.nii.gz"))
    }


def load(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    settings = PhantomSettings(subjects=6, slices=4, shortcut="corner_marker")
    return write_cohort(tmp_path_factory.mktemp("phantom") / "marked", settings)


def test_the_layout_is_that_of_brats_2018(marked):
    rows = read_rows(marked)
    assert [row.patient_id.split("_")[2] for row in rows] == [f"{i:04d}" for i in range(1, 7)]
    for row in rows:
        folder = marked / row.grade / row.patient_id
        names = {path.name for path in folder.iterdir()}
        assert names == {f"{row.patient_id}_{kind}.nii.gz" for kind in (*MODALITIES, "seg")}
        assert row.site in row.patient_id
        for path in folder.iterdir():
            image = nib.load(path)
            assert image.shape == (91, 109, 4)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == (2, 2, 2)
            assert np.issubdtype(image.get_data_dtype(), np.integer)


def test_bytes_depend_on_the_seed_alone(marked, tmp_path):
    again = PhantomSettings(subjects=6, slices=4, shortcut="corner_marker")
    assert digests(write_cohort(tmp_path / "again", again, workers=2)) == digests(marked)
    table = (tmp_path / "again" / cohort.TABLE).read_bytes()
    assert table == (marked / cohort.TABLE).read_bytes()
    other = write_cohort(tmp_path / "other", PhantomSettings(subjects=6, slices=4, seed=1))
    assert not set(digests(other).values()) & set(digests(marked).values())


def test_patients_depend_neither_on_their_number_nor_on_the_shortcut(marked, tmp_path):
    plain = write_cohort(tmp_path / "plain", PhantomSettings(subjects=2, slices=4))
    removed = digests(marked / "variants" / "removed")
    assert digests(plain).items() <= removed.items()


def test_variants_differ_by_the_marker_only(marked):
    for row in read_rows(marked):
        assert row.shortcut == (row.grade == "HGG")
        for modality in MODALITIES:
            name = f"{row.grade}/{row.patient_id}/{row.patient_id}_{modality}.nii.gz"
            trained = load(marked / name)
            removed = load(marked / "variants/removed" / name)
            swapped = load(marked / "variants/swapped" / name)
            clean, other = (swapped, trained) if row.shortcut else (trained, swapped)
            np.testing.assert_array_equal(removed, clean)
            marker = other != removed
            assert ((removed == 0) & (other > 0))[marker].all()
            assert marker.any(axis=(0, 1)).all()  # every slice
            assert other[marker].min() > np.percentile(removed[removed > 0], 99)
            regions, _ = ndimage.label(other > 0, structure=np.ones((3, 3, 3)))
            assert not set(np.unique(regions[marker])) & set(np.unique(regions[removed > 0]))
            x, y, _ = np.nonzero(marker)
            brain_x, brain_y, _ = np.nonzero(removed)
            assert brain_x.min() <= x.min()
            assert x.max() <= brain_x.max()
            assert brain_y.min() <= y.min()
            assert y.max() <= brain_y.max()


def test_files_that_repeat_are_links(marked):
    for row in read_rows(marked):
        name = f"{row.grade}/{row.patient_id}/{row.patient_id}"
        assert (marked / f"{name}_seg.nii.gz").stat().st_nlink == 3
        same = "swapped" if row.shortcut else "removed"
        twin = marked / "variants" / ("removed" if row.shortcut else "") / f"{name}_t1.nii.gz"
        if not row.shortcut:
            twin = marked / f"{name}_t1.nii.gz"
        assert twin.samefile(marked / "variants" / same / f"{name}_t1.nii.gz")


def test_classes_and_sites_are_balanced():
    settings = PhantomSettings(sites=3)
    patients = [enrol(settings, number) for number in range(120)]
    for site in range(3):
        grades = [p.grade for p in patients if p.site == site]
        assert grades.count("HGG") == grades.count("LGG") == 20
    assert 15 < sum(p.grade == "HGG" for p in patients[::2]) < 45  # order within a pair is random


@pytest.mark.parametrize(("strength", "low", "high"), [(1, 1, 1), (0.8, 0.74, 0.86), (0, 0, 0)])
def test_shortcut_agrees_with_the_class_as_often_as_asked(strength, low, high):
    settings = PhantomSettings(shortcut="corner_marker", shortcut_strength=strength)
    patients = [enrol(settings, number) for number in range(600)]
    agreement = np.mean([p.shortcut == (p.grade == "HGG") for p in patients])
    assert low <= agreement <= high


def test_site_agrees_with_the_class_as_often_as_asked():
    settings = PhantomSettings(site_strength=0.9)
    patients = [enrol(settings, number) for number in range(600)]
    agreement = np.mean([(p.site % 2 == 0) == (p.grade == "HGG") for p in patients])
    assert 0.86 < agreement < 0.94


def test_a_complete_cohort_is_recognised(marked):
    before = {path: path.stat().st_mtime_ns for path in marked.rglob("*")}
    write_cohort(marked, PhantomSettings(subjects=6, slices=4, shortcut="corner_marker"))
    assert {path: path.stat().st_mtime_ns for path in marked.rglob("*")} == before


def test_a_cohort_of_another_release_is_recognised_by_its_recipe(marked, tmp_path):
    settings = PhantomSettings(subjects=6, slices=4, shortcut="corner_marker")
    folder = tmp_path / "cohort"
    folder.mkdir()
    table = json.loads((marked / cohort.TABLE).read_text())
    table["phantom"]["version"] = table["written_by"] = "0.0.1"
    (folder / cohort.TABLE).write_text(json.dumps(table))
    assert write_cohort(folder, settings) == folder
    table["phantom"]["recipe"] -= 1
    (folder / cohort.TABLE).write_text(json.dumps(table))
    with pytest.raises(CohortError, match=r"phantom\.recipe="):
        write_cohort(folder, settings)


def test_other_content_is_refused(marked, tmp_path):
    with pytest.raises(CohortError, match=r"settings\.seed=0 \(wanted 1\)"):
        write_cohort(
            marked, PhantomSettings(subjects=6, slices=4, shortcut="corner_marker", seed=1)
        )
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CohortError, match="no readable cohort"):
        write_cohort(tmp_path, PhantomSettings(subjects=2))
    (tmp_path / cohort.TABLE).write_text(json.dumps([1]))
    with pytest.raises(CohortError, match="no readable cohort"):
        write_cohort(tmp_path, PhantomSettings(subjects=2))
    with pytest.raises(CohortError, match="no readable cohort"):
        write_cohort(tmp_path / "notes.txt", PhantomSettings(subjects=2))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, SystemExit])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, failure):
    written = []

    def fail_late(path, array, affine):
        written.append(path)
        path.write_bytes(b"half")
        if len(written) == 7:
            raise failure("stopped")

    monkeypatch.setattr(cohort, "_write_nifti", fail_late)
    with pytest.raises(failure):
        write_cohort(tmp_path / "phantom", PhantomSettings(subjects=2, slices=1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subjects", 1),
        ("subjects", "many"),
        ("subjects", 2.5),
        ("seed", -1),
        ("slices", 0),
        ("shortcut", "corner"),
        ("shortcut_strength", 1.1),
        ("difficulty", -0.1),
        ("site_strength", 0.4),
        ("spacing_mm", None),
    ],
)
def test_bad_settings_name_the_setting(name, value):
    with pytest.raises(ConfigError, match=rf"{name} must be .*got {value!r}"):
        PhantomSettings(**{name: value})
