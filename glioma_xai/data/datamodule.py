"""The cohort as Lightning wants it: everything from file names to batches behind one class."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from glioma_xai.data.arguments import DataArguments
from glioma_xai.data.augmentation import Augmentation
from glioma_xai.data.dataset import SampleDataset
from glioma_xai.data.inspection import Inspection, examine_cohort
from glioma_xai.data.inspection_page import write_inspection_page
from glioma_xai.data.loading import BatchLoader, EpochSampler, Sample, as_it_is
from glioma_xai.data.prepared import PreparedCohort, prepare_cohort
from glioma_xai.data.reading import ensure_phantom
from glioma_xai.data.settings import require_choice
from glioma_xai.data.split_files import write_splits
from glioma_xai.data.subject_space import restore
from glioma_xai.records import SPLITS, Problem, Split


class GliomaDataModule(DataArguments):
    """Reads a cohort, prepares and caches it, splits it by patient and serves batches.

    The arguments are those of ``DataArguments``. Every loader yields ``records.Batch``.
    """

    _epoch = 0
    _graded = True

    def prepare_data(self) -> None:
        """Write the phantom cohort if it is not there."""
        if self.phantom_settings is not None:
            root = ensure_phantom(
                self.phantom_settings,
                root=self.source.root,
                cache_dir=self.cache_dir,
                workers=max(1, self.num_workers),
            )
            self.source = replace(self.source, root=root)

    def setup(self, stage: str | None = None) -> None:
        """List, check, prepare and split the cohort; later calls find it done.

        Args:
            stage: ``predict`` asks for no grades and no splits: every sample is in ``test``. Any
                other stage needs grades and splits.

        Raises:
            CohortError: If something is wrong with the cohort; all problems are listed at once.
        """
        self._graded = stage != "predict"
        if self._graded in self._prepared:
            return
        self.prepare_data()
        self._prepared[self._graded] = prepare_cohort(
            self.source,
            self.preparation,
            self.division,
            cache_dir=self.cache_dir,
            workers=self.prepare_workers,
            skip_errors=self.on_error == "skip",
            graded=self._graded,
        )

    def inspect(self, page: str | Path | None = None) -> Inspection:
        """Read the whole cohort once and say what it consists of and what is wrong with it.

        Args:
            page: HTML file for problems, tables and a picture of every subject; None for none.
        """
        self.prepare_data()
        found = examine_cohort(
            self.source,
            self.preparation,
            self.division,
            cache_dir=self.cache_dir,
            workers=self.prepare_workers,
        )
        if page is not None:
            write_inspection_page(found, Path(page), title="Cohort check")
        return found

    @property
    def cohort(self) -> PreparedCohort:
        """The prepared cohort; sets it up if that has not been done."""
        if not self._prepared:
            self.setup()
        return self._prepared[self._graded]

    @property
    def table(self) -> pd.DataFrame:
        """A row a sample: patient_id, subject_id, slice_index, split, label, class, site, ..."""
        return self.cohort.table

    @property
    def left_out(self) -> list[Problem]:
        """Problems of what ``on_error=skip`` left out."""
        return self.cohort.left_out

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the cohort's variants (shortcut removed, swapped); empty if there are none."""
        return self.cohort.source.variants()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels and spatial size of a sample, (C, H, W[, D])."""
        return (self.preparation.channels, *self.cohort.entries[0].geometry["sample_shape"])

    def class_weights(self) -> Tensor:
        """Return (classes,) float32: inverse share of each class in training, mean 1 a sample."""
        return torch.from_numpy(self.cohort.class_weights())

    def normalised_range(self) -> tuple[float, float]:
        """Return the smallest and largest value an image can have."""
        return self.cohort.normalised_range()

    def write_splits(self, path: str | Path) -> None:
        """Write the split of every patient as a CSV that ``splits_file`` reads back."""
        write_splits(self.cohort.splits, Path(path))

    def set_epoch(self, epoch: int) -> None:
        """Choose the first epoch of the next training loader; Lightning sets the later ones."""
        self._epoch = epoch

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return augmented training batches in a fresh order each epoch."""
        rows = self.cohort.rows("train")
        process, processes = self._process()
        sampler = EpochSampler(
            rows["label"].to_numpy(np.int64),
            sampling=self.sampling,
            seed=self.seed,
            epoch=self._first_epoch(),
            batch_size=self.batch_size,
            process=process,
            processes=processes,
        )
        return self._loader(self._dataset(rows, self.augmentation), sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return this process's validation samples, unchanged, in one random order.

        Samples of a batch lend each other their backgrounds, and a table that is sorted by id is
        often sorted by site and class. Processes get equally many samples, the first ones twice if
        need be: they exchange statistics with every batch. Scores know samples by their index and
        count each once.
        """
        rows = self.cohort.rows("validation").assign(guided=True)
        mixed = rows.sample(frac=1, random_state=self.seed, ignore_index=True)
        dataset = self._dataset(mixed, None)
        process, processes = self._process()
        sampler: Sampler[Any] | None = None
        if processes > 1:
            sampler = DistributedSampler(dataset, processes, process, shuffle=False)
        return self._loader(dataset, sampler)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the test samples, unchanged."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Return the test samples, unchanged; the whole cohort after ``setup("predict")``."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: Split, *, variant: str | None = None) -> DataLoader[Sample]:
        """Return a split without augmentation, in the order of the table, with every mask.

        Args:
            split: train, validation or test.
            variant: Takes the same samples from a variant of the cohort.

        Raises:
            CohortError: If the variant does not exist or lacks one of the samples.
        """
        require_choice("split", split, SPLITS)
        rows = self.cohort.rows(split, variant).assign(guided=True)
        return self._loader(self._dataset(rows, None), None)

    def masked_samples(self) -> tuple[SampleDataset, pd.DataFrame]:
        """Return the augmented training samples, and the table's rows of those that have a mask.

        The column ``position`` is a row's place in the dataset.
        """
        rows = self.cohort.rows("train")
        placed = rows.assign(position=np.arange(len(rows)))
        masked = placed[placed["guided"].astype(bool) & (placed["lesion_area"] > 0)]
        return self._dataset(rows, self.augmentation), masked

    def sample(self, subject_id: str) -> list[Sample]:
        """Return the samples of a subject, or of all scans of a patient, unchanged.

        Raises:
            CohortError: If the cohort has no such id; the nearest one is named.
        """
        dataset = self._dataset(self.cohort.rows_of(subject_id).assign(guided=True), None)
        return [dataset[index] for index in range(len(dataset))]

    def restore(
        self, subject_id: str, maps: Tensor, slice_indices: Sequence[int] = ()
    ) -> nib.Nifti1Image:
        """Return maps of a subject's samples on its own grid; see ``subject_space.restore``."""
        return restore(self.cohort.entry(subject_id).geometry, maps, slice_indices)

    def _dataset(self, rows: pd.DataFrame, augmentation: Augmentation | None) -> SampleDataset:
        return SampleDataset(
            rows,
            self.cohort.cache,
            value_range=self.normalised_range(),
            jitter=self.preparation.jitter,
            augmentation=augmentation if augmentation and augmentation.enabled else None,
            seed=self.seed,
        )

    def _first_epoch(self) -> int:
        """Return the epoch that the next training loader begins with.

        Workers fetch batches before Lightning says which epoch it is; a run that goes on counts as
        processed the epochs of its checkpoint, and as current, until it starts, one less.
        """
        if self.trainer is None:
            return self._epoch
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return int(progress.processed)

    def _process(self) -> tuple[int, int]:
        """Return the number of this process and how many train together."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(self, dataset: Dataset[Sample], sampler: Sampler[Any] | None) -> DataLoader[Sample]:
        return BatchLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
