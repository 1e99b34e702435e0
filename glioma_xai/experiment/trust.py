"""What a config that may come from somebody else can name: no code, no secret.

Interpolations are read with OmegaConf's own grammar, because what it accepts is what it runs.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from glioma_xai.config import conf_dir
from glioma_xai.errors import ConfigError

_ENVIRONMENT = "oc.env"


@cache
def known_targets() -> frozenset[str]:
    """Every `_target_` that our own configs name; exact names, because prefixes are not safe."""
    names = {"pytorch_lightning.loggers.WandbLogger"}  # earlier run folders name it
    for path in conf_dir().rglob("*.yaml"):
        names.update(re.findall(r"_target_:\s*([\w.]+)", path.read_text()))
    return frozenset(names)


@cache
def _known_calls() -> tuple[frozenset[str], frozenset[str]]:
    """Calls of resolvers in our own configs as they are written, and the variables they read."""
    texts, variables = set(), set()
    for path in conf_dir().rglob("*.yaml"):
        for _, value in _leaves(yaml.safe_load(path.read_text()), ""):
            for call in _calls(value):
                texts.add(call.getText())
                if _resolver(call) == _ENVIRONMENT:
                    variables.add(_variable(call))
    return frozenset(texts), frozenset(variables)


def check_trust(config: DictConfig, *, trust: Sequence[str] = ()) -> None:
    """Refuse callables, resolvers and environment variables that a run folder may not name.

    References such as ``${seed}`` are let through, and of calls (``${name:...}``) those that our
    own configs make, with any default for an environment variable.

    Args:
        config: As read from ``<run>/.hydra/config.yaml``, not resolved.
        trust: What is allowed besides: packages of the user's own whose callables may be named,
            environment variables, resolvers.

    Raises:
        ConfigError: At the first other ``_target_``, variable or resolver.
    """
    node = OmegaConf.to_container(config, resolve=False)
    _check_targets(node, trust)
    for path, value in _leaves(node, ""):
        for call in _calls(value):
            _check_call(call, path, trust)


def check_resolved(config: DictConfig, *, trust: Sequence[str] = ()) -> None:
    """Refuse what only shows once all references are followed.

    Texts that follow each other may make up an interpolation, or a backslash keep one for later;
    whoever reads the value next would run it.

    Args:
        config: That :func:`check_trust` let through, with the run's folder filled in.
        trust: As there.

    Raises:
        ConfigError: At the first such value, or if a reference leads nowhere.
    """
    try:
        node = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    _check_targets(node, trust)
    for path, value in _leaves(node, ""):
        if "${" in value:
            raise ConfigError(
                f"{path}: expected a value or a reference, found text that becomes an "
                "interpolation only when it is put together. Write the value itself into the run's "
                ".hydra/config.yaml."
            )


def names_in(config: DictConfig) -> list[str]:
    """What ``trust`` must hold so that a config of one's own passes, whatever it calls.

    Args:
        config: Not resolved.
    """
    node = OmegaConf.to_container(config, resolve=False)
    names = {target.split(".", 1)[0] for _, target in _targets(node, "")}
    for _, value in _leaves(node, ""):
        for call in _calls(value):
            name = _resolver(call)
            names.add(_variable(call) if name == _ENVIRONMENT else name)
    return sorted(names)


def _check_targets(node: object, trust: Sequence[str]) -> None:
    for path, target in _targets(node, ""):
        package = target.split(".", 1)[0]
        if target not in known_targets() and package not in trust:
            raise ConfigError(
                f"{path}: expected one of the classes that glioma_xai's own configs name, found "
                f"{target}. If the run folder is yours, add trust=[{package}]."
            )


def _check_call(call: Any, path: str, trust: Sequence[str]) -> None:  # noqa: ANN401 - of a parser
    texts, variables = _known_calls()
    name = _resolver(call)
    if "${" in name:
        raise ConfigError(
            f"{path}: expected a value, found a resolver whose name is itself an interpolation, "
            f"{name}. Write the resolver's name, or the value."
        )
    if name == _ENVIRONMENT:
        variable = _variable(call)
        if variable not in variables.union(trust):
            raise ConfigError(
                f"{path}: expected a value, found the environment variable {variable}. If the run "
                f"folder is yours, add trust=[{variable}]."
            )
    elif call.getText() not in texts and name not in trust:
        raise ConfigError(
            f"{path}: expected a value or a reference such as ${{seed}}, found a call of the "
            f"resolver {name}. If the run folder is yours, add trust=[{name}]."
        )


def _calls(text: str) -> Iterator[Any]:
    """Every ``${resolver:...}`` in a text, also inside others, as nodes of OmegaConf's parser."""
    nodes = [parse(text)] if "${" in text else []
    while nodes:
        node = nodes.pop()
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            yield node
        nodes.extend(getattr(node, "children", None) or [])


def _resolver(call: Any) -> str:  # noqa: ANN401
    return str(call.resolverName().getText())


def _variable(call: Any) -> str:  # noqa: ANN401
    """The first argument of a call as it is written."""
    arguments = call.sequence()
    return str(arguments.getChild(0).getText()) if arguments else ""


def _leaves(node: object, path: str) -> Iterator[tuple[str, str]]:
    """Dotted key and value of every text."""
    if isinstance(node, str):
        yield path, node
    for key, value in _children(node):
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _targets(node: object, path: str) -> Iterator[tuple[str, str]]:
    """Dotted key and value of every `_target_`."""
    for key, value in _children(node):
        inner = f"{path}.{key}" if path else str(key)
        if key == "_target_" and value is not None:
            yield inner, str(value)
        yield from _targets(value, inner)


def _children(node: object) -> list[tuple[object, object]]:
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list) else []
