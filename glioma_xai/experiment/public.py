"""What a report and a tracker may show of a run: no folder of whoever ran it."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from omegaconf import DictConfig, OmegaConf

from glioma_xai.records import Problem
from glioma_xai.visualization.runs import flatten

FOLDERS = ("paths.", "data.root", "data.manifest", "data.grades", "data.splits_file")
"""Keys of a config, or their beginnings, that hold names of files and folders."""


def public_settings(config: DictConfig) -> dict[str, object]:
    """The config by dotted key, with no folder of whoever ran it: of paths the last part only."""
    node = OmegaConf.to_container(config, resolve=False)
    return {
        key: shown_value(value, folder=key.startswith(FOLDERS))
        for key, value in flatten(node).items()
    }


def shown_value(value: object, *, folder: bool = False) -> object:
    """A value with the last part only of each folder in it.

    Args:
        value: Of a config, or a list of such.
        folder: It is one, even if it is not absolute.
    """
    if isinstance(value, list):
        return [shown_value(item, folder=folder) for item in value]
    if isinstance(value, dict):
        return {key: shown_value(item, folder=folder) for key, item in value.items()}
    return _last_part(value) if folder or _is_folder(value) else value


def public_words(words: Sequence[str]) -> list[str]:
    """Overrides as they may be shown, ready for a shell; of folders the last part only.

    Args:
        words: Of a command line.
    """
    shown = []
    for word in words:
        key, _, value = word.partition("=")
        *folders, last = re.split(r"[/\\]", value.strip("'\"").rstrip("/\\"))
        shown.append(f"{key}=<folder>/{last}" if folders else shlex.quote(word))
    return shown


def _is_folder(value: object) -> bool:
    if not isinstance(value, str):
        return False
    absolute = Path(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return absolute or value.startswith(("~", "file:"))


def _last_part(value: object) -> object:
    if not isinstance(value, str) or "${" in value:
        return value
    return PureWindowsPath(value).name or value


def without_folders(problem: Problem, config: DictConfig) -> Problem:
    """A problem whose files are named from the cohort's folder on."""
    roots = [config.data.get(name) for name in ("root", "manifest", "grades", "splits_file")]
    roots.append(config.paths.get("cache"))
    folders = [str(Path(root).parent if Path(root).suffix else root) for root in roots if root]
    longest_first = sorted({f for f in folders if f not in ("", ".")}, key=len, reverse=True)

    def shown(text: str) -> str:
        for folder in longest_first:
            text = text.replace(f"{folder}/", "")
        return text

    return Problem(
        shown(problem.where),
        shown(problem.expected),
        shown(problem.found),
        shown(problem.fix),
        problem.severity,
    )
