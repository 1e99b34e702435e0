"""What `explain` does: one case by one run or several, and training patients like it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from glioma_xai.data import GliomaDataModule
from glioma_xai.errors import ConfigError
from glioma_xai.experiment import instantiate
from glioma_xai.experiment.commands import command_options
from glioma_xai.experiment.drawing import file_name
from glioma_xai.experiment.explanation import Explanation, explain_subject
from glioma_xai.experiment.launch import folder_of, names_of
from glioma_xai.experiment.saved import SavedRun, load_module, open_run
from glioma_xai.experiment.side_by_side import write_side_by_side
from glioma_xai.experiment.similar_files import write_similar
from glioma_xai.training.module import GuidedClassifier


def explain(arguments: Sequence[str]) -> None:
    """Relevance map of one subject: NIfTI in its own space, overlays, JSON.

    ``compare=[<run>,...]`` explains it by other runs too and lays the maps side by side;
    ``similar=<n>`` finds the n training patients most like it, by what ``layer`` puts out.
    """
    own, rest = command_options(
        arguments, "run", "subject", "output", "trust", "compare", "similar", "layer", "device"
    )
    folder = folder_of(own["run"], key="run", command="explain")
    subject = own["subject"]
    if not subject:
        raise ConfigError(
            "subject: expected the id of a subject, found nothing. Add subject=<id>; "
            f"{folder / 'predictions.csv'} lists the run's own."
        )
    count = _count(own["similar"], own["layer"])
    output = Path(own["output"] or folder / "explanations" / file_name(subject))
    others = [Path(name) for name in names_of(own["compare"])]
    opened = partial(open_run, trust=names_of(own["trust"]), device=own["device"], keys=list(own))
    saved = [opened(run, rest) for run in (folder, *others)]
    labels = _labels(saved)
    module, data = _ready(saved[0])
    first = explain_subject(module, data, subject, output=output)
    if others:
        _compare(dict(zip(labels, saved, strict=True)), first, data, subject, output=output)
    if count:
        training = data
        if saved[0].other_data:
            _, training = _ready(opened(folder, ()))
        write_similar(
            module, data, training, subject, count=count, layer=own["layer"], output=output
        )
    print(f"explanation of {subject}: {output}")


def _count(text: str | None, layer: str | None) -> int:
    if text is None and layer is not None:
        raise ConfigError(
            f"layer={layer}: expected similar=<n> with it, found none. It says which features "
            "similar patients are found by; add similar=3."
        )
    if text is not None and not text.isdecimal():
        raise ConfigError(f"similar: expected a number of patients, found {text}. Use similar=3.")
    return int(text or 0)


def _ready(saved: SavedRun) -> tuple[GuidedClassifier, GliomaDataModule]:
    """Network and data of a run."""
    data = instantiate.build_data(saved.config)
    data.setup("predict" if saved.other_data else "test")
    module, _ = load_module(saved, data)
    return module, data


def _compare(
    runs: Mapping[str, SavedRun],
    first: Sequence[Explanation],
    data: GliomaDataModule,
    subject: str,
    *,
    output: Path,
) -> None:
    """Explain by the other runs, each in a folder of its own, and write what all say."""
    mine, *others = runs
    found = {mine: list(first)}
    for label in others:
        module, own_data = _ready(runs[label])
        folder = output / file_name(label)
        found[label] = explain_subject(module, own_data, subject, output=folder)
    for place, scan in enumerate(first):
        same: Mapping[str, Explanation] = {
            label: explanation
            for label, explanations in found.items()
            for explanation in explanations
            if explanation.subject == scan.subject
        }
        folder = output if len(first) == 1 else output / file_name(scan.subject)
        write_side_by_side(same, data, output=folder)
        if not place:
            print(f"{len(same)} runs side by side: {folder / 'comparison.png'}")


def _labels(saved: Sequence[SavedRun]) -> list[str]:
    """A name for each run that tells it from the others: experiment and seed, else its folder."""
    names = [f"{run.config.name}, seed {run.config.seed}" for run in saved]
    if len(set(names)) < len(names):
        folders = [run.folder.resolve().name for run in saved]
        names = [f"{name}, {folder}" for name, folder in zip(names, folders, strict=True)]
    if len(set(names)) < len(names):
        raise ConfigError(
            "compare: expected other runs than run=, found one of them twice. Name each once."
        )
    return names
