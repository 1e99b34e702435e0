"""A finished run read back: its config, its data or other data, its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glioma_xai.config import check_config, compose_config, known_keys, nearest, with_defaults
from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import CohortError, ConfigError, RunError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.checkpoints import BEST, load_checkpoint
from glioma_xai.experiment.trust import check_resolved, check_trust
from glioma_xai.training.module import GuidedClassifier

# what a network was trained for; other data must be brought into the same form
_OF_THE_NETWORK = (
    "classes",
    "modalities",
    "spatial_dims",
    "spatial_size",
    "spacing_mm",
    "normalisation",
    "region",
)
_TAKEN = ("data=", "data.", "paths.")  # overrides that change what a run reads
_ON_GPU = ("gpu", "cuda", "auto")  # accelerators of a trainer


@dataclass(frozen=True)
class SavedRun:
    """A run that has a checkpoint.

    Args:
        folder: Its folder.
        config: The config that it was trained with, ``data`` possibly replaced.
        other_data: Whether ``data`` differs from the run's own.
        device: Where its network works now.
        form: ``modalities`` and ``classes`` that the network was trained for.
    """

    folder: Path
    config: DictConfig
    other_data: bool
    device: torch.device
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_config(folder: Path, *, trust: Sequence[str] = ()) -> DictConfig:
    """The config of a run, resolved for its folder as it lies now.

    Raises:
        RunError: If this is no run folder.
        ConfigError: If it names callables, resolvers or variables that are not trusted.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise RunError(
            f"{folder}: expected a run folder with .hydra/config.yaml, found "
            f"{'no such folder' if not folder.exists() else 'none'}. Runs lie in "
            "runs/<experiment>/<date>."
        )
    try:
        config = OmegaConf.load(path)
        assert isinstance(config, DictConfig)
    except Exception as error:  # yaml and omegaconf raise many kinds
        raise RunError(
            f"{path}: expected a config, found a file that is none ({error})."
        ) from error
    check_trust(config, trust=trust)
    config = with_defaults(config)
    config.paths.run = str(folder)
    check_resolved(config, trust=trust)
    check_config(config)
    return config


def device_of(text: str | None, *, accelerator: str) -> torch.device:
    """Where a run's network is to work.

    Args:
        text: ``cpu``, ``cuda`` or ``cuda:<number>``; None for a GPU if the run was trained on one
            and there is one, else the CPU.
        accelerator: Of the run's trainer.

    Raises:
        ConfigError: If it is another kind of device, or a GPU that is not there.
    """
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if text is None:
        return torch.device("cuda" if gpus and accelerator in _ON_GPU else "cpu")
    known = ["cpu", "cuda", *gpus] if gpus else ["cpu"]
    if text not in known:
        raise ConfigError(f"device: expected one of {', '.join(known)}, found {text}. Choose one.")
    return torch.device(text)


def open_run(
    folder: Path,
    overrides: Sequence[str],
    *,
    trust: Sequence[str] = (),
    device: str | None = None,
    keys: Sequence[str] = (),
) -> SavedRun:
    """Read a run's config and apply the ``data`` overrides of a command line.

    ``data=<name>`` replaces the data's config, except for what the network needs (channels, size,
    spacing, ...), which stays the run's unless overridden, and tests on the whole of
    it; without it ``data.<key>=`` changes the run's own data.

    Args:
        folder: The run's.
        overrides: Of the command line, less the command's own keys.
        trust: What its config may name, see
            :func:`glioma_xai.experiment.trust.check_trust`.
        device: Where the network is to work, see :func:`device_of`.
        keys: The command's own, among which a misspelt one is looked for too.

    Raises:
        ConfigError: For an unknown key or device.
        RunError: If the folder is no run.
    """
    config = read_config(folder, trust=trust)
    place = device_of(device, accelerator=str(config.trainer.get("accelerator", "auto")))
    wanted = [word for word in overrides if word.startswith(_TAKEN)]
    if unknown := set(overrides) - set(wanted):
        key = min(unknown).partition("=")[0]
        known = [name for name in known_keys("train") if f"{name}=".startswith(_TAKEN)]
        raise ConfigError(f"{key}: not a key of this command. {nearest(key, [*keys, *known])}")
    if not wanted:
        return SavedRun(folder, config, other_data=False, device=place)
    form = {key: [str(name) for name in config.data[key]] for key in ("modalities", "classes")}
    if any(word.startswith("data=") for word in wanted):
        fresh = compose_config("train", wanted).data
        given = {word.partition("=")[0].removeprefix("data.") for word in wanted}
        for key in _OF_THE_NETWORK:
            if key not in given:
                fresh[key] = config.data[key]
        if not given & {"test_share", "splits_file", "test_sites"}:
            fresh.test_share = 1.0  # a foreign cohort has nothing to train on
        config.class_weights = "none"
        config.data = fresh
    else:
        _change_data(config, wanted)
    check_config(config)
    other = any(word.startswith(("data=", "data.")) for word in wanted)
    return SavedRun(folder, config, other_data=other, device=place, form=form)


def _change_data(config: DictConfig, overrides: Sequence[str]) -> None:
    changed = compose_config("train", [f"data={config.data.reader}", *overrides])
    for word in overrides:
        key = word.partition("=")[0]
        try:
            OmegaConf.update(config, key, OmegaConf.select(changed, key), merge=False)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{key}: {error}") from error


def load_module(
    saved: SavedRun, data: GliomaDataModule, *, checkpoint: str = BEST
) -> tuple[GuidedClassifier, int]:
    """The trained network for data that is set up, and the epoch of its weights.

    Args:
        saved: The run.
        data: Set up.
        checkpoint: ``best``, which validation chose, ``last``, or ``pareto/<epoch>``.

    Raises:
        CohortError: If the data has other channels, classes or sizes than the network.
        RunError: If the checkpoint is missing, broken, or of another network.
    """
    _require_form(saved, data)
    content = load_checkpoint(saved.folder, name=checkpoint)
    model = instantiate.build_model(
        saved.config, input_shape=data.input_shape, classes=len(data.classes)
    )
    module = instantiate.build_module(saved.config, data=data, model=model)
    weights = content["state_dict"]
    expected = {name: tuple(v.shape) for name, v in module.state_dict().items()}
    found = {name: tuple(v.shape) for name, v in weights.items()}
    differing = sorted(k for k in expected.keys() | found if expected.get(k) != found.get(k))
    if differing:
        first = differing[0]
        fix = (
            "The data must have the run's channels, classes and size: "
            f"data.modalities={list(data.modalities)}, data.spatial_size="
            f"{list(data.input_shape[1:])}, data.classes={list(data.classes)}."
        )
        raise (CohortError if saved.other_data else RunError)(
            f"{saved.folder}: expected a checkpoint with {first} of shape {expected.get(first)}, "
            f"found {found.get(first)} ({len(differing)} entries differ). {fix}"
        )
    module.load_state_dict(weights)
    module.to(saved.device).eval()
    return module, int(content["epoch"])


def _require_form(saved: SavedRun, data: GliomaDataModule) -> None:
    """Refuse other data whose channels or classes are not those of the network, by their names."""
    found = {"modalities": list(data.modalities), "classes": list(data.classes)}
    for key, expected in saved.form.items():
        if list(expected) != found[key]:
            raise CohortError(
                f"data.{key}: expected {list(expected)}, which the network was trained for, found "
                f"{found[key]}. Leave data.{key} out, which keeps the run's; "
                + (
                    "name the classes of the data by data.label_map."
                    if key == "classes"
                    else "the data must have these sequences."
                )
            )
