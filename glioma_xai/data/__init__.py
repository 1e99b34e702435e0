"""Cohorts to tensors: readers, splits, transforms, cache, phantom and the Lightning DataModule."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glioma_xai.data.datamodule import GliomaDataModule
    from glioma_xai.data.subject_space import restore

_PLACES = {
    "GliomaDataModule": "glioma_xai.data.datamodule",
    "restore": "glioma_xai.data.subject_space",
}
__all__ = ["GliomaDataModule", "restore"]


def __getattr__(name: str) -> object:
    """Import on first use, so that processes that only write phantoms need not load Lightning."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
