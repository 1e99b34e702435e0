"""What can be set about data: plain values of a configuration, checked and grouped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl

from glioma_xai.data.annotations import Annotation
from glioma_xai.data.augmentation import Augmentation
from glioma_xai.data.cohort import PhantomSettings
from glioma_xai.data.grids import Centre
from glioma_xai.data.intensities import NORMALISATIONS, Normalisation
from glioma_xai.data.labels import Region
from glioma_xai.data.loading import Sampling
from glioma_xai.data.prepared import PreparedCohort
from glioma_xai.data.reading import CohortSource, Reader
from glioma_xai.data.settings import (
    axis_values,
    fill,
    require_at_least,
    require_choice,
    require_names,
    require_used,
)
from glioma_xai.data.slices import SliceSelection
from glioma_xai.data.split_settings import Division, SplitSettings
from glioma_xai.data.transforms import Preparation
from glioma_xai.errors import ConfigError


class DataArguments(pl.LightningDataModule):
    """The arguments of ``GliomaDataModule``, as the settings that the parts of it take.

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
        label_values: Mask value of necrosis, oedema, non_enhancing, enhancing, cavity, tumour; None
            tells it from the masks.
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
        fold: The fold that is held out, from 0.
        fold_split: What the fold is: validation, or test (validation is then drawn by share).
        splits_file: CSV written by ``write_splits``; taken instead of drawing.
        split_seed: Seed of the splits and of which masks are used; None takes ``seed``.
        batch_size: Samples a batch.
        num_workers: Processes that load batches.
        prepare_workers: Subjects prepared at a time, each in up to 0.75 GiB of memory for a
            volume of BraTS's size; None takes every core.
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
        fold_split: Literal["validation", "test"] = "validation",
        splits_file: str | None = None,
        split_seed: int | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        prepare_workers: int | None = None,
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
        require_choice("fold_split", fold_split, ("validation", "test"))
        require_choice("sampler", sampler, ("none", "balanced"))
        require_choice("normalisation", normalisation, NORMALISATIONS)
        if not 0 <= mask_share <= 1:
            raise ConfigError(
                f"data.mask_share must be a share in [0, 1], got {mask_share}. 1 uses every mask."
            )
        require_at_least("prepare_workers", prepare_workers, 1)
        require_at_least("batch_size", batch_size, 1)
        require_at_least("num_workers", num_workers, 0)
        require_at_least("neighbours", neighbours, 0)
        require_at_least("jitter", jitter, 0)
        require_names("classes", classes, 2)
        require_names("modalities", modalities, 1)
        require_names("exclude", exclude, 0)
        require_names("test_sites", test_sites, 0)
        named = {"manifest": manifest, "shortcut": None if shortcut == "none" else shortcut}
        require_used(reader, named, {"manifest": "manifest", "shortcut": "phantom"})
        if (reader == "manifest" and grades) or (reader != "manifest" and columns and not grades):
            raise ConfigError(
                "data.columns names columns of data.manifest or data.grades: expected one of them, "
                f"got data={reader}, columns={dict(columns or {})}, grades={grades}. A manifest "
                "holds its grades itself."
            )
        self.classes = tuple(classes)
        self.modalities = tuple(modalities)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.prepare_workers = prepare_workers
        self.seed = seed
        self.sampling = sampler
        self.on_error = on_error
        self.augmentation = fill(Augmentation, augmentation or {}, group="augmentation")
        drawn_by = seed if split_seed is None else split_seed
        self.division = Division(
            SplitSettings(
                test_share, validation_share, folds, fold, drawn_by, tuple(test_sites), fold_split
            ),
            None if splits_file is None else Path(splits_file).expanduser(),
            mask_share,
        )
        self.phantom_settings = None
        if reader == "phantom":
            wanted = {"shortcut": shortcut, **(phantom or {})}
            self.phantom_settings = fill(PhantomSettings, wanted, group="phantom")
            if wanted["shortcut"] == "missing_sequence" and not {"t1", "flair"} <= set(modalities):
                raise ConfigError(
                    "data.shortcut=missing_sequence puts FLAIR in T1: expected both in "
                    f"data.modalities, got {', '.join(modalities)}. Set [t1,t1ce,flair]."
                )
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
        self._prepared: dict[bool, PreparedCohort] = {}  # by whether grades were asked for
