"""A run that is read back: where its network works."""

import pytest
import torch

from glioma_xai.errors import ConfigError
from glioma_xai.experiment.saved import device_of


@pytest.mark.parametrize(
    ("gpus", "text", "accelerator", "expected"),
    [
        (0, None, "cpu", "cpu"),
        (0, None, "gpu", "cpu"),  # trained elsewhere
        (2, None, "gpu", "cuda"),
        (2, None, "cpu", "cpu"),  # the numbers of the run itself
        (2, "cpu", "gpu", "cpu"),
        (2, "cuda", "cpu", "cuda"),
        (2, "cuda:1", "cpu", "cuda:1"),
    ],
)
def test_a_network_works_where_it_was_trained_unless_told(
    monkeypatch: pytest.MonkeyPatch, gpus: int, text: str | None, accelerator: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert device_of(text, accelerator=accelerator) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "text", "known"),
    [(0, "cuda", "cpu"), (1, "cuda:1", "cpu, cuda, cuda:0"), (1, "gpu", "cpu, cuda, cuda:0")],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: int, text: str, known: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError, match=rf"device: expected one of {known}, found {text}\."):
        device_of(text, accelerator="gpu")
