"""What `evaluate` and `check` do."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from glioma_xai.config import check_config, compose_config
from glioma_xai.data import GliomaDataModule
from glioma_xai.data.inspection import Inspection
from glioma_xai.data.overview import composition, intensities
from glioma_xai.errors import CohortError, ConfigError, GliomaXaiError, RunError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.checkpoints import BEST
from glioma_xai.experiment.launch import folder_of, names_of, split_arguments, value_of
from glioma_xai.experiment.report import headline, write_results
from glioma_xai.experiment.result_files import read_iou_threshold, read_validation
from glioma_xai.experiment.results import evaluate_splits
from glioma_xai.experiment.saved import load_module, open_run
from glioma_xai.records import SPLITS
from glioma_xai.training.checks import check_monitors, check_training


def command_options(
    arguments: Sequence[str], *keys: str
) -> tuple[dict[str, str | None], list[str]]:
    """The command's own keys as raw text (ids stay what they are), and all other overrides."""
    overrides, _, _ = split_arguments(arguments)
    own = {key: value_of(key, overrides) for key in keys}
    rest = [word for word in overrides if word.partition("=")[0].lstrip("+") not in keys]
    return own, rest


def _yes(text: str | None, *, key: str) -> bool:
    """Whether an option of a command is switched on."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text is not None and text.lower() not in known:
        raise ConfigError(f"{key}: expected true or false, found {text}. Choose one.")
    return text is not None and known[text.lower()]


def _checkpoint(text: str | None, folder: Path) -> str:
    """The name of a checkpoint of the run."""
    fronts = (folder / "checkpoints" / "pareto").glob("*.ckpt")
    known = ["best", "last", *sorted(f"pareto/{path.stem}" for path in fronts)]
    if text is not None and text not in known:
        raise ConfigError(
            f"checkpoint: expected one of {', '.join(known)}, found {text}. Choose one."
        )
    return text or BEST


def _output(text: str | None, folder: Path) -> Path:
    """Where an evaluation is written: as asked for, else into a new folder in that of the run."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    output = Path(text or folder / "evaluations" / stamp)
    if output.resolve() == folder.resolve():
        raise ConfigError(
            "output: expected another folder than the run's own, whose report and tables would be "
            f"lost, found {output}. Leave output out for one in {folder / 'evaluations'}."
        )
    return output


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate a run on a split, of its own or of other data; print where the results are."""
    own, rest = command_options(
        arguments, "run", "split", "trust", "output", "faithfulness", "checkpoint", "device"
    )
    folder = folder_of(own["run"], key="run", command="evaluate")
    split = own["split"] or "test"
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, found {split}. Choose one.")
    checkpoint = _checkpoint(own["checkpoint"], folder)
    output = _output(own["output"], folder)
    saved = open_run(
        folder, rest, trust=names_of(own["trust"]), device=own["device"], keys=list(own)
    )
    data = instantiate.build_data(saved.config)
    data.setup("test")
    module, epoch = load_module(saved, data, checkpoint=checkpoint)
    chosen = checkpoint == BEST  # what validation chose is known of the chosen epoch only
    asked = (split,) if chosen or saved.other_data else tuple({"validation": 0, split: 0})
    results = evaluate_splits(
        saved.config,
        data=data,
        module=module,
        splits=asked,
        epoch=epoch,
        validation=read_validation(folder) if chosen else None,
        iou_threshold=read_iou_threshold(folder) if chosen else math.nan,
        faithfulness=_yes(own["faithfulness"], key="faithfulness"),
    )
    if saved.other_data:
        results = results.with_training(data="other than the run's own")
    options = [f"{key}={own[key]}" for key in ("checkpoint", "faithfulness") if own[key]]
    summary = write_results(
        results,
        saved.config,
        data=data,
        module=module,
        folder=output,
        run=folder,
        options=[*rest, *options],
    )
    print(headline(summary, split=split))
    print(f"report: {output / 'report.html'}")


def check(arguments: Sequence[str]) -> None:
    """Read a whole cohort and the network's layers, and print every problem, one a line.

    ``page=<file.html>`` writes the problems, counts and a picture of every subject as a page.

    Raises:
        GliomaXaiError: If there is a problem; a single one of the network or the settings itself,
            of others their number.
    """
    own, overrides = command_options(arguments, "page")
    _, folders, _ = split_arguments(arguments)
    config = compose_config("train", overrides, config_dirs=folders, hydra=False)
    config.paths.run = "runs/check"
    check_config(config)
    data = instantiate.build_data(config)
    found = data.inspect(own["page"])
    for table in (composition(found), intensities(found)) if found.examined else ():
        print(table.to_string(index=False), end="\n\n")
    for problem in found.problems:
        print(f"{problem.severity}: {problem}")
    errors = () if data.on_error == "skip" else found.errors
    others = _other_problems(config, data, found)
    if len(others) == 1 and not errors:
        raise others[0]
    for other in others:
        print(f"error: {_text(other)}")
    if errors:
        besides = f" {len(others)} of the settings and the network are listed with them."
        raise CohortError(
            f"the cohort: expected no errors, found {len(errors)}, listed above. Mend them, "
            "or set data.on_error=skip to go on without those subjects."
            + (besides if others else "")
        )
    if others:
        kind = ConfigError if any(isinstance(o, ConfigError) for o in others) else RunError
        raise kind(
            f"the settings and the network: expected no errors, found {len(others)}, listed above. "
            "Mend them."
        )
    skipped = f"{len(data.left_out)} errors left out" if data.left_out else "no errors"
    print(f"{skipped}: {len(data.table)} samples of {data.table['patient_id'].nunique()} patients")


def _other_problems(
    config: DictConfig, data: GliomaDataModule, found: Inspection
) -> list[Exception]:
    """What would stop training besides single subjects: division, monitors, network, loss.

    Subjects with errors are left out for this. What needs the cohort is not looked at if too little
    of it is left.
    """
    problems: dict[str, Exception] = {}
    ready = _set_up(data, found, problems)
    if ready:
        with _noted(problems):
            check_monitors(config.callbacks, table=data.table, batch_size=data.batch_size)
    shape = data.input_shape if ready else _shape(data, found)
    if shape is None:
        print("the network: not looked at, its size is that of the files. Set data.spatial_size.")
    else:
        _build(config, data, shape, problems, ready=ready)
    return [*problems.values()]


@contextmanager
def _noted(problems: dict[str, Exception]) -> Iterator[None]:
    """Keep what is raised inside; the same text is kept once."""
    try:
        yield
    except Exception as error:  # a network of the user's own may raise any
        problems.setdefault(_text(error), error)


def _set_up(data: GliomaDataModule, found: Inspection, problems: dict[str, Exception]) -> bool:
    """Whether the subjects without errors can be prepared and divided."""
    on_error = data.on_error
    if found.errors:
        data.on_error = "skip"
    with _noted(problems):
        data.setup("fit")
    data.on_error = on_error
    if problems and (not found.examined or problems.keys() & {str(e) for e in found.errors}):
        problems.clear()  # the inspection has listed the reason
        return False
    return not problems


def _build(
    config: DictConfig,
    data: GliomaDataModule,
    shape: tuple[int, ...],
    problems: dict[str, Exception],
    *,
    ready: bool,
) -> None:
    """Build what training would: the network and its rules, and with a cohort all that learns."""
    with _noted(problems):
        model = instantiate.build_model(config, input_shape=shape, classes=len(data.classes))
        for place in instantiate.build_attribution(config).places:
            with _noted(problems):
                place.composite_for(model, shape)
        if ready:
            bare = deepcopy(config)  # a layer without a rule hides nothing else
            bare.attribution = {"composite": "gradient", "target": "label", "layer": None}
            module = instantiate.build_module(bare, data=data, model=model)
            check_training(module, batch_size=data.batch_size, input_shape=shape)


def _shape(data: GliomaDataModule, found: Inspection) -> tuple[int, ...] | None:
    """Channels and size of a sample: of the first subject that can be read, else as configured."""
    if found.examined:
        return (data.preparation.channels, *found.examined[0].entry.geometry["sample_shape"])
    size = data.preparation.spatial_size
    return None if size is None else (data.preparation.channels, *size)


def _text(error: Exception) -> str:
    """An error as a line of a list; the kind of one that is not ours is told."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        return _text(error.__cause__)
    text = str(error)
    return text if isinstance(error, GliomaXaiError) else f"{type(error).__name__}: {text}"
