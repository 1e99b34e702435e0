"""What is wrong with a composed config: unknown keys, values of the wrong kind, callables."""

import inspect
import typing
from collections.abc import Callable
from dataclasses import fields
from importlib.util import find_spec

import pydantic
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glioma_xai.attribution import COMPOSITES
from glioma_xai.config.composing import nearest
from glioma_xai.config.schema import Node, TrainConfig
from glioma_xai.errors import ConfigError
from glioma_xai.losses.objective import Objective

_OF_OBJECTIVE = ("guidance_weight", "consistency_weight", "combine", "weighting", "balance_every")
_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def check_config(config: DictConfig) -> None:
    """Refuse keys that nothing knows and values of the wrong kind, before anything is built.

    The schema of a node with ``_target_`` is the signature of that callable; of the others, the
    dataclasses of :mod:`glioma_xai.config.schema`. So a user's own classes are checked like ours.

    Raises:
        ConfigError: At the first such key, with the nearest known one.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    container = typing.cast("dict[str, typing.Any]", values)
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
    hints = typing.get_type_hints(schema, include_extras=True)
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
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a builtin that does not say what it takes
        return
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
        read = adapter.validate_python(value)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{path}: {reason}, found {value!r}. Change {path}.") from error
    if isinstance(value, str) and isinstance(read, int | float):  # pydantic reads it, we do not
        raise ConfigError(f"{path}: expected a number, found the text {value!r}. Drop the quotes.")


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
