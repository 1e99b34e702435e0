"""Nothing of a user's folders reaches the report, and ids become safe file names."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from glioma_xai.experiment.cases import channel_names, sides_known
from glioma_xai.experiment.drawing import file_name, target_words
from glioma_xai.experiment.explanation import modality_shares
from glioma_xai.experiment.parts import shares_of_parts
from glioma_xai.experiment.public import public_settings, public_words, without_folders
from glioma_xai.records import Problem


@pytest.mark.parametrize("name", ["BraTS-GLI_0017_4", "2013.001"])
def test_plain_ids_stay_as_they_are(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b", "a/b", "ü", "", ".", "x" * 300])
def test_other_ids_become_one_safe_name(name: str) -> None:
    safe = file_name(name)
    assert "/" not in safe
    assert not safe.startswith(".")
    assert 0 < len(safe) < 120
    assert safe.isascii()


def test_ids_that_look_alike_stay_apart() -> None:
    assert len({file_name(name) for name in ("a/b", "a b", "a_b")}) == 3


def test_only_the_last_part_of_a_path_is_shown() -> None:
    config = OmegaConf.create(
        {
            "seed": 3,
            "paths": {"root": "/home/jane/runs", "cache": "${oc.env:X,.cache}"},
            "data": {
                "root": "C:\\Users\\jane\\brats",
                "manifest": "hers/jane/cohort.csv",
                "grades": "hers/jane/g.csv",
            },
            "model": {"weights": "/home/jane/w.ckpt", "shape": [1, 2]},
            "callbacks": {"own": {"files": ["/home/jane/a.csv", {"b": "~jane/b.csv"}]}},
            "optimizer": {"state": "D:\\jane\\adam.pt"},
        }
    )
    shown = public_settings(config)
    assert shown["paths.root"] == "runs"
    assert shown["data.root"] == "brats"
    assert shown["data.manifest"] == "cohort.csv"
    assert shown["data.grades"] == "g.csv"
    assert shown["model.weights"] == "w.ckpt"
    assert shown["callbacks.own.files"] == ["a.csv", {"b": "b.csv"}]
    assert shown["optimizer.state"] == "adam.pt"
    assert (shown["seed"], shown["model.shape"]) == (3, [1, 2])
    assert "jane" not in str(shown)


def test_a_command_is_shown_without_folders() -> None:
    words = ["data=brats", "data.root='/home/jane/brats 2019/'", "data.classes=[G2,G3]"]
    words += ["data.manifest=C:\\jane\\cohort.csv", "data.files=[/home/jane/a.csv]"]
    shown = public_words(words)
    assert shown[0] == "data=brats"
    assert shown[1] == "data.root=<folder>/brats 2019"
    assert shown[2] == "'data.classes=[G2,G3]'"
    assert "jane" not in " ".join(shown)


def test_problems_name_files_from_the_cohort_s_folder_on() -> None:
    config = OmegaConf.create(
        {
            "data": {"root": "/home/jane/brats", "manifest": None, "grades": "/home/jane/g.csv"},
            "paths": {"cache": ".cache"},
        }
    )
    problem = Problem("/home/jane/brats/HGG/a/a_t1.nii.gz", "a file", "none", "Restore it.")
    assert without_folders(problem, config).where == "HGG/a/a_t1.nii.gz"
    table = Problem("/home/jane/g.csv", "a class of a", "none", "Add it.")
    assert without_folders(table, config).where == "g.csv"


def test_shares_of_the_parts_of_a_tumour_by_hand() -> None:
    mass = np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
    labels = np.array([0, 1, 4, 4], dtype=np.float32).reshape(4, 1, 1)
    shares = shares_of_parts(mass, labels, {"necrosis": 1, "oedema": 2, "enhancing": 4})
    assert shares == pytest.approx(
        {"necrosis": 0.2, "oedema": 0.0, "enhancing": 0.7, "elsewhere": 0.1}
    )
    assert all(np.isnan(v) for v in shares_of_parts(0 * mass, labels, {"necrosis": 1}).values())


def test_modality_shares_count_inhibition() -> None:
    maps = torch.tensor([[1.0, -1.0], [-3.0, 3.0]]).view(1, 2, 2, 1)
    assert modality_shares(maps, ["t1", "flair"]) == {"t1": 0.25, "flair": 0.75}


def data_with(files: list[str], *, modalities: tuple[str, ...] = (), channels: int = 0):
    subject = SimpleNamespace(images={name: Path(name) for name in files})
    return SimpleNamespace(
        cohort=SimpleNamespace(entries=[SimpleNamespace(subject=subject)]),
        modalities=modalities,
        input_shape=(channels, 8, 8),
    )


def test_sides_are_known_from_nifti_alone() -> None:
    assert sides_known(data_with(["a_t1.nii.gz", "a_flair.NII"]))
    assert not sides_known(data_with(["a_7.png"]))


def test_channels_of_neighbouring_slices_have_names_of_their_own() -> None:
    single = data_with([], modalities=("t1", "flair"), channels=2)
    assert channel_names(single) == ["t1", "flair"]
    stacked = data_with([], modalities=("t1", "flair"), channels=6)
    assert channel_names(stacked) == ["t1 -1", "flair -1", "t1", "flair", "t1 +1", "flair +1"]


@pytest.mark.parametrize(
    ("target", "label", "words"),
    [
        ("label", 0, "relevance for LGG"),
        ("predicted", -1, "relevance for HGG"),
        ("contrastive", 0, "relevance for LGG against HGG"),
        ("contrastive", -1, "relevance for HGG against LGG"),
    ],
)
def test_a_reader_is_told_what_orange_speaks_for(target: str, label: int, words: str) -> None:
    assert target_words(target, ["LGG", "HGG"], label=label, guess=1) == words
