"""Training patients like a case: who they are, and that links add up."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import default_collate

from glioma_xai.errors import ConfigError
from glioma_xai.experiment.similar import PARTS, find_similar, parts_of, patches_of
from glioma_xai.experiment.similar_files import drawn_links, write_similar
from tests.unit.experiment.conftest import Cohort, untrained


def first_of(data, split="test"):
    subject = data.cohort.rows(split)["subject_id"].iloc[0]
    return subject, default_collate([data.sample(subject)[0]])


@pytest.mark.parametrize("form", [{}, {"spatial_dims": 3, "spatial_size": [16, 20, 6]}])
def test_neighbours_are_the_nearest_by_cosine_and_their_links_add_up(cohort: Cohort, form) -> None:
    data = cohort(**form)
    module = untrained(data)
    _, batch = first_of(data)
    found = find_similar(module, data, batch, count=2)
    network = nn.Sequential(*list(module.model)[:-1])
    seen = {}
    for sample in (data.sample(s) for s in data.cohort.rows("train")["subject_id"].unique()):
        largest = max(sample, key=lambda s: float((s["lesion_mask"] > 0.5).sum()))
        with torch.no_grad():
            pair = network(torch.stack([batch["image"][0], largest["image"]]))
        seen[largest["subject_id"]] = float(cosine_similarity(pair[:1], pair[1:])[0])
    expected = sorted(seen, key=seen.__getitem__, reverse=True)[:2]
    assert [n.batch["subject_id"][0] for n in found.neighbours] == expected
    for neighbour in found.neighbours:
        assert neighbour.cosine == pytest.approx(seen[neighbour.batch["subject_id"][0]], abs=1e-5)
        assert neighbour.share == pytest.approx(1, abs=1e-4)
        total = float(neighbour.links.sum())
        assert float(neighbour.parts.sum()) == pytest.approx(total, rel=1e-4, abs=1e-6)
        for relevance in (neighbour.of_case, neighbour.of_patient):
            assert float(relevance.sum()) == pytest.approx(total, rel=1e-3, abs=1e-5)


def test_a_training_patient_is_not_its_own_neighbour(cohort: Cohort) -> None:
    data = cohort()
    subject, batch = first_of(data, "train")
    others = data.cohort.rows("train")["patient_id"].nunique() - 1
    found = find_similar(untrained(data), data, batch, count=others)
    assert found.patients == others
    assert subject not in [n.batch["subject_id"][0] for n in found.neighbours]
    with pytest.raises(ConfigError, match=f"expected 1 to {others}, .* found {others + 1}"):
        find_similar(untrained(data), data, batch, count=others + 1)


def test_a_run_explained_by_its_gradient_uses_gradient_times_input(cohort: Cohort) -> None:
    data = cohort()
    found = find_similar(untrained(data, "gradient"), data, first_of(data)[1], count=1)
    assert found.composite == "gradient_times_input"
    inner = find_similar(untrained(data), data, first_of(data)[1], count=1, layer="relu1")
    assert inner.layer == "output of relu1"
    assert inner.features[0] == 4


def test_regions_number_every_pixel(cohort: Cohort) -> None:
    patches = patches_of((24, 36))
    assert patches.max() == 12 * 18 - 1
    assert patches[:2, :2].unique().tolist() == [0]
    assert torch.equal(patches_of((24, 36, 3))[..., 2], patches)
    data = cohort()
    _, batch = first_of(data)
    parts = parts_of(batch)
    tumour, brain = batch["lesion_mask"][0, 0] > 0.5, batch["brain_mask"][0, 0] > 0.5
    assert PARTS == ("tumour", "brain", "outside")
    assert torch.equal(parts == 0, tumour)
    assert torch.equal(parts == 2, ~brain & ~tumour)


def test_files_say_who_is_like_the_case_and_why(cohort: Cohort, tmp_path: Path) -> None:
    data = cohort()
    module, (subject, _) = untrained(data), first_of(data)
    found = write_similar(module, data, data, subject, count=2, layer=None, output=tmp_path)
    content = json.loads((tmp_path / "similar.json").read_text())
    assert content["subject"] == subject
    assert content["compared_by"] == "cosine of the input of dense2"
    assert len(content["neighbours"]) == 2
    first = content["neighbours"][0]
    assert first["cosine"] >= content["neighbours"][1]["cosine"]
    assert set(first["parts"]) == {f"{a} with {b}" for a in PARTS for b in PARTS}
    strengths = [abs(link["relevance"]) for link in first["links"]]
    assert strengths == sorted(strengths, reverse=True)
    shape = tuple(found.batch["image"].shape[2:])
    for link in drawn_links(found.neighbours[0], shape, most=400):
        assert 0 <= link.first[0] < shape[0]
        assert 0 <= link.second[1] < shape[1]
    assert len(list(tmp_path.glob("similar_*.png"))) == 2
