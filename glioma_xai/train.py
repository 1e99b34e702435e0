"""Train a classifier, evaluate it and write its report: ``python -m glioma_xai.train``."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from glioma_xai.experiment.launch import run_command, run_jobs, split_arguments, value_of
from glioma_xai.experiment.run import resume_run, run


def job(config: DictConfig) -> float:
    """One run, in the folder that Hydra made for it."""
    return run(config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    overrides, _, multirun = split_arguments(arguments)
    folder = value_of("resume", overrides)
    if folder is not None:
        rest = [word for word in overrides if not word.startswith("resume=")]
        sys.exit(run_command(lambda: resume_run(Path(folder), rest, multirun=multirun)))
    sys.exit(run_command(lambda: run_jobs("train", arguments, job)))


if __name__ == "__main__":
    main()
