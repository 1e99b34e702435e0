"""Every training command that the documentation shows can be composed."""

import re
import shlex

import pytest

from glioma_xai.config import compose_config
from glioma_xai.experiment.launch import split_arguments
from glioma_xai.experiment.sweep_plan import parse
from tests.conftest import ROOT

PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]
_COMMAND = re.compile(r"python -m glioma_xai\.train ([^\n`]*)")


def commands() -> list[str]:
    """The words after the program, without comments; those with an ellipsis are no commands."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        found += [re.sub(r"\s#.*", "", words).strip() for words in _COMMAND.findall(text)]
    return sorted({words for words in found if "..." not in words})


@pytest.mark.parametrize("words", commands())
def test_a_documented_command_is_known(words: str) -> None:
    overrides, _, _ = split_arguments(shlex.split(words))
    given = [word for word in overrides if not word.startswith("resume=")]
    given = [word for word in given if "<" not in word and ">" not in word]  # a reader's own
    fixed = [str(word.input_line) for word in parse(given) if not word.is_sweep_override()]
    compose_config("train", fixed)


def test_there_are_commands() -> None:
    assert len(commands()) > 10
