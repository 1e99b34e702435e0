"""What is random depends on seed, epoch and sample, and on nothing else."""

import pickle
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper

from glioma_xai.data import GliomaDataModule
from glioma_xai.data.loading import BatchLoader, as_it_is
from tests.unit.data.small_cohorts import images_by_key


def test_random_numbers_do_not_depend_on_workers(settings):
    loaders = [
        GliomaDataModule(**settings(num_workers=workers)).train_dataloader() for workers in (0, 2)
    ]
    for epoch in (0, 1):
        alone, shared = [], []
        for loader, found in zip(loaders, (alone, shared), strict=True):
            loader.sampler.set_epoch(epoch)
            found.extend(loader)
        for one, other in zip(alone, shared, strict=True):
            torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=0)
            assert one["subject_id"] == other["subject_id"]


def test_what_is_sent_to_workers_is_small_and_works(settings):
    dataset = GliomaDataModule(**settings()).evaluation_loader("train").dataset
    first = dataset[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000
    torch.testing.assert_close(pickle.loads(sent)[0]["image"], first["image"])


def test_shards_of_two_processes_are_the_epoch(settings):
    loader = GliomaDataModule(**settings()).train_dataloader()
    shards = [
        list(DistributedSamplerWrapper(loader.sampler, num_replicas=2, rank=rank, shuffle=False))
        for rank in (0, 1)
    ]
    assert len(shards[0]) == len(shards[1])
    assert {key.index for shard in shards for key in shard} == set(range(len(loader.dataset)))


def test_epochs_differ_and_a_later_start_gives_the_same_epoch(settings):
    data = GliomaDataModule(**settings())
    loader = data.train_dataloader()
    first = images_by_key(loader)
    loader.sampler.set_epoch(1)
    second = images_by_key(loader)
    assert any((first[key] != second[key]).any() for key in first)
    resumed = GliomaDataModule(**settings())
    resumed.set_epoch(1)
    again = images_by_key(resumed.train_dataloader())
    assert list(again) == list(second)
    assert all((again[key] == second[key]).all() for key in second)


class _Recorder(pl.LightningModule):
    """Keeps the sum of each batch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[float]] = {}

    def training_step(self, batch, _):
        self.seen.setdefault(self.current_epoch, []).append(float(batch["image"].double().sum()))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class _SavesTwo(pl.Callback):
    """Saves after two epochs from within the epoch, as checkpoints are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_fit_sees_what_the_uninterrupted_one_saw(settings, tmp_path: Path, workers: int):
    def fit(epochs: int, checkpoint: Path | None = None) -> _Recorder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[_SavesTwo(tmp_path / "two.ckpt")],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        module = _Recorder()
        data = GliomaDataModule(**settings(num_workers=workers))
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        return module

    whole = fit(4)
    first = fit(2)
    second = fit(4, tmp_path / "two.ckpt")
    assert len({tuple(values) for values in whole.seen.values()}) == 4
    assert {**first.seen, **second.seen} == whole.seen


class _Slow(torch.utils.data.Dataset):
    """Batches that say on which thread and when they were made."""

    made: ClassVar[list[tuple[int, str]]] = []

    def __len__(self) -> int:
        return 4

    def __getitems__(self, keys: list[int]) -> list[int]:
        if keys == [3]:
            raise OSError("the disk is gone")
        self.made.append((keys[0], threading.current_thread().name))
        return keys


def test_the_next_batch_is_made_while_the_last_is_used():
    _Slow.made.clear()
    batches = iter(BatchLoader(_Slow(), batch_size=1, collate_fn=as_it_is))
    assert next(batches) == [0]
    deadline = time.monotonic() + 10
    while len(_Slow.made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # a training step
    assert [number for number, _ in _Slow.made] == [0, 1]
    assert all(name.startswith("batches") for _, name in _Slow.made)
    assert [next(batches), next(batches)] == [[1], [2]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_an_epoch_that_is_left_early_ends_its_thread(settings):
    for _ in GliomaDataModule(**settings()).train_dataloader():
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]
