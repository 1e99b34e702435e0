"""The cohort as Lightning wants it: everything from file names to batches behind one class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from glioma_xai.data.annotations import Annotation
from glioma_xai.data.augmentation import Augmentation
from glioma_xai.data.cohort import PhantomSettings
from glioma_xai.data.dataset import EpochSampler, Sample, SampleDataset, Sampling
from glioma_xai.data.grids import Centre
from glioma_xai.data.inspection import examine_cohort
from glioma_xai.data.inspection_page import write_inspection_page
from glioma_xai.data.intensities import NORMALISATIONS, NORMALISED_RANGE, Normalisation
from glioma_xai.data.labels import Region
from glioma_xai.data.prepared import Division, PreparedCohort, prepare_cohort
from glioma_xai.data.reading import CohortSource, Reader, ensure_phantom
from glioma_xai.data.settings import axis_values, fill, require_choice
from glioma_xai.data.slices import SliceSelection
from glioma_xai.data.split_files import write_splits
from glioma_xai.data.splits import SplitSettings
from glioma_xai.data.subject_space import restore
from glioma_xai.data.transforms import Preparation
from glioma_xai.errors import ConfigError
from glioma_xai.records import SPLITS, Problem, Split


class GliomaDataModule(pl.LightningDataModule):
    """Reads a cohort, prepares and caches it, splits it by patient and serves batches.

    Every loader yields ``records.Batch``. After ``setup`` there are ``table`` (a row a sample),
    ``splits`` (split of each patient), ``left_out`` and ``warnings`` (lists of Problem).

    Args:
        reader: ``phantom``, ``brats`` (also UCSF-PDGM), ``msd``, ``images`` or ``manifest``.
        root: The cohort's folder; for a manifest, what its file names are relative to.
        manifest: Table of a cohort of one's own, CSV or JSON.
        grades: Table with the class of each subject, for cohorts that come without.
        label_map: Value in a table or name of a folder to class name, where they differ.
        columns: Role to column: patient, subject, slice, label, site, session, split, fold, mask,
            image, and each modality.
        allow_outside_root: True lets a manifest's file names leave the root.
        classes: Class names; the index is the label.
        modalities: Channels in order; for a file with all channels, their names in its order.
        label_values: Mask value of necrosis, oedema, non_enhancing, enhancing or tumour; None tells
            it from the masks.
        region: whole_tumour, tumour_core or enhancing_tumour.
        spatial_dims: 2 for axial slices, 3 for volumes.
        spatial_size: Pixels left to right, back to front[, foot to head]; None keeps the file's.
        spacing_mm: Distance of pixels, one number or one an axis; None keeps the file's. A pixel of
            a PNG counts as 1 mm.
        slice_count: Most slices of a volume; None takes all that show tumour.
        slice_step: Distance from the largest-tumour slice to its neighbours, in slices.
        slice_min_area: Tumour area, as a share of the largest, below which no slice is taken.
        normalisation: zscore (clipped to [-4, 6]), healthy (the same, from the brain without the
            tumour), percentile ([0, 1]) or none.
        neighbours: Slices above and below that are added as channels (2.5-D).
        centre: brain or tumour: what a window smaller than the image is centred on.
        jitter: Largest shift of the window in training, in pixels (random crops).
        annotation: Fields of ``Annotation``: which mask training sees (contour, box, dilated, rim
            of unknown, or the control mask of another patient); evaluation sees the contour.
        augmentation: Fields of ``Augmentation``; ``{enabled: false}`` switches it off.
        test_share: Share of the patients of each class that is tested.
        test_sites: Sites whose patients are tested instead (leave one site out).
        validation_share: Share for validation.
        folds: Number of cross-validation folds; None draws validation by share.
        fold: The fold that is validation, from 0.
        splits_file: CSV written by ``write_splits``; taken instead of drawing.
        split_seed: Seed of the splits and of which masks are used; None takes ``seed``.
        batch_size: Samples a batch.
        num_workers: Processes that load batches; also threads that prepare the cohort.
        cache_dir: Where prepared subjects and phantom cohorts are kept.
        sampler: none, or balanced (each class equally often).
        on_error: raise, or skip (leaves out what cannot be used).
        exclude: Ids of subjects or patients that are passed over.
        shortcut: Shortcut of the phantom cohort.
        phantom: Other fields of ``PhantomSettings``.
        mask_share: Share of training patients whose masks may be used; the others' are NaN.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        *,
        reader: Reader = "phantom",
        root: str | None = None,
        manifest: str | None = None,
        columns: Mapping[str, str] | None = None,
        grades: str | None = None,
        label_map: Mapping[str, str] | None = None,
        allow_outside_root: bool = False,
        classes: Sequence[str] = ("LGG", "HGG"),
        modalities: Sequence[str] = ("t2", "t1ce", "flair"),
        label_values: Mapping[str, int] | None = None,
        region: Region = "whole_tumour",
        spatial_dims: int = 2,
        spatial_size: Sequence[int] | None = (96, 112),
        spacing_mm: float | Sequence[float] | None = 2.0,
        slice_count: int | None = 4,
        slice_step: int = 1,
        slice_min_area: float = 0.2,
        normalisation: Normalisation = "zscore",
        neighbours: int = 0,
        centre: Centre = "brain",
        jitter: int = 0,
        annotation: Mapping[str, bool | float | str] | None = None,
        augmentation: Mapping[str, bool | float] | None = None,
        test_share: float = 0.2,
        validation_share: float = 0.15,
        test_sites: Sequence[str] = (),
        folds: int | None = None,
        fold: int = 0,
        splits_file: str | None = None,
        split_seed: int | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        cache_dir: str = ".cache/glioma_xai",
        sampler: Sampling = "none",
        on_error: str = "raise",
        exclude: Sequence[str] = (),
        shortcut: str = "none",
        phantom: Mapping[str, int | float | str | None] | None = None,
        mask_share: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_choice("spatial_dims", spatial_dims, (2, 3))
        require_choice("centre", centre, ("brain", "tumour"))
        require_choice("on_error", on_error, ("raise", "skip"))
        require_choice("sampler", sampler, ("none", "balanced"))
        require_choice("normalisation", normalisation, NORMALISATIONS)
        if not 0 <= mask_share <= 1:
            raise ConfigError(
                f"data.mask_share must be a share in [0, 1], got {mask_share}. 1 uses every mask."
            )
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.sampling = sampler
        self.on_error = on_error
        self.augmentation = fill(Augmentation, augmentation or {}, group="augmentation")
        drawn_by = seed if split_seed is None else split_seed
        self.division = Division(
            SplitSettings(test_share, validation_share, folds, fold, drawn_by, tuple(test_sites)),
            None if splits_file is None else Path(splits_file).expanduser(),
            mask_share,
        )
        self.phantom_settings = None
        if reader == "phantom":
            wanted = {"shortcut": shortcut, **(phantom or {})}
            self.phantom_settings = fill(PhantomSettings, wanted, group="phantom")
        self.cache_dir = Path(cache_dir).expanduser()
        self.source = CohortSource(
            reader=reader,
            classes=self.classes,
            modalities=self.modalities,
            root=None if root is None else Path(root).expanduser(),
            manifest=None if manifest is None else Path(manifest).expanduser(),
            columns=dict(columns or {}),
            label_values=None if label_values is None else dict(label_values),
            grades=None if grades is None else Path(grades).expanduser(),
            label_map={str(key): str(name) for key, name in (label_map or {}).items()},
            exclude=frozenset(str(name) for name in exclude),
            allow_outside_root=allow_outside_root,
        )
        self.preparation = Preparation(
            modalities=self.modalities,
            region=region,
            spatial_dims=spatial_dims,
            spatial_size=axis_values("spatial_size", spatial_size, spatial_dims, int),
            spacing_mm=axis_values("spacing_mm", spacing_mm, spatial_dims, float),
            slices=SliceSelection(slice_count, slice_step, slice_min_area),
            normalisation=normalisation,
            neighbours=neighbours,
            centre=centre,
            jitter=jitter,
            annotation=fill(Annotation, annotation or {}, group="annotation"),
        )
        self._epoch = 0
        self._cohorts: dict[bool, PreparedCohort] = {}

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
        if self._graded in self._cohorts:
            return
        self.prepare_data()
        self._cohorts[self._graded] = prepare_cohort(
            self.source,
            self.preparation,
            self.division,
            cache_dir=self.cache_dir,
            workers=max(2, self.num_workers),
            skip_errors=self.on_error == "skip",
            graded=self._graded,
        )

    def inspect(self, page: str | Path | None = None) -> list[Problem]:
        """Read the whole cohort and return every problem, errors first; nothing is cached.

        Args:
            page: HTML file for the problems, counts and a picture of every subject; None for none.
        """
        self.prepare_data()
        workers = max(2, self.num_workers)
        found = examine_cohort(self.source, self.preparation, self.division, workers=workers)
        if page is not None:
            write_inspection_page(found, Path(page), title="Cohort check")
        return list(found.problems)

    @property
    def cohort(self) -> PreparedCohort:
        """The prepared cohort; sets it up if that has not been done."""
        if not self._cohorts:
            self.setup()
        return self._cohorts[self._graded]

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
        labels = self.cohort.rows("train")["label"].to_numpy(np.int64)
        counts = np.bincount(labels, minlength=len(self.classes))
        return torch.from_numpy((counts.sum() / (len(counts) * counts)).astype(np.float32))

    def normalised_range(self) -> tuple[float, float]:
        """Return the smallest and largest value an image can have."""
        fixed = NORMALISED_RANGE.get(self.preparation.normalisation)
        if fixed is not None:
            return fixed
        ranges = np.array([entry.geometry["value_range"] for entry in self.cohort.entries])
        return float(ranges[:, 0].min()), float(ranges[:, 1].max())

    def write_splits(self, path: str | Path) -> None:
        """Write the split of every patient as a CSV that ``splits_file`` reads back."""
        write_splits(self.cohort.splits, Path(path))

    def set_epoch(self, epoch: int) -> None:
        """Choose the first epoch of the next training loader; Lightning sets the later ones."""
        self._epoch = epoch

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return augmented training batches in a fresh order each epoch."""
        rows = self.cohort.rows("train")
        sampler = EpochSampler(
            rows["label"].to_numpy(np.int64),
            sampling=self.sampling,
            seed=self.seed,
            epoch=self._epoch if self.trainer is None else self.trainer.current_epoch,
        )
        return self._loader(self._dataset(rows, self.augmentation), sampler)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the validation samples, unchanged."""
        return self.evaluation_loader("validation")

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

    def sample(self, subject_id: str) -> list[Sample]:
        """Return the samples of a subject, or of all scans of a patient, unchanged.

        Raises:
            CohortError: If the cohort has no such id; the nearest one is named.
        """
        table = self.cohort.table
        rows = table[(table["subject_id"] == subject_id) | (table["patient_id"] == subject_id)]
        if rows.empty:
            self.cohort.entry(subject_id)
        dataset = self._dataset(rows.assign(guided=True), None)
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

    def _loader(self, dataset: SampleDataset, sampler: EpochSampler | None) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
