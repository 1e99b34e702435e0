import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Batch
from tests.unit.data.small_cohorts import case_arrays, images_by_key, save, write_case


def test_batches_have_the_agreed_form(settings):
    data = GliomaDataModule(**settings())
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == set(Batch.__annotations__)
    assert data.input_shape == (3, 16, 20)
    assert batch["image"].shape == (4, 3, 16, 20)
    for name in ("lesion_mask", "brain_mask"):
        assert batch[name].shape == (4, 1, 16, 20)
        assert batch[name].dtype == torch.float32
    for name in ("label", "index", "slice_index"):
        assert batch[name].dtype == torch.int64
    plain = next(iter(data.val_dataloader()))
    assert (plain["image"] * (1 - plain["brain_mask"]) == 0).all()
    assert data.normalised_range() == (-4.0, 6.0)
    assert data.variants == ()


def test_no_patient_in_two_splits_and_both_classes_in_each(settings):
    data = GliomaDataModule(**settings())
    splits = data.table.groupby("patient_id")["split"].nunique()
    assert (splits == 1).all()
    classes = data.table.groupby("split")["label"].nunique()
    assert classes.to_dict() == {"train": 2, "validation": 2, "test": 2}
    assert data.table["class"].map({"LGG": 0, "HGG": 1}).equals(data.table["label"])


def test_evaluation_is_in_the_order_of_the_table_and_unchanged(settings):
    data = GliomaDataModule(**settings())
    rows = data.table[data.table["split"] == "train"]
    loaded = images_by_key(data.evaluation_loader("train"))
    assert list(loaded) == list(zip(rows["subject_id"], rows["slice_index"], strict=True))
    plain = GliomaDataModule(**settings(augmentation={"enabled": False}))
    trained = images_by_key(plain.train_dataloader())
    assert all((trained[key] == image).all() for key, image in loaded.items())
    indices = torch.cat([batch["index"] for batch in data.evaluation_loader("train")])
    assert indices.tolist() == list(range(len(rows)))


def test_masks_of_other_patients_are_unknown_in_training_only(settings):
    data = GliomaDataModule(**settings(mask_share=0.34))
    known = {}
    for batch in data.train_dataloader():
        unknown = batch["lesion_mask"].isnan().flatten(1).all(1)
        known |= dict(zip(batch["patient_id"], (~unknown).tolist(), strict=True))
    assert 0 < sum(known.values()) < len(known)
    for batch in data.evaluation_loader("train"):
        assert not batch["lesion_mask"].isnan().any()


def test_class_weights_and_balanced_sampling(settings, brats_root: Path):
    for number in range(6, 9):
        write_case(brats_root / "HGG", f"Brats18_CBICA_1{number}_1", seed=100 + number)
    data = GliomaDataModule(**settings(sampler="balanced"))
    labels = data.table.loc[data.table["split"] == "train", "label"]
    counts = labels.value_counts()
    expected = [len(labels) / (2 * counts[label]) for label in (0, 1)]
    torch.testing.assert_close(data.class_weights(), torch.tensor(expected, dtype=torch.float32))
    drawn = []
    loader = data.train_dataloader()
    for epoch in range(60):
        loader.sampler.set_epoch(epoch)
        drawn += [labels.iloc[key.index] for key in loader.sampler]
    assert abs(np.mean(drawn) - 0.5) < 4 * math.sqrt(0.25 / len(drawn))


def test_variants_hold_the_same_samples(settings, brats_root: Path):
    for grade in ("HGG", "LGG"):
        for path in sorted((brats_root / grade).iterdir()):
            arrays = case_arrays(int(path.name.split("_")[2]))
            marked = {name: arrays[name].copy() for name in ("t2",)}
            marked["t2"][:2, :2] = 3000
            write_case(brats_root / "variants" / "swapped" / grade, path.name, **marked)
    data = GliomaDataModule(**settings(spatial_size=[20, 24]))
    assert data.variants == ("swapped",)
    plain = images_by_key(data.evaluation_loader("test"))
    swapped = images_by_key(data.evaluation_loader("test", variant="swapped"))
    assert list(plain) == list(swapped)
    for key, image in swapped.items():
        corner = image[0, -2:, -2:]
        assert (corner > 3).all()
        assert (plain[key][0, -2:, -2:] == 0).all()
    with pytest.raises(CohortError, match=r"variant must be one of swapped, got removed"):
        data.evaluation_loader("test", variant="removed")


def test_variants_take_the_slices_of_the_cohort_even_if_areas_change(settings, brats_root: Path):
    for grade in ("HGG", "LGG"):
        for path in sorted((brats_root / grade).iterdir()):
            seg = case_arrays(0)["seg"][..., [0, 3, 2, 1, 4, 5]]  # the largest is slice 1 now
            number = 100 + int(path.name.split("_")[2])
            write_case(brats_root / "variants/tilted" / grade, path.name, seed=number, seg=seg)
    data = GliomaDataModule(**settings())
    plain = images_by_key(data.evaluation_loader("test"))
    assert list(images_by_key(data.evaluation_loader("test", variant="tilted"))) == list(plain)


def test_all_problems_are_listed_at_once(settings, brats_root: Path):
    write_case(brats_root / "HGG", "Brats18_CBICA_301_1", t2=None)
    write_case(brats_root / "HGG", "Brats18_CBICA_302_1", seed=302, seg=None)
    write_case(brats_root, "Brats18_CBICA_303_1")
    data = GliomaDataModule(**settings())
    with pytest.raises(CohortError, match=r"found 2\. Repair") as raised:
        data.setup()
    assert "Brats18_CBICA_301_1: expected t2, t1ce, flair, found t1ce, flair." in str(raised.value)
    assert "Brats18_CBICA_303_1: expected a grade, found none." in str(raised.value)
    texts = [str(problem) for problem in data.inspect().problems]
    assert len(texts) == 4
    assert texts[3].startswith(
        "the cohort: expected every subject, found without 0 of 6 LGG, 1 of 8"
    )
    assert texts[2].startswith("Brats18_CBICA_302_1: expected a segmentation, found none.")


def test_skipping_and_excluding(settings, brats_root: Path):
    write_case(brats_root / "HGG", "Brats18_CBICA_301_1", t2=None)
    skipping = GliomaDataModule(**settings(on_error="skip"))
    assert [problem.where for problem in skipping.left_out] == ["Brats18_CBICA_301_1"]
    excluding = GliomaDataModule(**settings(exclude=["Brats18_CBICA_301_1"]))
    assert excluding.left_out == []
    pd.testing.assert_frame_equal(skipping.table, excluding.table)


def test_skipping_leaves_out_what_the_problems_name(settings, tmp_path: Path, brats_root: Path):
    """Rows and cases that are ambiguous are not used while the report says they are left out."""
    case = brats_root / "HGG" / "Brats18_CBICA_001_1"
    save(case / f"{case.name}_t2.nii", case_arrays(77)["t2"])  # beside its t2.nii.gz
    write_case(brats_root / "LGG", "Brats18_CBICA_003_1", seed=303)  # there is one in HGG
    skipping = GliomaDataModule(**settings(on_error="skip"))
    assert {p.where for p in skipping.left_out} == {"Brats18_CBICA_001_1", "Brats18_CBICA_003_1"}
    assert skipping.table["patient_id"].nunique() == 10
    rows = "".join(
        f"{s.subject_id},{s.images['t2']},{'LGG' if s.label == 0 else 'HGG'},"
        f"{'tset' if n == 0 else ''}\n"
        for n, s in enumerate(entry.subject for entry in skipping.cohort.entries)
    )
    (tmp_path / "m.csv").write_text("patient,t2,label,split\n" + rows)
    changes = {"reader": "manifest", "root": None, "manifest": str(tmp_path / "m.csv")}
    data = GliomaDataModule(**settings(**changes, modalities=["t2"], on_error="skip"))
    (problem,) = data.left_out
    assert problem.found == "tset"
    assert len(data.cohort.entries) == 9


def test_splits_are_written_and_read_back(settings, tmp_path: Path):
    data = GliomaDataModule(**settings())
    data.write_splits(tmp_path / "run" / "splits.csv")
    other = GliomaDataModule(**settings(splits_file=str(tmp_path / "run/splits.csv"), seed=5))
    assert other.cohort.splits == data.cohort.splits
    assert GliomaDataModule(**settings(seed=5)).cohort.splits != data.cohort.splits
    assert GliomaDataModule(**settings(seed=5, split_seed=0)).cohort.splits == data.cohort.splits


def test_a_splits_file_and_subjects_that_are_left_out(settings, tmp_path: Path, brats_root: Path):
    whole = GliomaDataModule(**settings())
    whole.write_splits(tmp_path / "splits.csv")
    broken = brats_root / "HGG/Brats18_CBICA_001_1/Brats18_CBICA_001_1_t2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:100])
    changes = {"splits_file": str(tmp_path / "splits.csv")}
    for more in ({"on_error": "skip"}, {"exclude": ["Brats18_CBICA_001_1"]}):
        data = GliomaDataModule(**settings(**changes, **more))
        expected = dict(whole.cohort.splits)
        del expected["Brats18_CBICA_001"]
        assert data.cohort.splits == expected
    text = (tmp_path / "splits.csv").read_text()
    lines = [
        line.replace("train", "test") if int(line.split("_")[2][:3]) < 6 else line
        for line in text.splitlines()[1:]
    ]
    (tmp_path / "splits.csv").write_text("\n".join(["patient,split", *lines]))
    with pytest.raises(CohortError, match=r"every class in train, found none of HGG\. Move some"):
        GliomaDataModule(**settings(**changes, on_error="skip")).setup()


def test_ungraded_subjects_can_be_explained(settings, brats_root: Path):
    write_case(brats_root, "Brats18_CBICA_303_1", seed=303)
    data = GliomaDataModule(**settings())
    data.setup("predict")
    assert len(data.table) == 2 * 13
    samples = data.sample("Brats18_CBICA_303_1")
    assert [sample["slice_index"] for sample in samples] == [2, 3]
    assert samples[0]["label"] == -1
    maps = torch.stack([sample["lesion_mask"][0] for sample in samples])
    restored = data.restore("Brats18_CBICA_303_1", maps).get_fdata()
    expected = case_arrays()["seg"] > 0
    np.testing.assert_array_equal(restored[..., 2:4], expected[..., 2:4])
    with pytest.raises(CohortError, match=r"got Brats18_CBICA_33_1 \(nearest: Brats18_CBICA_303_1"):
        data.sample("Brats18_CBICA_33_1")


def test_two_dimensional_manifest(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = ["patient,slice,image,mask,grade"]
    for number in range(12):
        for k in (4, 6):
            pixels = np.zeros((32, 28, 3), np.uint8)
            pixels[6:26, 5:23] = rng.integers(60, 250, (20, 18, 3))
            mask = np.zeros((32, 28), np.uint8)
            mask[10:14, 8:12] = 255 * (k == 4)
            Image.fromarray(pixels).save(tmp_path / f"{number}_{k}.png")
            Image.fromarray(mask).save(tmp_path / f"{number}_{k}_mask.png")
            rows.append(f"P{number},{k},{number}_{k}.png,{number}_{k}_mask.png,G{2 + number % 2}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    data = GliomaDataModule(
        reader="manifest",
        manifest=str(tmp_path / "m.csv"),
        columns={"label": "grade"},
        classes=["G2", "G3"],
        modalities=["t1", "flair", "t1ce"],
        spatial_size=[28, 32],
        spacing_mm=None,
        cache_dir=str(tmp_path / "cache"),
        test_share=0.34,
    )
    assert len(data.table) == 24
    assert data.table["patient_id"].nunique() == 12
    with_tumour, without = data.sample("P3")
    assert (with_tumour["slice_index"], without["slice_index"]) == (4, 6)
    assert without["lesion_mask"].isnan().all()
    mask = with_tumour["lesion_mask"][0].flip(0, 1).T  # from RAS back to rows and columns
    assert mask.nonzero().tolist() == [[r, c] for r in range(10, 14) for c in range(8, 12)]
    assert len(data.cohort.warnings) == 12


def test_a_warm_cache_warns_as_a_cold_one_does(settings, brats_root: Path):
    seg = np.zeros_like(case_arrays()["seg"])
    folder = write_case(brats_root / "LGG", "Brats18_CBICA_063_1", seed=63, seg=seg)
    for _ in range(2):
        (warning,) = GliomaDataModule(**settings()).cohort.warnings
        assert warning.where == str(folder / "Brats18_CBICA_063_1_seg.nii.gz")
        assert warning.found == "an empty mask"


def test_the_phantom_is_written_once(tmp_path: Path):
    settings = {
        "cache_dir": str(tmp_path),
        "shortcut": "corner_marker",
        "phantom": {"subjects": 12, "sites": 1},
        "test_share": 0.34,
        "validation_share": 0.17,
    }
    data = GliomaDataModule(**settings)
    assert data.variants == ("removed", "swapped")
    assert data.input_shape == (3, 96, 112)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    again = GliomaDataModule(**settings)
    pd.testing.assert_frame_equal(again.table, data.table)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    removed = images_by_key(data.evaluation_loader("test", variant="removed"))
    swapped = images_by_key(data.evaluation_loader("test", variant="swapped"))
    tested = data.table.query("split == 'test'")["label"]
    labels = dict(zip(removed, tested, strict=True))
    for key, image in removed.items():
        assert bool((image != swapped[key]).any()) == (labels[key] == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial_dims": 4}, r"data\.spatial_dims must be one of 2, 3, got 4"),
        ({"spatial_size": [96]}, r"data\.spatial_size needs 2 positive numbers"),
        ({"on_error": "ignore"}, r"data\.on_error must be one of raise, skip, got ignore"),
        ({"mask_share": 2}, r"data\.mask_share must be a share in \[0, 1\], got 2"),
        ({"augmentation": {"rotate": 3}}, r"got rotate \(nearest: rotation_degrees\)"),
        (
            {"reader": "phantom", "shortcut": "missing_sequence"},
            r"expected both in data\.modalities, got t2, t1ce, flair\. Set \[t1,t1ce,flair\]",
        ),
        ({"reader": "brat"}, r"data\.reader must be one of .* got brat \(nearest: brats\)"),
    ],
)
def test_wrong_settings(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        GliomaDataModule(**settings(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be 1 or more, got 0\. Raise it"),
        ({"num_workers": -1}, r"data\.num_workers must be 0 or more, got -1"),
        ({"jitter": -2}, r"data\.jitter must be 0 or more, got -2"),
        ({"neighbours": -1}, r"data\.neighbours must be 0 or more, got -1"),
        ({"prepare_workers": 0}, r"data\.prepare_workers must be 1 or more, got 0"),
        (
            {"classes": ["HGG"]},
            r"data\.classes must be a list of 2 or more different names, got \[",
        ),
        ({"classes": ["HGG", "hgg"]}, r"data\.classes must be a list of 2 or more different names"),
        ({"modalities": []}, r"data\.modalities must be a list of 1 or more different names, got"),
        ({"modalities": ["t1", "t1"]}, r"data\.modalities must be .* got \[t1, t1\]\. Write data"),
        ({"exclude": "P1"}, r"data\.exclude must be a list .* got P1\. Write data\.exclude=\[a,b"),
        (
            {"label_values": {"necrosis": 0}},
            r"must be whole numbers above 0, .* got 0 for necrosis",
        ),
        (
            {"shortcut": "annotation"},
            r"data\.shortcut is used with data=phantom only, got annotati",
        ),
        ({"manifest": "m.csv"}, r"data\.manifest is used with data=manifest only, got m\.csv with"),
        ({"columns": {"label": "x"}}, r"data\.columns names columns .* got data=brats, columns="),
        ({"reader": "manifest", "grades": "g.csv"}, r"got data=manifest, .* A manifest holds its"),
    ],
)
def test_settings_that_mean_nothing_or_have_no_effect(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        GliomaDataModule(**settings(**changes)).setup()


def test_an_id_to_exclude_that_nobody_has(settings):
    data = GliomaDataModule(**settings(exclude=["Brats18_CBICA_001", "Brats18_CBIC_003_1"]))
    (problem,) = data.inspect().problems
    assert str(problem) == (
        "data.exclude: expected ids of the cohort, found Brats18_CBIC_003_1 (nearest: "
        "Brats18_CBICA_003_1). Correct data.exclude."
    )


def test_missing_settings_and_sizes(settings, brats_root: Path):
    with pytest.raises(ConfigError, match=r"data=brats needs data\.root, got null"):
        GliomaDataModule(**settings(root=None)).setup()
    with pytest.raises(ConfigError, match=r"data=manifest needs data\.manifest, got null"):
        GliomaDataModule(**settings(reader="manifest")).setup()
    with pytest.raises(ConfigError, match=r"region must be one of whole_tumour, .* got tumor"):
        GliomaDataModule(**settings(region="tumor")).setup()
    case = brats_root / "HGG" / "Brats18_CBICA_001_1"
    for name, array in case_arrays(shape=(22, 24, 6)).items():
        save(case / f"{case.name}_{name}.nii.gz", array)
    with pytest.raises(CohortError, match=r"all samples must have one size, found .*\(22, 24\)"):
        GliomaDataModule(**settings(spatial_size=None)).setup()
