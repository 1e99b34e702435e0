"""Several processes share the samples: each step and each epoch see what one process sees."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.loading import EpochSampler


def order_of(count: int, batch_size: int, *, process: int = 0, processes: int = 1) -> list[int]:
    sampler = EpochSampler(
        np.arange(count) % 2,
        sampling="none",
        seed=3,
        epoch=1,
        batch_size=batch_size,
        process=process,
        processes=processes,
    )
    order = [key.index for key in sampler]
    assert len(order) == len(sampler)
    assert {key.epoch for key in sampler} <= {1}
    return order


def batches(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize(("count", "size"), [(24, 4), (23, 4), (18, 4), (17, 4), (3, 4), (16, 1)])
@pytest.mark.parametrize("processes", [2, 3])
def test_a_step_of_all_processes_is_a_step_of_one(count: int, size: int, processes: int) -> None:
    whole = batches(order_of(count, size * processes), size * processes)
    if len(whole[-1]) < processes:
        whole.pop()  # too few for each process to have one
    parts = [
        batches(order_of(count, size, process=number, processes=processes), size)
        for number in range(processes)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for expected, *shares in zip(whole, *parts, strict=True):
        assert sorted(itertools.chain(*shares)) == sorted(expected)
        lengths = {len(share) for share in shares}
        assert max(lengths) - min(lengths) <= 1


def test_validation_samples_are_shared_out_in_equal_numbers(
    settings: Callable[..., dict[str, object]],
) -> None:
    data = GliomaDataModule(**settings())
    data.setup("fit")
    everything = sorted(int(i) for batch in data.val_dataloader() for i in batch["index"])
    assert len(everything) % 3
    seen = []
    for number in range(3):
        data.trainer = SimpleNamespace(global_rank=number, world_size=3)
        seen.append([int(i) for batch in data.val_dataloader() for i in batch["index"]])
    assert {len(part) for part in seen} == {-(-len(everything) // 3)}
    assert sorted(set(itertools.chain(*seen))) == everything


def test_validation_samples_stand_in_one_order_that_no_id_made(
    settings: Callable[..., dict[str, object]],
) -> None:
    data = GliomaDataModule(**settings())
    data.setup("fit")
    first, again = ([s for b in data.val_dataloader() for s in b["subject_id"]] for _ in range(2))
    by_table = [s for b in data.evaluation_loader("validation") for s in b["subject_id"]]
    assert first == again
    assert first != by_table
    assert sorted(first) == sorted(by_table)
