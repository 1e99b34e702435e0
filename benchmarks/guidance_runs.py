"""A run of the guidance study: a recipe with a seed, as a command line and as a Hydra config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

CONF = Path(__file__).parent.parent / "conf"
SEEDS = (201, 202, 203, 204, 205)  # phantom cohorts on which nothing was ever chosen
COMMON = (
    "data.spacing_mm=4.0",
    "data.spatial_size=[48,56]",
    "data.slice_count=3",
    "data.batch_size=32",
    "trainer.max_epochs=20",
    "logger=none",
    "overlays=0",
    "bootstrap=100",
)


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Args:
        name: Row of the tables.
        overrides: Beside those that all runs share.
        seeds: One run each, on a cohort of its own.
        minutes: Expected on one core, for the price.
        shortcut: Of the phantom cohort.
    """

    name: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    minutes: float = 1.5
    shortcut: str = "corner_marker"


@dataclass(frozen=True)
class Run:
    """A recipe with one seed."""

    block: str
    recipe: Recipe
    seed: int
    cohort: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a row of the table."""
        return self.block, self.recipe.name, self.recipe.shortcut, str(self.seed)

    @property
    def name(self) -> str:
        """The key as the name of a config, and of the run."""
        return "-".join(re.sub(r"\W+", "_", part).strip("_") for part in self.key)

    @property
    def overrides(self) -> list[str]:
        """Of ``python -m glioma_xai.train``; what a recipe sets comes after what all share."""
        chosen = dict(
            word.split("=", 1) for word in (*COMMON, *self.cohort, *self.recipe.overrides)
        )
        return [
            *(f"{key}={value}" for key, value in chosen.items()),
            f"data.shortcut={self.recipe.shortcut}",
            f"++data.phantom.seed={self.seed}",
            f"seed={self.seed}",
        ]

    @property
    def config(self) -> str:
        """The same as a config of the group ``study``, so that one sweep takes any set of runs."""
        includes: list[str] = []
        groups: list[dict[str, Any]] = []
        values: dict[str, Any] = {"name": self.name}
        for word in OverridesParser.create().parse_overrides(self.overrides):
            key, value = word.key_or_group, word.value()
            if key == "experiment":
                includes.append(f"/experiment/{value}")
            elif (CONF / key).is_dir():
                groups.append({f"override /{key}": value})
            else:
                _put(values, key.split("."), value)
        body = {"defaults": [*includes, *groups, "_self_"], **values}
        return "# @package _global_\n" + yaml.safe_dump(body, sort_keys=False)


def _put(values: dict[str, Any], path: Sequence[str], value: object) -> None:
    *outer, last = path
    for name in outer:
        values = values.setdefault(name, {})
    values[last] = value
