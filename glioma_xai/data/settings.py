"""Checks of settings that come as plain values from a configuration."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from glioma_xai.data.layout import nearest_name
from glioma_xai.errors import ConfigError

Settings = TypeVar("Settings")
Number = TypeVar("Number", int, float)


def require_choice(name: str, value: object, known: Collection[object]) -> None:
    """Raise a ConfigError unless ``data.<name>`` is one of the known values."""
    if value not in known:
        listed = ", ".join(str(choice) for choice in known)
        raise ConfigError(f"data.{name} must be one of {listed}, got {value}. Choose one of them.")


def require_at_least(name: str, value: int | None, least: int) -> None:
    """Raise a ConfigError if ``data.<name>`` is a number below the least that means something."""
    if value is not None and value < least:
        raise ConfigError(f"data.{name} must be {least} or more, got {value}. Raise it.")


def require_names(name: str, values: Sequence[str], least: int) -> None:
    """Raise a ConfigError unless ``data.<name>`` is a list of so many different names."""
    lowered = [str(value).casefold() for value in values]
    if isinstance(values, str) or len(values) < least or len(set(lowered)) < len(values):
        shown = values if isinstance(values, str) else f"[{', '.join(map(str, values))}]"
        raise ConfigError(
            f"data.{name} must be a list of {least} or more different names, got {shown}. "
            f"Write data.{name}=[a,b]."
        )


def require_used(reader: str, given: Mapping[str, object], used_by: Mapping[str, str]) -> None:
    """Raise a ConfigError for a setting that this reader would pass over.

    Args:
        reader: The reader.
        given: Setting to value; an empty one is not set.
        used_by: Setting to the reader that alone uses it.
    """
    for name, owner in used_by.items():
        if given[name] and reader != owner:
            raise ConfigError(
                f"data.{name} is used with data={owner} only, got {given[name]} with "
                f"data={reader}. Remove it or choose data={owner}."
            )


def fill(kind: Callable[..., Settings], given: Mapping[str, object], *, group: str) -> Settings:
    """Return a settings object from a mapping of its fields.

    Raises:
        ConfigError: If a key is none of its fields; the nearest is named.
    """
    names = list(inspect.signature(kind).parameters)
    for name in given:
        if name not in names:
            raise ConfigError(
                f"data.{group} must have keys of {', '.join(names)}, got {name}"
                f"{nearest_name(name, names)}. Rename or remove it."
            )
    return kind(**given)


def axis_values(
    name: str,
    value: float | Sequence[float] | None,
    spatial_dims: int,
    kind: Callable[[float], Number],
) -> tuple[Number, ...] | None:
    """Return one positive number for each axis; a single number is meant for all of them.

    Raises:
        ConfigError: If there are too few, too many, or one is not positive.
    """
    if value is None:
        return None
    values = (value,) * spatial_dims if isinstance(value, int | float) else tuple(value)
    if len(values) != spatial_dims or any(one <= 0 for one in values):
        raise ConfigError(
            f"data.{name} needs {spatial_dims} positive numbers (data.spatial_dims), got "
            f"{list(values)}. Give one for each axis."
        )
    return tuple(kind(one) for one in values)
