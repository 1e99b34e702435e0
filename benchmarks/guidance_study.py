"""Does guidance change the decision? The study behind docs/guidance.md, as Hydra sweeps.

    python -m benchmarks.guidance_study [--blocks confirm few_masks] [--launcher joblib]
                                        [hydra.launcher.n_jobs=2] [--price|--document]

Each run trains one recipe on one phantom cohort whose patients no other seed shares, and asks what
the network decides by: test images as they are in training, with the shortcut removed, swapped
between the classes, and on other patients' backgrounds. Epochs are chosen on validation images with
exchanged backgrounds, never on removed or swapped images.

What is not in the table yet is written as configs of a group ``study`` and swept by ``python -m
glioma_xai.train -m +study=...``, with any launcher. A sweep that was interrupted goes on first.
Rows land in ``benchmarks/results/guidance_study.csv``, the epochs of validation in
``guidance_epochs.csv`` beside it.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.guidance_recipes import BLOCKS, runs_of
from benchmarks.guidance_runs import Run
from benchmarks.guidance_tables import (
    EPOCHS,
    PAGES,
    RESULTS,
    append,
    done_keys,
    epochs_of,
    filled,
    row_of,
)
from glioma_xai.experiment.lifecycle import read_status
from glioma_xai.experiment.sweep_plan import PLAN

TRAIN = (sys.executable, "-m", "glioma_xai.train", "-m")


def sweep(pending: Sequence[Run], *, root: Path, launcher: Sequence[str]) -> int:
    """Start one sweep with a job for each run; return its exit code."""
    group = root / "conf" / "study"
    group.mkdir(parents=True, exist_ok=True)
    for run in pending:
        (group / f"{run.name}.yaml").write_text(run.config)
    command = [
        *(*TRAIN, "--config-dir", str(group.parent)),
        f"+study={','.join(run.name for run in pending)}",
        f"paths.cache={root / 'cache'}",
        f"hydra.sweep.dir={root / f'sweep_{len(sweeps_in(root)):03}'}",
        *launcher,
    ]
    return subprocess.run(command, check=False).returncode


def sweeps_in(root: Path) -> list[Path]:
    """Folders of the sweeps that were started, the first one first."""
    return sorted(path.parent for path in root.glob(f"sweep_*/{PLAN}"))


def jobs_of(folder: Path) -> dict[str, Path]:
    """Folder of each job of a sweep, by the name of its run."""
    return {
        str(yaml.safe_load(config.read_text())["name"]): config.parent.parent
        for config in sorted(folder.glob("*/.hydra/config.yaml"))
    }


def is_finished(job: Path) -> bool:
    return read_status(job).get("state") == "finished"


def collect(root: Path) -> None:
    """Add what has finished and is not in the tables."""
    known = {run.name: run for run in runs_of(BLOCKS)}
    done = done_keys()
    for folder in sweeps_in(root):
        for name, job in jobs_of(folder).items():
            run = known.get(name)
            if run is None or run.key in done or not is_finished(job):
                continue
            append(RESULTS, [row_of(run, job)])
            append(EPOCHS, epochs_of(run, job))
            print(f"{name}: in the table", flush=True)


def main() -> int:
    """Parse the command line; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--recipes", nargs="+", help="these recipes alone, by name")
    parser.add_argument("--seeds", nargs="+", type=int, help="these cohorts alone")
    parser.add_argument("--launcher", default="basic", help="of Hydra: joblib, submitit_slurm, ray")
    parser.add_argument("--root", type=Path, default=Path("runs/study"), help="folder of all runs")
    parser.add_argument("--price", action="store_true", help="only say what would be run")
    parser.add_argument(
        "--document", action="store_true", help="only fill the tables of the documentation"
    )
    arguments, settings = parser.parse_known_args()
    if arguments.document:
        for page in PAGES:
            page.write_text(filled(page.read_text()))
        return 0
    root, launcher = arguments.root.resolve(), [f"hydra/launcher={arguments.launcher}", *settings]
    codes = []
    if not arguments.price:
        collect(root)
        for folder in sweeps_in(root):
            if not all(map(is_finished, jobs_of(folder).values())):
                print(f"{folder} goes on", flush=True)
                resume = [f"resume={folder}", *launcher]
                codes.append(subprocess.run([*TRAIN, *resume], check=False).returncode)
        collect(root)
    done = done_keys()
    pending = [run for run in runs_of(arguments.blocks) if run.key not in done]
    if arguments.seeds:
        pending = [run for run in pending if run.seed in arguments.seeds]
    if arguments.recipes:
        pending = [run for run in pending if run.recipe.name in arguments.recipes]
    minutes = sum(run.recipe.minutes for run in pending)
    print(
        f"{len(pending)} runs to do, {len(done)} done; {minutes:.0f} minutes of a core", flush=True
    )
    if pending and not arguments.price:
        codes.append(sweep(pending, root=root, launcher=launcher))
        collect(root)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
