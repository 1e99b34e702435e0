"""What `evaluate`, `explain` and `check` do."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from glioma_xai.config import check_config, compose_config
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.drawing import file_name
from glioma_xai.experiment.explanation import explain_subject
from glioma_xai.experiment.launch import folder_of, names_of, split_arguments, value_of
from glioma_xai.experiment.report import headline, write_results
from glioma_xai.experiment.results import evaluate_splits, read_iou_threshold, read_validation
from glioma_xai.experiment.saved import load_module, open_run
from glioma_xai.records import SPLITS


def _options(arguments: Sequence[str], *keys: str) -> tuple[dict[str, str | None], list[str]]:
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


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate a run on a split, of its own or of other data; print where the results are."""
    own, rest = _options(arguments, "run", "split", "trust", "output", "faithfulness")
    folder = folder_of(own["run"], key="run", command="evaluate")
    split = own["split"] or "test"
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, found {split}. Choose one.")
    saved = open_run(folder, rest, trust=names_of(own["trust"]))
    data = instantiate.build_data(saved.config)
    data.setup("test")
    module, epoch = load_module(saved, data)
    results = evaluate_splits(
        saved.config,
        data=data,
        module=module,
        splits=(split,),
        epoch=epoch,
        validation=read_validation(folder),
        iou_threshold=read_iou_threshold(folder),
        faithfulness=_yes(own["faithfulness"], key="faithfulness"),
    )
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    output = Path(own["output"] or folder / "evaluations" / stamp)
    summary = write_results(results, saved.config, data=data, module=module, folder=output)
    print(headline(summary, split=split))
    print(f"report: {output / 'report.html'}")


def explain(arguments: Sequence[str]) -> None:
    """Relevance map of one subject: NIfTI in its own space, overlays, JSON."""
    own, rest = _options(arguments, "run", "subject", "output", "trust")
    folder = folder_of(own["run"], key="run", command="explain")
    subject = own["subject"]
    if not subject:
        raise ConfigError(
            "subject: expected the id of a subject, found nothing. Add subject=<id>; "
            f"{folder / 'predictions.csv'} lists the run's own."
        )
    saved = open_run(folder, rest, trust=names_of(own["trust"]))
    data = instantiate.build_data(saved.config)
    data.setup("predict" if saved.other_data else "test")
    module, _ = load_module(saved, data)
    output = Path(own["output"] or folder / "explanations" / file_name(subject))
    explain_subject(module, data, subject, output=output)
    print(f"explanation of {subject}: {output}")


def check(arguments: Sequence[str]) -> None:
    """Read a whole cohort and the network's layers, and print every problem, one a line.

    ``page=<file.html>`` writes the problems, counts and a picture of every subject as a page.
    """
    own, overrides = _options(arguments, "page")
    _, folders, _ = split_arguments(arguments)
    config = compose_config("train", overrides, config_dirs=folders, hydra=False)
    config.paths.run = "runs/check"
    check_config(config)
    data = instantiate.build_data(config)
    problems = data.inspect(own["page"])
    for problem in problems:
        print(f"{problem.severity}: {problem}")
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise CohortError(
            f"the cohort: expected no errors, found {len(errors)}, listed above. Mend them, or set "
            "data.on_error=skip to go on without those subjects."
        )
    data.setup("fit")
    model = instantiate.build_model(config, input_shape=data.input_shape, classes=len(data.classes))
    instantiate.build_attribution(config).composite_for(model, data.input_shape)
    print(f"no errors: {len(data.table)} samples of {data.table['patient_id'].nunique()} patients")
