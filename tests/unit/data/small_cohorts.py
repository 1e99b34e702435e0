"""Small cohorts, written where a test asks for them."""

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

SHAPE = (20, 24, 6)
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def brain_of(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """An ellipse in every slice."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    return np.repeat((x**2 + y**2 < 0.6)[..., None], shape[2], axis=2)


def case_arrays(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Four modalities and a segmentation with the labels 1, 2 and 4, largest in slice 3."""
    rng = np.random.default_rng(seed)
    brain = brain_of(shape)
    arrays = {
        name: np.where(brain, rng.integers(100, 1000, shape), 0).astype(np.int16)
        for name in ("t1", "t1ce", "t2", "flair")
    }
    seg = np.zeros(shape, np.uint8)
    for k, half in enumerate((0, 1, 2, 4, 3, 1)[: shape[2]]):
        cx, cy = shape[0] // 2, shape[1] // 2
        seg[cx - half : cx + half, cy - half : cy + half, k] = 2
        seg[cx - half : cx, cy - half : cy, k] = 4
    seg[shape[0] // 2, shape[1] // 2, min(3, shape[2] - 1)] = 1
    return arrays | {"seg": seg}


def save(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_case(folder: Path, case_id: str, seed: int = 0, **changes: np.ndarray | None) -> Path:
    """Write ``<folder>/<case_id>/<case_id>_<name>.nii.gz``; a change of None leaves a file out."""
    for name, array in (case_arrays(seed) | changes).items():
        if array is not None:
            save(folder / case_id / f"{case_id}_{name}.nii.gz", array)
    (folder / case_id).mkdir(parents=True, exist_ok=True)
    return folder / case_id


def small_settings(root: Path, cache: Path, /, **changes: object) -> dict[str, object]:
    """Arguments of a GliomaDataModule that reads small cases, with changes."""
    return {
        "reader": "brats",
        "root": str(root),
        "cache_dir": str(cache),
        "spatial_size": [16, 20],
        "spacing_mm": None,
        "slice_count": 2,
        "batch_size": 4,
        "test_share": 0.34,
        "validation_share": 0.17,
    } | changes


def images_by_key(loader: Iterable[dict]) -> dict[tuple[str, int], torch.Tensor]:
    """Images of a loader by subject and slice, in its order."""
    found = {}
    for batch in loader:
        keys = zip(batch["subject_id"], batch["slice_index"].tolist(), strict=True)
        found |= dict(zip(keys, batch["image"], strict=True))
    return found
