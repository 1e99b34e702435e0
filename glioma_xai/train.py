"""Train a classifier, evaluate it and write its report: ``python -m glioma_xai.train``."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from glioma_xai.experiment.launch import run_command, run_jobs, split_arguments, value_of
from glioma_xai.experiment.run import resume_run, run
from glioma_xai.experiment.sweep import resume_sweep, run_sweep


def job(config: DictConfig) -> float:
    """One run, in the folder that Hydra made for it."""
    return run(config, Path(HydraConfig.get().runtime.output_dir))


def work(arguments: list[str]) -> None:
    """Do what the command line asks: a run or a sweep, new or gone on with."""
    overrides, _, multirun = split_arguments(arguments)
    folder = value_of("resume", overrides)
    if multirun and folder is not None:
        resume_sweep("train", arguments)
    elif multirun:
        run_sweep("train", arguments)
    elif folder is not None:
        rest = [word for word in overrides if not word.startswith("resume=")]
        resume_run(Path(folder), rest)
    else:
        run_jobs("train", arguments, job)


def main() -> None:
    """Entry point."""
    sys.exit(run_command(lambda: work(sys.argv[1:])))


if __name__ == "__main__":
    main()
