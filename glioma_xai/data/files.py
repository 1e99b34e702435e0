"""NIfTI, PNG and TIFF files into arrays."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glioma_xai.data.layout import nifti_stem
from glioma_xai.errors import SubjectError
from glioma_xai.records import Problem

IMAGE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""World matrix of PNG and TIFF: x along a row, y down a column, as ITK reads them; pixel 1 mm."""
PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
Volume = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Values (C, X, Y, Z) and affine (4, 4)."""


def read_volume(path: Path, *, indices: bool = False) -> Volume:
    """Return a file's values (C, X, Y, Z) float32 and its affine (4, 4).

    NIfTI of two, three or four dimensions (the last are channels), PNG and TIFF.

    Args:
        path: The file.
        indices: True gives the numbers of a picture with a palette, as masks are drawn; False its
            colours.

    Raises:
        SubjectError: If the file is absent, is not an image, or breaks off.
    """
    volume = try_volume(path, indices=indices)
    if isinstance(volume, Problem):
        raise SubjectError(str(volume))
    return volume


def try_volume(path: Path, *, indices: bool = False) -> Volume | Problem:
    """Return what ``read_volume`` returns, or why it cannot."""
    if not path.is_file():
        return Problem(str(path), "a file", "none", "Restore it.")
    is_nifti = nifti_stem(path) is not None
    try:
        return _read_nifti(path) if is_nifti else _read_image(path, indices)
    except _UnsupportedError as error:
        fix = "Convert it to a plain image with one value a voxel and channel."
        return Problem(str(path), "an image of a kind that is known", str(error), fix)
    except Exception as error:  # nibabel and Pillow raise many kinds for damaged files
        return Problem(
            str(path),
            f"a readable {'NIfTI' if is_nifti else 'PNG or TIFF'} file",
            f"a damaged or truncated one ({type(error).__name__}: {error})",
            "Copy it again from the source.",
        )


class _UnsupportedError(Exception):
    """A file that is whole but of a kind that is not read."""


def _read_nifti(path: Path) -> Volume:
    image = nib.load(path)
    kind = image.header.get_data_dtype()
    if kind.names is not None or kind.kind == "c":
        raise _UnsupportedError(f"colours or complex numbers ({kind})")
    data = np.asanyarray(image.dataobj).astype(np.float32, copy=False)
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim == 3:
        data = data[..., None]
    if data.ndim != 4:
        raise _UnsupportedError(f"{data.ndim} dimensions")
    return np.moveaxis(data, -1, 0), np.asarray(image.affine, dtype=np.float64)


def _read_image(path: Path, indices: bool) -> Volume:
    if path.suffix.lower() not in PICTURE_ENDINGS:
        kind = f"a file that ends in {path.suffix}" if path.suffix else "a file without an ending"
        raise _UnsupportedError(f"{kind}, where NIfTI, PNG, TIFF, BMP and JPEG are read")
    with Image.open(path) as image:
        pages = getattr(image, "n_frames", 1)
        if pages > 1:
            raise _UnsupportedError(f"{pages} pages")
        shown = image.convert("RGB") if image.mode in ("P", "PA") and not indices else image
        data = np.asarray(shown).astype(np.float32)
        has_alpha = shown.mode in ("RGBA", "LA", "PA")
    if data.ndim == 2:
        data = data[..., None]
    if has_alpha:
        data = data[..., :-1]
    return data.transpose(2, 1, 0)[..., None], IMAGE_AFFINE.copy()
