"""The configuration: where it lies, what it may hold, and what is wrong with one."""

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import pydantic
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glioma_xai.attribution import COMPOSITES, Target
from glioma_xai.attribution.composites import FirstLayer
from glioma_xai.errors import ConfigError
from glioma_xai.losses.objective import Objective

Node = dict[str, object]
_OF_OBJECTIVE = ("guidance_weight", "consistency_weight", "combine", "weighting", "balance_every")
_EXTRAS = ("joblib", "optuna", "ray", "submitit")  # of the package, for plugins of Hydra
_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


@dataclass
class AttributionConfig:
    """Which relevance is computed, for which output. Options left null keep the rule's default."""

    composite: str = "epsilon_plus"
    target: Target = "label"
    layer: str | list[str] | None = None
    first_layer: FirstLayer | None = None
    epsilon: float | None = None
    stabilizer: float | None = None
    relative_epsilon: bool | None = None
    gamma: float | None = None
    gamma_decreasing: bool | None = None
    low: float | None = None
    high: float | None = None
    rules: dict[str, str] | None = None


@dataclass
class LossConfig:
    """Classification loss + guidance_weight x schedule x guidance loss."""

    guidance: Node | None = None
    guidance_weight: float = 0.0
    schedule: Node | None = None
    combine: typing.Literal["sum", "convex"] = "sum"
    weighting: typing.Literal["fixed", "balanced", "uncertainty"] = "fixed"
    balance_every: int = 1
    probe: typing.Literal["image", "scaled", "mixed", "noise"] = "image"
    warm_start_epochs: int = 0
    warm_start_limit: int = 0
    warm_start: typing.Literal["exchange", "masked", "plain"] = "exchange"
    warm_start_on: typing.Literal["all", "guided"] = "guided"
    exchange_share: float = 0.0
    consistency_weight: float = 0.0
    guided_share: float = 1.0
    guided_batch: int | None = None
    every_n_steps: int = 1


@dataclass
class PathsConfig:
    """Folders: of all runs, of this run, of prepared data."""

    root: str = "runs"
    run: str = "runs/run"
    cache: str = ".cache"


@dataclass
class TrainConfig:
    """What `train` composes. Nodes with `_target_` take that callable's own arguments."""

    data: Node
    model: Node
    optimizer: Node
    trainer: Node
    attribution: AttributionConfig
    loss: LossConfig
    paths: PathsConfig
    callbacks: dict[str, Node | None]
    scheduler: Node | None = None
    logger: dict[str, Node | None] | None = None
    name: str = "plain"
    seed: int = 0
    deterministic: bool = False
    class_weights: typing.Literal["none", "balanced"] = "none"
    replace_activations: bool = False
    overlays: int = 6
    bootstrap: int = 1000
    objectives: list[str] | None = None


def with_defaults(config: DictConfig) -> DictConfig:
    """A run's config with the keys that came after it, at values that change nothing."""
    parts = {"attribution": AttributionConfig, "loss": LossConfig, "paths": PathsConfig}
    known = {field.name: field.default for field in fields(TrainConfig) if field.default != MISSING}
    for name, schema in parts.items():
        known[name] = {field.name: field.default for field in fields(schema)}
    merged = OmegaConf.merge(known, config)
    assert isinstance(merged, DictConfig)
    return merged


def conf_dir() -> Path:
    """Folder of the YAML files: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"the configuration: expected conf/train.yaml in {package} or beside it, found neither. "
        "Reinstall glioma_xai."
    )


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


def check_config(config: DictConfig) -> None:
    """Refuse keys that nothing knows and values of the wrong kind, before anything is built.

    The schema of a node with ``_target_`` is the signature of that callable; of the others, the
    dataclasses of this module. A user's own classes are therefore checked like ours.

    Raises:
        ConfigError: At the first such key, with the nearest known one.
    """
    container = typing.cast(
        "dict[str, typing.Any]",
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True),
    )
    _check_node(container, TrainConfig, "")
    _check_targets(container, "")
    loss, composite = container["loss"], container["attribution"]["composite"]
    if composite not in COMPOSITES:
        raise ConfigError(
            f"attribution.composite: no composite is called {composite}. "
            f"{nearest(composite, COMPOSITES)}"
        )
    Objective(**{key: loss[key] for key in _OF_OBJECTIVE})  # refuses weights that are none
    if loss["guidance_weight"] and loss["guidance"] is None:
        raise ConfigError(
            f"loss.guidance: expected a guidance loss, because loss.guidance_weight="
            f"{loss['guidance_weight']}, found null. Choose loss=lrp_guided."
        )


def _check_node(node: Node, schema: type, path: str) -> None:
    hints = typing.get_type_hints(schema)
    known = [f.name for f in fields(schema)]  # type: ignore[arg-type]
    for key, value in node.items():
        if key not in known:
            raise ConfigError(f"{path}{key}: no such key. {nearest(str(key), known)}")
        if hasattr(hints[key], "__dataclass_fields__"):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}{key}: expected a group of keys, found {value!r}.")
            _check_node(value, hints[key], f"{path}{key}.")
        else:
            _check_value(value, hints[key], f"{path}{key}")


def _check_targets(node: object, path: str) -> None:
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_targets(item, f"{path}{index}.")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _check_call(node, path)
    for key, value in node.items():
        _check_targets(value, f"{path}{key}.")


def _check_call(node: Node, path: str) -> None:
    target = find_target(str(node["_target_"]), where=f"{path}_target_")
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # a third party's annotations that cannot be resolved
        hints = {}
    for key, value in node.items():
        if key in _HYDRA_KEYS:
            continue
        if key not in parameters:
            raise ConfigError(
                f"{path}{key}: {node['_target_']} takes no such argument. "
                f"{nearest(key, parameters)}"
            )
        if key in hints and not _builds(value):
            _check_value(value, hints[key], f"{path}{key}")


def _builds(value: object) -> bool:
    """Whether a value is an object that is yet to be built, or a list of such."""
    if isinstance(value, list):
        return any(_builds(item) for item in value)
    return isinstance(value, dict) and "_target_" in value


def _check_value(value: object, annotation: object, path: str) -> None:
    try:
        adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(
            typing.cast("type", annotation)
        )
    except pydantic.errors.PydanticUserError:
        return  # a tensor, a module: nothing that YAML could hold
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{path}: {reason}, found {value!r}. Change {path}.") from error


def find_target(name: str, *, where: str) -> Callable[..., object]:
    """The callable that a `_target_` names.

    Raises:
        ConfigError: If there is none.
    """
    try:
        target = get_object(name)
    except Exception as error:
        package = name.split(".", 1)[0]
        fix = (
            "Correct the name."
            if find_spec(package)
            else f"Install {package}, or run where Python finds it."
        )
        raise ConfigError(
            f"{where}: expected the dotted name of a class or function, found {name}. {fix}"
        ) from error
    if not callable(target):
        raise ConfigError(f"{where}: expected a class or function, found {name}, which is neither.")
    return typing.cast("Callable[..., object]", target)
