"""How patients are divided: shares, folds, sites."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glioma_xai.errors import ConfigError


@dataclass(frozen=True)
class SplitSettings:
    """How patients are divided.

    Args:
        test_share: Share of each class's patients that is tested; 1 tests all, with no training.
        validation_share: Share of each class's patients for validation; unused with ``folds``.
        folds: Number of cross-validation folds of what is not tested; None draws by share.
        fold: The fold that is held out, from 0.
        fold_split: What the fold is: ``validation``; or ``test``, with validation drawn by share
            from the other folds, so that the folds together test every patient once.
        seed: Same seed, same patients: same splits, whatever the order of the rows.
        test_sites: Patients of these sites are tested, and no others; empty tests by share.
    """

    test_share: float = 0.2
    validation_share: float = 0.15
    folds: int | None = None
    fold: int = 0
    seed: int = 0
    test_sites: tuple[str, ...] = ()
    fold_split: Literal["validation", "test"] = "validation"

    def __post_init__(self) -> None:
        if not (self.test_share >= 0 and self.validation_share >= 0):
            raise ConfigError(
                f"data.test_share and data.validation_share must not be negative, got "
                f"{self.test_share} and {self.validation_share}. 0 leaves a split empty."
            )
        if self.test_share + self.validation_share >= 1 and self.test_share != 1:
            raise ConfigError(
                f"data.test_share and data.validation_share must add up to less than 1, got "
                f"{self.test_share} + {self.validation_share}. Leave some patients to train on."
            )
        if self.folds is not None and (self.folds < 2 or not 0 <= self.fold < self.folds):
            raise ConfigError(
                f"data.folds must be 2 or more and data.fold lie in [0, folds), got "
                f"folds={self.folds}, fold={self.fold}. Folds are counted from 0."
            )


@dataclass(frozen=True)
class Division:
    """How patients are divided, and whose masks may be used.

    Args:
        settings: Shares, folds and seed.
        splits_file: Taken instead of drawing; None draws.
        mask_share: Share of training patients whose masks may be used.
    """

    settings: SplitSettings
    splits_file: Path | None = None
    mask_share: float = 1.0
