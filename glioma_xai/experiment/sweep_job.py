"""One job of a sweep: whatever ends it does not end the others."""

import logging
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from glioma_xai.errors import GliomaXaiError
from glioma_xai.experiment.run import resume_run, run
from glioma_xai.experiment.sweep_devices import take_device
from glioma_xai.experiment.sweep_objectives import Score, objectives_of

_log = logging.getLogger(__name__)


def new_job(config: DictConfig, *, folder: Path, launcher: str) -> Score | None:
    """One job; whatever ends it does not end the others, and is in its status.json."""
    own = Path(HydraConfig.get().runtime.output_dir)
    return _guarded(
        lambda: objectives_of(config, run(config, own), own),
        config,
        own,
        launcher=launcher,
        folder=folder,
    )


def resumed_job(
    config: DictConfig, *, folder: Path, launcher: str, trust: str | None
) -> Score | None:
    """One job of an earlier sweep; of the config that Hydra composed only its number counts."""
    own = folder / str(config.job)
    overrides = [] if trust is None else [f"trust={trust}"]

    def work() -> Score:
        resume_run(own, overrides)
        return 0.0

    saved = OmegaConf.load(own / ".hydra" / "config.yaml")
    assert isinstance(saved, DictConfig)
    return _guarded(work, saved, own, launcher=launcher, folder=folder)


def _guarded(
    work: Callable[[], Score | None],
    config: DictConfig,
    own: Path,
    *,
    launcher: str,
    folder: Path,
) -> Score | None:
    try:
        device = take_device(config, launcher, folder / ".devices")
        if device is not None:
            _log.info("job %s has GPU %s", own.name, device)
        return work()
    except GliomaXaiError as error:
        _log.error("job %s failed: %s", own.name, error)
    except Exception:
        _log.exception("job %s failed", own.name)
    return None
