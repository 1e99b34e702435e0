"""Write a phantom cohort: ``python -m glioma_xai.phantom output=<dir> [subjects=200 ...]``."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from omegaconf import OmegaConf

from glioma_xai.config import compose_config, nearest
from glioma_xai.data.cohort import PhantomSettings, write_cohort
from glioma_xai.errors import CohortError, ConfigError
from glioma_xai.experiment.launch import run_command
from glioma_xai.experiment.signals import interruptible

OWN = {"output", "workers", "progress"}  # keys that do not decide the cohort's bytes


def write(overrides: Sequence[str]) -> None:
    """Write the cohort that the command line describes and print its folder."""
    config = compose_config("phantom", overrides)
    if OmegaConf.is_missing(config, "output"):
        raise ConfigError("output: expected a folder, found nothing. Add output=<dir>.")
    known = {field.name for field in fields(PhantomSettings)}
    for key in map(str, config):
        if key not in known | OWN:  # a key that was added with a plus sign
            raise ConfigError(f"{key}: no such key. {nearest(key, known | OWN)}")
    settings = PhantomSettings(**{name: config[name] for name in known})
    output = Path(str(config.output))
    try:
        write_cohort(output, settings, workers=config.workers, progress=config.progress)
    except OSError as error:
        raise CohortError(
            f"{output}: expected to be able to write there, got {error}. Choose another output."
        ) from error
    print(output)


def main() -> None:
    """Entry point."""

    def work() -> None:
        with interruptible():
            write(sys.argv[1:])

    sys.exit(run_command(work))


if __name__ == "__main__":
    main()
