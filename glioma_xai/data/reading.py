"""From the settings of a cohort to its subjects, whatever its layout."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from glioma_xai.data.brats import list_brats
from glioma_xai.data.cohort import RECIPE, PhantomSettings, write_cohort
from glioma_xai.data.grades import join_grades, with_grade_problems
from glioma_xai.data.images import list_images
from glioma_xai.data.layout import VARIANTS_FOLDER, Listing, nearest_name, repeated_ids
from glioma_xai.data.manifest import list_manifest
from glioma_xai.data.msd import list_msd
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.records import Problem, Subject

Reader = Literal["phantom", "brats", "manifest", "msd", "images"]
READERS: tuple[Reader, ...] = get_args(Reader)


@dataclass(frozen=True)
class CohortSource:
    """Where a cohort lies and how it is laid out.

    Args:
        reader: ``brats`` and ``phantom`` read a folder a case; ``msd`` the Decathlon's layout;
            ``images`` folders of PNG or TIFF; ``manifest`` a table.
        root: The cohort's folder; for a manifest, what its file names are relative to.
        manifest: The table.
        columns: Column of each role, where it is not called like the role.
        classes: Class names in the order of their index.
        modalities: Channels in order.
        label_values: Mask value of each part of the tumour; None tells it from the masks.
        grades: Table with the class of each subject, for cohorts that come without.
        label_map: Value in a table or name of a folder to class name, where they differ.
        exclude: Patients or subjects that are passed over.
        allow_outside_root: True lets a manifest's file names leave the root.
    """

    reader: Reader
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    root: Path | None = None
    manifest: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    label_values: Mapping[str, int] | None = None
    grades: Path | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    exclude: Collection[str] = ()
    allow_outside_root: bool = False

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise ConfigError(
                f"data.reader must be one of {', '.join(READERS)}, got {self.reader}"
                f"{nearest_name(self.reader, READERS)}. Choose one of them."
            )

    def listing(self, *, variant: str | None = None, graded: bool = True) -> Listing:
        """Return the subjects, or those of a variant: the same with the shortcut changed.

        Ids to exclude that nobody has are a problem.

        Args:
            variant: Name of a variant; None for the cohort itself.
            graded: False asks for no grades.

        Raises:
            CohortError: If the cohort or the variant is not there.
            ConfigError: If a setting that the reader needs is missing.
        """
        listing = self._listing(variant, graded)
        if not self.exclude:
            return listing
        everybody = replace(self, exclude=())._listing(variant, graded).subjects
        known = {name for s in everybody for name in (s.subject_id, s.patient_id)}
        fix = "Correct data.exclude."
        return replace(
            listing,
            problems=(
                *listing.problems,
                *(
                    Problem("data.exclude", "ids of the cohort", f"{name}{near}", fix, "warning")
                    for name in sorted(set(self.exclude) - known)
                    for near in [nearest_name(name, known)]
                ),
            ),
        )

    def _listing(self, variant: str | None, graded: bool) -> Listing:
        if self.reader == "manifest":
            return self._manifest_listing(variant, graded)
        if self.root is None:
            raise ConfigError(
                f"data={self.reader} needs data.root, got null. Set it to the cohort's folder."
            )
        root = self.root if variant is None else self.root / VARIANTS_FOLDER / variant
        if self.grades is None:
            return self._folder_listing(root, graded=graded)
        return join_grades(
            self._folder_listing(root, graded=False),
            self.grades,
            columns=self.columns,
            classes=self.classes,
            label_map=self.label_map,
            graded=graded,
        )

    def _folder_listing(self, root: Path, *, graded: bool) -> Listing:
        if self.reader == "msd":
            listing = list_msd(root, exclude=self.exclude)
        elif self.reader == "images":
            listing = list_images(
                root,
                classes=self.classes,
                modalities=self.modalities,
                label_map=self.label_map,
                exclude=self.exclude,
            )
        else:
            return list_brats(
                root,
                classes=self.classes,
                label_values=self.label_values,
                label_map=self.label_map,
                exclude=self.exclude,
                graded=graded,
            )
        if self.label_values is not None:
            listing = replace(listing, label_values=self.label_values)
        problems = (*listing.problems, *_repeated(listing.subjects), *_unmasked(listing.subjects))
        listing = replace(listing, problems=problems)
        return with_grade_problems(listing) if graded else listing

    def variants(self) -> tuple[str, ...]:
        """Return the names of the cohort's variants, or none."""
        folder = None if self.root is None else self.root / VARIANTS_FOLDER
        if self.reader == "manifest" or folder is None or not folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))

    def _manifest_listing(self, variant: str | None, graded: bool) -> Listing:
        if self.manifest is None:
            raise ConfigError(
                "data=manifest needs data.manifest, got null. Set it to the path of the table."
            )
        if variant is not None:
            raise CohortError(
                f"a cohort read from a manifest has no variants, got {variant}. Leave it out."
            )
        listing = list_manifest(
            self.manifest,
            root=self.root,
            columns=self.columns,
            classes=self.classes,
            modalities=self.modalities,
            label_values=self.label_values,
            label_map=self.label_map,
            allow_outside_root=self.allow_outside_root,
            exclude=self.exclude,
            graded=graded,
        )
        return replace(listing, problems=(*listing.problems, *_unmasked(listing.subjects)))


def _repeated(subjects: Sequence[Subject]) -> list[Problem]:
    """Report ids that several files have."""
    problems = []
    for subject_id in sorted(repeated_ids(subjects)):
        files = [next(iter(s.images.values())) for s in subjects if s.subject_id == subject_id]
        found = f"{len(files)}, {' and '.join(str(path) for path in files[:2])}"
        fix = "Rename or remove all but one."
        problems.append(Problem(subject_id, "one subject of this id", found, fix))
    return problems


def _unmasked(subjects: Sequence[Subject]) -> list[Problem]:
    """Warn of subjects without a mask where others have one."""
    bare = [subject.subject_id for subject in subjects if subject.lesion_mask is None]
    if not bare or len(bare) == len(subjects):
        return []
    found = f"none for {len(bare)} of {len(subjects)}, such as {bare[0]}"
    fix = "They are used for classification only."
    return [Problem("the cohort", "a mask for every subject", found, fix, "warning")]


def ensure_phantom(
    settings: PhantomSettings, *, root: Path | None, cache_dir: Path, workers: int
) -> Path:
    """Return the folder of the phantom cohort; write it first if it is not there.

    Args:
        settings: What to write; a folder below ``cache_dir`` is named by them.
        root: Where to write it instead.
        cache_dir: Holds phantom cohorts.
        workers: Processes that write.
    """
    described = json.dumps([RECIPE, asdict(settings)], sort_keys=True)
    name = f"phantom_{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    return write_cohort(root or cache_dir / name, settings, workers=workers)
