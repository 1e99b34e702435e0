"""From the YAML files and overrides to a config, with Hydra's errors in one line."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glioma_xai.errors import ConfigError

_EXTRAS = ("joblib", "optuna", "ray", "submitit")  # of the package, for plugins of Hydra


def conf_dir() -> Path:
    """Folder of the YAML files: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"the configuration: expected conf/train.yaml in {package} or beside it, found neither. "
        "Reinstall glioma_xai."
    )


def compose_config(
    name: str, overrides: Sequence[str], *, config_dirs: Sequence[str] = (), hydra: bool = False
) -> DictConfig:
    """Compose a config as Hydra would for a job, and say what is wrong with an override.

    Args:
        name: Main config: ``train``, ``phantom``, ...
        overrides: As on the command line.
        config_dirs: Folders of the user's own configs (``--config-dir``).
        hydra: Keep Hydra's own node, so that interpolations of it can be resolved.

    Raises:
        ConfigError: With the nearest known key or choice.
    """
    search = (
        [f"hydra.searchpath=[{','.join(_quoted(d) for d in config_dirs)}]"] if config_dirs else []
    )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name=name):
            return compose(name, [*overrides, *search], return_hydra_config=hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(str(error), name)) from error
    except ValueError as error:  # Hydra's for a group that is given a number or nothing
        raise ConfigError(_unnamed(overrides) or str(error)) from error


def _unnamed(overrides: Sequence[str]) -> str | None:
    """What is wrong with the first override that gives a group something other than a name."""
    for word in overrides:
        group, _, value = word.lstrip("+").partition("=")
        known = choices(group)
        if known and value not in known:
            return f"{word}: no such choice. {nearest(value, known)}"
    return None


def _quoted(folder: str) -> str:
    return "'file://" + str(Path(folder).resolve()).replace("'", "\\'") + "'"


def _explain(message: str, name: str) -> str:
    """Hydra's message as one line with the nearest known key or choice."""
    first = " ".join(message.split("\n\nConfig search path")[0].split())
    if found := re.search(r"Could not (?:override|find) '([^']+)'", first):
        word = found.group(1).split("@")[0]
        if word.startswith(("hydra/launcher/", "hydra/sweeper/")):
            plugin = word.rsplit("/", 1)[1]
            extra = plugin.partition("_")[0]
            if extra in _EXTRAS:
                return f"{word}: not installed. pip install 'glioma-xai[{extra}]'."
            return f"{word}: no such choice. {nearest(plugin, [*_EXTRAS, 'basic'])}"
        group, _, choice = word.partition("/")
        if choice and (conf_dir() / group).is_dir():
            return f"{group}={choice}: no such choice. {nearest(choice, choices(group))}"
        return f"{word}: no such key. {nearest(word, known_keys(name))}"
    if found := re.search(r"Key '([^']+)' is not in struct full_key: (\S+)", first):
        return f"{found.group(2)}: no such key. {nearest(found.group(2), known_keys(name))}"
    return first


def choices(group: str) -> list[str]:
    """Names of the YAML files of a config group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def known_keys(name: str) -> list[str]:
    """Every key of the plain config, dotted, and the config groups."""
    plain = OmegaConf.to_container(compose_config(name, []), resolve=False)
    groups = [path.name for path in conf_dir().iterdir() if path.is_dir()]

    def walk(node: object, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        found = [f"{prefix}{key}" for key in node]
        return found + [k for key, value in node.items() for k in walk(value, f"{prefix}{key}.")]

    return groups + walk(plain, "")


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint "Did you mean x?", or the list of what is known if nothing is near."""
    names = sorted(set(known))
    tails = {name.rsplit(".", 1)[-1]: name for name in names}
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close:
        tail = difflib.get_close_matches(word.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
        close = [tails[tail[0]]] if tail else []
    if close:
        return f"Did you mean {close[0]}?"
    return "Known: " + ", ".join(names[:25]) + (", ..." if len(names) > 25 else "") + "."
