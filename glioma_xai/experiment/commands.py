"""What `evaluate`, `explain` and `check` do."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import nibabel as nib
import torch
from torch.utils.data import default_collate

from glioma_xai.config import check_config, compose_config
from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.cases import draw_cases, save_figures
from glioma_xai.experiment.launch import folder_of, split_arguments, value_of
from glioma_xai.experiment.lifecycle import write_json
from glioma_xai.experiment.report import headline, write_results
from glioma_xai.experiment.results import evaluate_splits, read_validation
from glioma_xai.experiment.saved import load_module, open_run
from glioma_xai.metrics.functional.localization import localization_scores
from glioma_xai.records import SPLITS, Batch
from glioma_xai.training.module import GuidedClassifier


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


def _trusted(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").strip("[]").split(",") if name.strip()]


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluate a run on a split, of its own or of other data; print where the results are."""
    own, rest = _options(arguments, "run", "split", "trust", "output", "faithfulness")
    folder = folder_of(own["run"], key="run", command="evaluate")
    split = own["split"] or "test"
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, found {split}. Choose one.")
    saved = open_run(folder, rest, trust=_trusted(own["trust"]))
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
    saved = open_run(folder, rest, trust=_trusted(own["trust"]))
    data = instantiate.build_data(saved.config)
    data.setup("predict" if saved.other_data else "test")
    module, _ = load_module(saved, data)
    output = Path(own["output"] or folder / "explanations" / subject)
    explain_subject(module, data, subject, output=output)
    print(f"explanation of {subject}: {output}")


def explain_subject(
    module: GuidedClassifier, data: GliomaDataModule, subject: str, *, output: Path
) -> None:
    """Write ``relevance.nii.gz``, one PNG a slice, and ``explanation.json``."""
    batch: Batch = default_collate(data.sample(subject))
    logits, maps = module.attribution.measure(module.model, batch["image"], batch["label"])
    probabilities = logits.double().softmax(dim=1)
    label = int(batch["label"][0])
    output.mkdir(parents=True, exist_ok=True)
    scores = localization_scores(maps, batch["lesion_mask"], brain_mask=batch["brain_mask"])
    mean = probabilities.mean(dim=0)
    shares = maps.abs().flatten(2).sum(dim=(0, 2))
    write_json(
        output / "explanation.json",
        {
            "subject": subject,
            "patient": batch["patient_id"][0],
            "target": module.attribution.measured_target(batch["label"]),
            "composite": module.attribution.composite,
            "classes": list(data.classes),
            "probabilities": dict(zip(data.classes, mean.tolist(), strict=True)),
            "prediction": data.classes[int(mean.argmax())],
            "label": data.classes[label] if label >= 0 else None,
            "slices": [
                {
                    "slice": int(batch["slice_index"][i]),
                    "probabilities": probabilities[i].tolist(),
                    **{name: float(values[i]) for name, values in scores.items()},
                }
                for i in range(len(maps))
            ],
            "modality_shares": dict(
                zip(data.modalities, (shares / shares.sum()).tolist(), strict=True)
            ),
            "orientation": "relevance.nii.gz lies on the subject's own grid, summed over channels",
        },
    )
    sums = maps.sum(dim=1)
    image = data.restore(batch["subject_id"][0], sums, [int(i) for i in batch["slice_index"]])
    nib.save(image, output / "relevance.nii.gz")
    with torch.enable_grad():
        figures = draw_cases(module, batch, classes=data.classes, modalities=data.modalities)
    save_figures(figures, output)


def check(arguments: Sequence[str]) -> None:
    """Read a whole cohort and the network's layers, and print every problem, one a line."""
    overrides, folders, _ = split_arguments(arguments)
    config = compose_config("train", overrides, config_dirs=folders, hydra=False)
    config.paths.run = "runs/check"
    check_config(config)
    data = instantiate.build_data(config)
    problems = data.inspect()
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
