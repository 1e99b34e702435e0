"""The torchmetrics shells: batches and processes do not change the result."""

import math

import numpy as np
import pytest
import torch
from torch import multiprocessing
from torch.distributed import destroy_process_group, init_process_group

from glioma_xai.errors import ShapeError
from glioma_xai.metrics import ClassificationScores, RelevanceScores
from glioma_xai.metrics.functional.classification import classification_scores
from glioma_xai.metrics.functional.decisions import aggregate_by_patient
from glioma_xai.metrics.functional.localization import localization_scores

ROWS = 24


def data():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(ROWS) // 3) % 2  # three slices a patient
    return {
        "relevance": torch.randn(ROWS, 2, 4, 4, generator=generator),
        "lesion_mask": (torch.rand(ROWS, 1, 4, 4, generator=generator) < 0.2).float(),
        "brain_mask": (torch.rand(ROWS, 1, 4, 4, generator=generator) < 0.8).float(),
        "logits": torch.randn(ROWS, 2, generator=generator)
        + labels[:, None] * torch.tensor([0, 1]),
        "labels": labels,
        "index": torch.arange(ROWS),
        "patient_id": [f"patient {row // 3}" for row in range(ROWS)],
    }


def fill(batches):
    rows = data()
    relevance, classification = RelevanceScores(), ClassificationScores(bins=5)
    for batch in batches:
        part = {name: rows[name][batch] for name in rows if name != "patient_id"}
        names = [rows["patient_id"][row] for row in batch]
        relevance.update(
            part["relevance"], part["lesion_mask"], part["brain_mask"], index=part["index"]
        )
        classification.update(part["logits"], part["labels"], names, part["index"])
    return relevance, classification


def test_batches_give_the_scores_of_the_whole():
    rows = data()
    relevance, classification = fill([list(range(10)), list(range(10, ROWS))])
    whole = localization_scores(
        rows["relevance"], rows["lesion_mask"], brain_mask=rows["brain_mask"]
    )
    found = relevance.compute()
    for name, values in whole.items():
        assert found[name].item() == pytest.approx(values.nanmean().item(), abs=1e-6)
        assert found[f"{name}_undefined"].item() == values.isnan().sum().item()
    assert found["pointing_game_undefined"].item() > 0
    magnitude = rows["relevance"].double().abs().sum().item() / ROWS
    assert found["relevance_magnitude"].item() == pytest.approx(magnitude)
    probabilities = rows["logits"].double().softmax(dim=1).numpy()
    grouped = aggregate_by_patient(probabilities, rows["labels"].numpy(), rows["patient_id"])
    scores = classification.compute()
    expected = classification_scores(probabilities, rows["labels"].numpy(), bins=5)
    patients = classification_scores(grouped.probabilities, grouped.labels, bins=5)
    loss = torch.nn.functional.cross_entropy(rows["logits"].double(), rows["labels"]).item()
    assert scores.pop("cross_entropy") == pytest.approx(loss)
    share = (rows["logits"][:, 1] >= rows["logits"][:, 0]).double().mean().item()
    assert scores.pop("largest_predicted_share") == pytest.approx(max(share, 1 - share))
    youden = expected["sensitivity"] + expected["specificity"] - 1
    assert scores.pop("informedness") == pytest.approx(youden)
    assert scores == pytest.approx(expected | {f"patient/{n}": s for n, s in patients.items()})


def test_a_repeated_sample_counts_once():
    for once, twice in zip(
        fill([list(range(ROWS))]), fill([list(range(ROWS)), [0, 1, 2]]), strict=True
    ):
        expected = {name: float(value) for name, value in once.compute().items()}
        found = {name: float(value) for name, value in twice.compute().items()}
        assert found == pytest.approx(expected, rel=1e-12)


def test_nothing_defined_is_nan_and_counted():
    metric = RelevanceScores()
    metric.update(torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2), index=torch.arange(3))
    found = metric.compute()
    assert found["relevance_mass_accuracy"].isnan()
    assert found["relevance_mass_accuracy_undefined"].item() == 3
    assert found["outside_brain_undefined"].item() == 3


def test_classification_names_the_lengths():
    with pytest.raises(ShapeError, match=r"expected 2 rows each, got \(2, 2, 1, 2\)"):
        ClassificationScores().update(
            torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), ["a"], torch.arange(2)
        )


def _process(rank, folder):
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    relevance, classification = fill(
        [list(range(rank * 7, 8 + rank * (ROWS - 8)))]
    )  # 8 and 17, one twice
    found = {name: value.item() for name, value in relevance.compute().items()}
    torch.save(found | classification.compute(), f"{folder}/{rank}.pt")
    destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    relevance, classification = fill([list(range(ROWS))])
    expected = {name: value.item() for name, value in relevance.compute().items()}
    expected |= classification.compute()
    multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    for found in (torch.load(tmp_path / f"{rank}.pt") for rank in range(2)):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, nan_ok=True), name
    assert not math.isnan(expected["auc"])
    assert np.isfinite(list(expected.values())).all()
