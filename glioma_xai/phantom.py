"""Write a phantom cohort: ``python -m glioma_xai.phantom output=<dir> [subjects=200 ...]``."""

import signal
import sys
from difflib import get_close_matches
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from glioma_xai.data.cohort import PhantomSettings, write_cohort
from glioma_xai.errors import ConfigError, GliomaXaiError


def conf_dir() -> Path:
    """Folder of the configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main() -> None:
    """Write the cohort; exit with 0, 1 (the work failed) or 2 (bad command line)."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        output, workers, progress, settings = _compose(sys.argv[1:])
        print(write_cohort(output, settings, workers=workers, progress=progress))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except (GliomaXaiError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _compose(overrides: list[str]) -> tuple[Path, int, bool, PhantomSettings]:
    """Read the command line; a key that the config lacks is an error that names the nearest."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        known = [str(key) for key in compose("phantom")]
        for key in (override.split("=")[0].lstrip("+~") for override in overrides):
            if key not in known:
                nearest = (get_close_matches(key, known, n=1, cutoff=0) or known)[0]
                raise ConfigError(
                    f"expected one of {', '.join(known)}, got {key!r}. Did you mean {nearest}?"
                )
        config = compose("phantom", overrides=overrides)
    options = {key: config[key] for key in known if key not in ("output", "workers", "progress")}
    return Path(config.output), config.workers, config.progress, PhantomSettings(**options)


if __name__ == "__main__":
    main()
