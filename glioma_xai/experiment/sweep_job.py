"""One job of a sweep: whatever ends it does not end the others."""

import logging
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from glioma_xai.errors import GliomaXaiError
from glioma_xai.experiment.launch import names_of
from glioma_xai.experiment.run import resume_run, run
from glioma_xai.experiment.saved import read_config
from glioma_xai.experiment.sweep_devices import Place, take_device
from glioma_xai.experiment.sweep_objectives import Score, objectives_of

_log = logging.getLogger(__name__)


def new_job(config: DictConfig, *, place: Place) -> Score | None:
    """One job; whatever ends it does not end the others, and is in its status.json."""
    own = Path(HydraConfig.get().runtime.output_dir)

    def work() -> Score | None:
        _take(config, own, place)
        return objectives_of(config, run(config, own), own)

    return _guarded(work, own)


def resumed_job(config: DictConfig, *, place: Place, trust: str | None) -> Score | None:
    """One job of an earlier sweep; of the config that Hydra composed only its number counts."""
    own = place.folder / str(config.job)
    overrides = [] if trust is None else [f"trust={trust}"]

    def work() -> Score:
        _take(read_config(own, trust=names_of(trust)), own, place)
        resume_run(own, overrides)
        return 0.0

    return _guarded(work, own)


def _take(config: DictConfig, own: Path, place: Place) -> None:
    device = take_device(config, place)
    if device is not None:
        _log.info("job %s has GPU %s", own.name, device)


def _guarded(work: Callable[[], Score | None], own: Path) -> Score | None:
    try:
        return work()
    except GliomaXaiError as error:
        _log.error("job %s failed: %s", own.name, error)
    except Exception:
        _log.exception("job %s failed", own.name)
    return None
